"""Of two decided commands that conflict, one is in the dependencies of the other (protocol.md 1.7: I9)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.command import NOP, Payload
from epaxos.ids import InstanceId, Vector, covers
from epaxos.protocols.interface import Order
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Life, Record


class Visibility(Invariant):
    """Holds for decisions that are ordered by dependencies; silent about others."""

    name = "visibility"
    reason = "Without an edge between them, each replica executes the two in the order in which it hears of them."

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._orders: dict[InstanceId, Vector] = {}
        self._touching: dict[bytes, dict[InstanceId, bool]] = defaultdict(dict)

    def decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        if id_ in self._orders or payload is NOP or isinstance(order, int):
            return
        self._orders[id_] = order
        for touches in self.record.unpack(payload).touches:
            for key, writes in self.record.expand(touches):
                self._touching[key][id_] = writes or self._touching[key].get(id_, False)

    def finished(self, final: Final) -> None:
        for key, touching in self._touching.items():
            ids = sorted(touching.items())
            for position, (a, a_writes) in enumerate(ids):
                for b, b_writes in ids[:position]:
                    if (a_writes or b_writes) and not covers(self._orders[a], b) and not covers(self._orders[b], a):
                        raise self.no(
                            f"{a} {self._orders[a]} and {b} {self._orders[b]} conflict on {key!r} without an edge"
                        )
