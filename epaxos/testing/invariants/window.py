"""A coordinator has at most W commands in flight (protocol.md 1.7: I19)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.execution.interface import Group
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message, PreAccept
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class Window(Invariant):
    """Of the ids that it sent, in whichever life, at most `record.window` have not run there."""

    name = "window"
    reason = "Only so is every closure finite: otherwise a command may wait for ever for those that come after it."
    inside = True
    messages = (PreAccept,)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._in_flight: dict[ReplicaId, set[InstanceId]] = defaultdict(set)
        self._ran: set[tuple[ReplicaId, InstanceId]] = set()

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, PreAccept) and (life.replica, message.id) not in self._ran:
            in_flight = self._in_flight[life.replica]
            in_flight.add(message.id)
            if len(in_flight) > self.record.window:
                raise self.no(f"{life} sends {message.id}, and of its own {sorted(in_flight)} have not run there")

    def executed(self, life: Life, group: Group) -> None:
        for id_ in group:
            if id_.lane == life.replica:
                self._ran.add((life.replica, id_))
                self._in_flight[life.replica].discard(id_)
