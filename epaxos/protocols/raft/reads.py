"""Linearizable reads without the log: ReadIndex (dissertation 6.4).

The leader notes its commit index and lets a majority confirm, by one round of heartbeats, that it still leads; a read
that waits for the execution of that index sees everything that was answered before the read began. Whoever the read
came to executes that far and answers it, so a follower asks the leader for an index, not for a result. Reads that come
while enough rounds are under way share the next one. There are no leases: no clock is trusted.

A question and its answer name the incarnation that asked. An answer to an earlier life, which a link may still hold,
would otherwise be taken for one to a read of this life that has the same number, and would be too old for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from epaxos.errors import Rejected
from epaxos.ids import BatchNumber, ReplicaId
from epaxos.messages import ReadIndex, ReadIndexOK
from epaxos.protocols.interface import NOTHING, ClearTimer, Serve, SetTimer, Settle
from epaxos.protocols.raft.lead import Lead
from epaxos.protocols.raft.state import Role, State

ROUNDS_MAX: Final = 8
"""Rounds under way for reads. Small: a read waits for a whole round before its own begins. Large: under many reads
nearly each has heartbeats of its own."""


class _Round(NamedTuple):
    round: int
    commit: int
    names: list[BatchNumber]


class Reads:
    """Own reads, and at the leader those of all."""

    def __init__(self, state: State, lead: Lead) -> None:
        self.state = state
        self.lead = lead
        self.open: dict[BatchNumber, int] = {}
        """Own reads without an index, and when each was asked for (0: not yet); those asked longest ago first."""
        self._waiting: list[BatchNumber] = []
        self._rounds: deque[_Round] = deque()
        self.served = 0

    # -- at the replica that was asked

    def read(self, name: BatchNumber, deadline_us: int) -> None:
        """A batch of own clients that only reads."""
        self.state.effects.append(SetTimer(timer=("read", name), at_us=deadline_us))
        self._ask([name])

    def _ask(self, names: list[BatchNumber]) -> None:
        """Ask whoever leads; hold it while nobody is known to. A read may be asked for twice: it has no effect."""
        state = self.state
        for name in names:
            self.open.pop(name, None)
            self.open[name] = 0 if state.leader is None else state.now.mono_us
            if state.role is Role.LEADER:
                self._waiting.append(name)
            elif state.leader is not None:
                # A question reveals nothing that the disk would have to hold first.
                ask = ReadIndex(incarnation=name.incarnation, number=name.number)
                state.send((state.leader,), ask, NOTHING)
        if state.role is Role.LEADER:
            self.proceed()

    def leader_known(self) -> None:
        """There is a leader, a new one perhaps: ask it for everything."""
        self._waiting, self._rounds = [], deque()
        self._ask(list(self.open))

    def link_up(self, peer: ReplicaId) -> None:
        """What was in flight to the leader may be lost."""
        if peer == self.state.leader:
            self._ask(list(self.open))

    def tick(self) -> None:
        """Ask again for what was not answered in two round trips."""
        if self.state.role is not Role.LEADER:
            overdue_us = self.state.now.mono_us - 2 * self.state.round_trip_us()
            self._ask([name for name, asked_us in self.open.items() if asked_us <= overdue_us])

    def on_read_index_ok(self, message: ReadIndexOK) -> None:
        """An index for a read of this life; it has been answered before, otherwise."""
        self._serve(BatchNumber(self.state.me, message.incarnation, message.number), message.index)

    def _serve(self, name: BatchNumber, index: int) -> None:
        if self.open.pop(name, None) is not None:
            self.served += 1
            self.state.effects.append(ClearTimer(timer=("read", name)))
            self.state.effects.append(Serve(name=name, order=index))

    def deadline(self, name: BatchNumber) -> None:
        """A read that was not answered was certainly not applied."""
        if self.open.pop(name, None) is not None:
            detail = "no leader confirmed the read before its deadline"
            self.state.effects.append(Settle(name=name, outcome=Rejected("no_quorum", detail)))

    # -- at the leader

    def on_read_index(self, peer: ReplicaId, message: ReadIndex) -> None:
        """A read of a follower's clients. Who leads no longer stays silent: the asker will hear of the next."""
        if self.state.role is Role.LEADER:
            self._waiting.append(BatchNumber(peer, message.incarnation, message.number))
            self.proceed()

    def proceed(self) -> None:
        """Answer what is confirmed, and begin a round for what waits.

        Not before an entry of this term is committed: until then the leader does not know what is (6.4, step 1).
        """
        confirmed = self.lead.confirmed()
        while self._rounds and self._rounds[0].round <= confirmed:
            _, commit, names = self._rounds.popleft()
            for name in names:
                self._answer(name, commit)
        if self._waiting and self.state.settled and len(self._rounds) < ROUNDS_MAX:
            names, self._waiting = self._waiting, []
            self._rounds.append(_Round(self.lead.open_round(), self.state.commit, names))
            if self.state.majority == 1:
                self.proceed()

    def _answer(self, name: BatchNumber, index: int) -> None:
        if name.origin == self.state.me:
            self._serve(name, index)
        else:
            # The index is committed, so durable on a majority, whatever this disk has.
            ok = ReadIndexOK(incarnation=name.incarnation, number=name.number, index=index)
            self.state.send((name.origin,), ok, NOTHING)

    def digest(self) -> tuple[object, ...]:
        """For digests."""
        return (list(self.open.items()), self._waiting, list(self._rounds))
