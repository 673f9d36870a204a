"""A set of ids that is dense from below: one watermark a lane, and the sparse tail above it."""

from __future__ import annotations

from typing import Final

from epaxos.ids import MAX_SLOT, InstanceId, Lane
from epaxos.protocols.interface import Frontier

GAPS_MAX: Final = 1024
"""How many unknown ids of a lane, the lowest, an executor reports at a time. Small: a replica that was away learns
the lane in many rounds. Large: every round makes a long list."""


class Lanes:
    """The executed ids of one epoch. The first id placed says which epoch that is."""

    __slots__ = ("epoch", "watermark", "tails", "_bound")

    def __init__(self, n: int) -> None:
        """No id yet, of `n` lanes; ValueError for none."""
        if n < 1:
            raise ValueError(f"{n} lanes")
        self.epoch = 0
        self.watermark = [0] * n
        self.tails: list[set[int]] = [set() for _ in range(n)]
        self._bound = False

    def place(self, id_: InstanceId) -> tuple[Lane, int]:
        """(lane, slot) of an id that can be: of these lanes, and of the epoch of all others. ValueError otherwise."""
        epoch, slot, lane = id_
        if not 0 <= lane < len(self.watermark) or not 1 <= slot <= MAX_SLOT:
            raise ValueError(f"{id_} has no place in {len(self.watermark)} lanes")
        if self._bound and epoch != self.epoch:
            raise ValueError(f"{id_} is not of epoch {self.epoch}")
        self.epoch, self._bound = epoch, True
        return lane, slot

    def add(self, lane: Lane, slot: int) -> None:
        """Put an id into the set that is not in it."""
        tail, mark = self.tails[lane], self.watermark[lane]
        if slot != mark + 1:
            tail.add(slot)
            return
        mark = slot
        while tail and mark + 1 in tail:
            mark += 1
            tail.remove(mark)
        self.watermark[lane] = mark

    def has(self, lane: Lane, slot: int) -> bool:
        """Is the id in the set?"""
        return slot <= self.watermark[lane] or slot in self.tails[lane]

    def frontier(self) -> Frontier:
        """The set as a value."""
        beyond = (InstanceId(self.epoch, slot, lane) for lane, tail in enumerate(self.tails) for slot in tail)
        return Frontier(tuple(self.watermark), frozenset(beyond))
