"""All decisions of an id are equal, in every life of every replica (protocol.md 1.7: I7, I12, I16)."""

from __future__ import annotations

from epaxos.command import NOP, Payload
from epaxos.ids import InstanceId
from epaxos.protocols.interface import Order
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class Agreement(Invariant):
    """Equal payload and equal order; a Nop without dependencies; nothing after itself in its own lane."""

    name = "agreement"
    reason = "Execution is a function of the decided set alone: two decisions of one id are two different states."

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._decisions: dict[InstanceId, tuple[Payload, Order, Life]] = {}

    def decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        known = self._decisions.get(id_)
        if known is None:
            self._decisions[id_] = (payload, order, life)
            self._check_shape(life, id_, payload, order)
        elif known[0] != payload or known[1] != order:
            raise self.no(f"{id_} is {payload} at {order} in {life}, but {known[0]} at {known[1]} in {known[2]}")

    def _check_shape(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        if isinstance(order, int):
            return
        if payload is NOP and any(order):
            raise self.no(f"{id_} is a Nop with dependencies {order} in {life}")
        if order[id_.lane] >= id_.slot:
            raise self.no(f"{id_} depends on itself or on a later id of its own lane, {order}, in {life}")
