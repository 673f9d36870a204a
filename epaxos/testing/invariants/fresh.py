"""A read sees all that was decided before it was asked, also when it is not ordered itself (dissertation 6.4)."""

from __future__ import annotations

from epaxos.command import Payload
from epaxos.ids import InstanceId
from epaxos.protocols.interface import Frontier, Order
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Call, Life, Record


class FreshReads(Invariant):
    """Holds where there is one order for everything, and says so before any value shows it; silent otherwise."""

    name = "fresh_reads"
    reason = "A leader that was deposed and does not know it yet answers with what used to be true."
    inside = True

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._decided = 0
        self._floors: dict[int, int] = {}
        """The call -> what was decided anywhere when it was made."""

    def decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        if isinstance(order, int):
            self._decided = max(self._decided, order)

    def asked(self, call: Call) -> None:
        self._floors[call.number] = self._decided

    def replied(self, call: Call, executed: Frontier) -> None:
        floor = self._floors[call.number]
        if floor and sum(executed.watermark) < floor:
            raise self.no(f"{call} is answered at {sum(executed.watermark)}, and {floor} was decided when it was made")
