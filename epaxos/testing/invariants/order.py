"""Commands that conflict execute in the same order in every life of every replica (protocol.md 1.7: I13)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Applied, Life, Record, Ref


class EqualOrder(Invariant):
    """For each key: the same sequence of writes, and each read behind the same number of them."""

    name = "equal_order"
    reason = "It is what replication means; and a restart that replays another order has changed acknowledged history."

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._writes: dict[bytes, list[Ref]] = defaultdict(list)
        self._reads: dict[tuple[bytes, Ref], tuple[int, Life]] = {}
        self._done: dict[tuple[Life, bytes], int] = defaultdict(int)

    def applied(self, life: Life, applied: Applied) -> None:
        for ref, touches in zip(applied.refs, applied.touches, strict=True):
            for key, writes in self.record.expand(touches):
                if writes:
                    self._write(life, key, ref)
                else:
                    self._read(life, key, ref)

    def _write(self, life: Life, key: bytes, ref: Ref) -> None:
        order, position = self._writes[key], self._done[life, key]
        if position == len(order):
            order.append(ref)
        elif order[position] != ref:
            raise self.no(f"write {position} of {key!r} is {ref} in {life}, but {order[position]} elsewhere")
        self._done[life, key] = position + 1

    def _read(self, life: Life, key: bytes, ref: Ref) -> None:
        position = self._done[life, key]
        elsewhere, where = self._reads.setdefault((key, ref), (position, life))
        if elsewhere != position:
            raise self.no(f"{ref} reads {key!r} behind {position} writes in {life}, but {elsewhere} in {where}")
