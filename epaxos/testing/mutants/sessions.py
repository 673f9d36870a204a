"""Bugs of exactly-once tables, as other systems had them: what is kept, what is forgotten, and in which order."""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

_TABLE: Final = "epaxos.execution.sessions"

SESSIONS: Final[tuple[Mutant, ...]] = (
    Mutant(
        name="max-only-table",
        story="a session keeps the highest number only, and skips an earlier one that executes later (S25)",
        edits=(
            (_TABLE, "if stamp.number in session.executed:", "if stamp.number <= session.executed.last:"),
            (
                _TABLE,
                "        session.executed.add(stamp.number)\n",
                "        session.executed = NumberSet([(1, stamp.number)])\n",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="straggler-after-close",
        story="a command of a session that nobody knows any more opens it again, and is applied again (S42)",
        edits=(
            (
                _TABLE,
                '            return Rejected("session_closed", f"session {stamp.session} is closed, or never was")\n',
                "            session = self._sessions[stamp.session] = Session(stamp.fifo)\n",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="eviction-by-local-order",
        story="a replica that has too many sessions drops the one that it opened first, not the one a Barrier names",
        edits=(
            (
                _TABLE,
                "        self._sessions[opening.session] = Session(opening.fifo)\n",
                "        self._sessions[opening.session] = Session(opening.fifo)\n"
                "        if len(self._sessions) > 2:\n"
                "            del self._sessions[next(iter(self._sessions))]\n",
            ),
        ),
    ),
    Mutant(
        name="a-floor-marks-as-executed",
        story="what the client has the outcome of is taken for executed here, where it is not yet (S25)",
        edits=(
            (
                _TABLE,
                "if stamp.number in session.executed:",
                "if stamp.number in session.executed or stamp.number <= session.floor:",
            ),
        ),
    ),
    Mutant(
        name="forgotten-sessions",
        story="the table is not rebuilt at a restart: copies of what was applied before it are applied again",
        edits=(
            (
                "epaxos.applier",
                "        self.delivered = self.cursor if self._groups else 0\n",
                "        self.delivered = self.cursor if self._groups else 0\n"
                "        for session in self.sessions._sessions.values():\n"
                "            session.executed = NumberSet()\n",
            ),
            (
                "epaxos.applier",
                "from epaxos.execution.sessions import Outcome, Sessions\n",
                "from epaxos.execution.sessions import NumberSet, Outcome, Sessions\n",
            ),
        ),
    ),
    Mutant(
        name="an-opening-that-only-reads",
        story="the opening of a session is not ordered against its commands: some replicas find them void",
        edits=(
            (
                "epaxos.session",
                "Entry(SESSION_OPEN_OP, 0, session.key",
                "Entry(SESSION_OPEN_OP, READ, session.key",
            ),
        ),
    ),
    Mutant(
        name="resubmission-after-deadline",
        story="a command that became a Nop is proposed again, though its caller was told that it is rejected for good",
        edits=(
            (
                "epaxos.protocols.epaxos.lead",
                "                continue\n            self.resubmitted += 1\n",
                "            self.resubmitted += 1\n",
            ),
        ),
    ),
)
