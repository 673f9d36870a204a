"""Handing leadership to the replica that is preferred (dissertation 3.10)."""

from __future__ import annotations

from collections import deque
from typing import Final

from epaxos.ids import ReplicaId
from epaxos.messages import TimeoutNow
from epaxos.protocols.interface import NOTHING
from epaxos.protocols.raft.lead import Lead
from epaxos.protocols.raft.state import State

PATIENCE: Final = 10
"""Election timeouts between two attempts. Small: a preferred replica that cannot lead costs an election each time.
Large: the leader stays far from its clients for longer."""
NEAR_TICKS: Final = 4
"""A replica is nearly there when it has what the log held so many heartbeat intervals ago: two of the longest round
trips, which is more than an answer takes on a link that keeps up. Nobody's proposals are taken until it has the rest,
and that takes as long at most, whatever entries weigh and links carry."""


class Transfer:
    """What the leader does to lead no longer."""

    def __init__(self, state: State, lead: Lead) -> None:
        self.state = state
        self.lead = lead
        self.target: ReplicaId | None = None
        self._until_us = 0
        self._next_us = 0
        self._ends: deque[int] = deque(maxlen=NEAR_TICKS)
        """Where the log ended at the latest ticks, the oldest first."""

    def begin(self) -> None:
        """A new term: its leader has its own house to put in order first."""
        self.target = None
        self._ends.clear()
        self._next_us = self.state.now.mono_us + self.state.election_us()

    def tick(self) -> None:
        """Begin when the preferred replica is nearly there, and give up when it does not take over."""
        state, now_us, preferred = self.state, self.state.now.mono_us, self.state.preferred
        self._ends.append(state.log.last)
        if self.target is not None:
            if now_us >= self._until_us:
                state.note("transfer_failed", f"to {self.target}")
                self.target, self.lead.accepting = None, True
                self._next_us = now_us + PATIENCE * state.election_us()
        elif preferred not in (None, state.me) and now_us >= self._next_us:
            progress = self.lead.progress[preferred]
            alive = now_us < progress.heard_us + state.election_us() // 2
            if alive and progress.match >= self._ends[0]:
                self.start(preferred)

    def start(self, target: ReplicaId) -> None:
        """Take no more proposals, so that `target` can catch up. They wait where they are; see `submit`."""
        self.state.note("transfer", f"to {target}")
        self.target, self.lead.accepting = target, False
        self._until_us = self.state.now.mono_us + self.state.election_us()
        self.check(target)

    def check(self, peer: ReplicaId) -> None:
        """`peer` answered: when it has everything, it is its turn. Sent again with every answer, since links lose."""
        if peer == self.target and self.lead.progress[peer].match == self.state.log.last:
            # Reveals nothing but the term, which is durable since before the election.
            self.state.send((peer,), TimeoutNow(term=self.state.term), NOTHING)

    def digest(self) -> tuple[object, ...]:
        """For digests."""
        return (self.target, self._until_us, self._next_us, list(self._ends))
