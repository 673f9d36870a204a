"""Sets of ids that are dense per lane: a watermark and the few beyond it."""

from __future__ import annotations

from epaxos.ids import InstanceId
from epaxos.protocols.interface import Frontier


class Watermarks:
    """A growing set of ids of one epoch; `low[lane]` is the highest slot up to which all are in."""

    __slots__ = ("low", "_beyond")

    def __init__(self, n: int) -> None:
        self.low = [0] * n
        self._beyond: list[set[int]] = [set() for _ in range(n)]

    def __contains__(self, id_: InstanceId) -> bool:
        return id_.slot <= self.low[id_.lane] or id_.slot in self._beyond[id_.lane]

    def copy(self) -> Watermarks:
        """The same set, to grow on its own."""
        twin = Watermarks(0)
        twin.low = self.low[:]
        twin._beyond = [beyond.copy() for beyond in self._beyond]
        return twin

    def add(self, id_: InstanceId) -> None:
        """Put `id_` in; idempotent."""
        low, beyond = self.low[id_.lane], self._beyond[id_.lane]
        if id_.slot != low + 1:
            if id_.slot > low:
                beyond.add(id_.slot)
            return
        low += 1
        while beyond and low + 1 in beyond:
            low += 1
            beyond.discard(low)
        self.low[id_.lane] = low

    def restore(self, frontier: Frontier) -> None:
        """Become the set that `frontier` describes."""
        self.low = list(frontier.watermark)
        self._beyond = [set() for _ in self.low]
        for id_ in frontier.beyond:
            self.add(id_)

    def lacks(self, lane: int, last: int) -> int:
        """How many of the slots of `lane` up to `last`, the highest there is, are not in."""
        return last - self.low[lane] - len(self._beyond[lane])

    def gaps(self, lane: int, last: int, most: int) -> list[tuple[int, int]]:
        """The missing slots of `lane` up to `last`, as at most `most` ranges (first, last)."""
        ranges: list[tuple[int, int]] = []
        first = self.low[lane] + 1
        for slot in sorted(s for s in self._beyond[lane] if s <= last):
            if slot > first:
                ranges.append((first, slot - 1))
                if len(ranges) == most:
                    return ranges
            first = slot + 1
        if first <= last:
            ranges.append((first, last))
        return ranges

    def state(self) -> tuple[object, ...]:
        """For digests and status."""
        return (tuple(self.low), tuple(tuple(sorted(beyond)) for beyond in self._beyond))
