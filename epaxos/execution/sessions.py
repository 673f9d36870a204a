"""The session table: which numbers of which session have taken effect, and with what results (protocol.md 4.6).

Replicated state, as the machine's: every rule here is a function of the commands and of the order that conflicting ones
have everywhere, never of a clock or of the order in which commands happen to execute here. Windows, not a maximum: of
two commands that do not conflict, the later number may execute first, and the earlier one still takes effect (S25).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import cbor2

from epaxos.errors import Rejected, StorageError, Unknown
from epaxos.session import NOT_KEPT, RESULT_BYTES, Ended, Opening, SessionId, Stamp

VERSION: Final = 1

Outcome = bytes | Rejected | Unknown
"""What the sender of a command learns: its result, or why there is none."""


class NumberSet:
    """A set of positive integers, kept as disjoint, non-adjacent intervals in ascending order."""

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        for low, high in intervals:
            self._lows.append(low)
            self._highs.append(high)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._lows, number) - 1
        return at >= 0 and number <= self._highs[at]

    @property
    def last(self) -> int:
        """The highest number; 0 when there is none."""
        return self._highs[-1] if self._highs else 0

    def add(self, number: int) -> None:
        """Put a number in that is not there."""
        lows, highs = self._lows, self._highs
        at = bisect_right(lows, number)
        joins_left = at > 0 and highs[at - 1] == number - 1
        joins_right = at < len(lows) and lows[at] == number + 1
        if joins_left and joins_right:
            highs[at - 1] = highs[at]
            del lows[at], highs[at]
        elif joins_left:
            highs[at - 1] = number
        elif joins_right:
            lows[at] = number
        else:
            lows.insert(at, number)
            highs.insert(at, number)

    def intervals(self) -> list[tuple[int, int]]:
        """Both ends of each interval."""
        return list(zip(self._lows, self._highs, strict=True))


@dataclass(slots=True)
class Session:
    """What is kept of one session."""

    fifo: bool
    executed: NumberSet = field(default_factory=NumberSet)
    floor: int = 0
    """The largest floor that any of its commands carried."""
    results: dict[int, bytes] = field(default_factory=dict)
    """Of executed numbers above the floor, the short ones: a rule that does not depend on the order of execution."""

    def raise_floor(self, floor: int) -> None:
        """The client has the results up to here. It says nothing about which numbers were executed."""
        if floor > self.floor:
            self.floor = floor
            self.results = {number: result for number, result in self.results.items() if number > floor}


class Sessions:
    """All sessions of the cluster, as of what this replica has executed."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, Session] = {}
        self._touched: dict[SessionId, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: SessionId) -> bool:
        return session in self._sessions

    def last(self, session: SessionId) -> int:
        """The highest number of that session that was executed."""
        return self._sessions[session].executed.last

    # -- execution

    def open(self, opening: Opening) -> None:
        """The session exists from here on."""
        self._touched[opening.session] = None
        self._sessions[opening.session] = Session(opening.fifo)

    def judge(self, stamp: Stamp) -> Outcome | None:
        """None: the command takes effect now, and `keep` follows, before or after further ones are judged. Otherwise it
        has none, and this is its outcome."""
        session = self._sessions.get(stamp.session)
        if session is None:
            return Rejected("session_closed", f"session {stamp.session} is closed, or never was")
        if stamp.fifo is not session.fifo:
            return Rejected("malformed", f"session {stamp.session} is {'' if session.fifo else 'not '}FIFO")
        self._touched[stamp.session] = None
        session.raise_floor(stamp.floor)
        if stamp.number in session.executed:
            result = session.results.get(stamp.number)
            return result if result is not None else Unknown(NOT_KEPT)
        if session.fifo and stamp.number != session.executed.last + 1:
            return Rejected("out_of_order", f"number {stamp.number} follows {session.executed.last}: resubmit in order")
        session.executed.add(stamp.number)
        return None

    def keep(self, stamp: Stamp, result: bytes) -> None:
        """What came of the command that took effect."""
        session = self._sessions[stamp.session]
        if stamp.number > session.floor and len(result) <= RESULT_BYTES:
            session.results[stamp.number] = result

    def end(self, ended: Iterable[Ended]) -> None:
        """The sessions that a Barrier names end, unless they went on meanwhile."""
        for one in ended:
            if one.session in self._sessions and not self._went_on(one):
                del self._sessions[one.session]
                self._touched[one.session] = None

    def _went_on(self, ended: Ended) -> bool:
        return ended.unless_after is not None and self.last(ended.session) > ended.unless_after

    def touched(self) -> list[SessionId]:
        """The sessions that had a command executed since this was last asked; those that have ended among them."""
        if not self._touched:
            return []
        touched, self._touched = self._touched, {}
        return list(touched)

    # -- the whole table

    def save(self) -> bytes:
        """The table in a canonical form: equal tables give equal bytes."""
        rows = [
            [*id_, session.fifo, session.floor, session.executed.intervals(), sorted(session.results.items())]
            for id_, session in sorted(self._sessions.items())
        ]
        return cbor2.dumps([VERSION, rows])

    def load(self, saved: bytes) -> None:
        """The inverse of `save`. Raises StorageError for another version."""
        version, rows = cbor2.loads(saved)
        if version != VERSION:
            raise StorageError(f"session table of version {version}; this release reads {VERSION}")
        self._sessions = {
            SessionId(*id_): Session(fifo, NumberSet((low, high) for low, high in intervals), floor, dict(results))
            for *id_, fifo, floor, intervals, results in rows
        }

    def digest(self) -> bytes:
        """16 bytes, equal for equal tables."""
        return hashlib.blake2b(self.save(), digest_size=16).digest()
