"""What is known and not executed, by the keys it touches: where the graph executor finds the edges of an id.

A **row** belongs to one key. It holds a **strip** for each lane and mode: the slots of the ids that touch the key in
that mode, in order. A dependency vector says "up to here" a lane, so the edges of an id are the front of each strip,
and the first of a strip answers whether there is any. Two rows are not of keys: one holds what touches the whole
state, one holds everything.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from epaxos.command import HEADER, READ, WHOLE, Batch
from epaxos.ids import InstanceId, Lane, Vector
from epaxos.packing import walk

UNDECIDED: Final = 0
READY: Final = 1
"""Decided; nothing is known that it waits for."""
PARKED: Final = 2
"""Decided, and in a lot: waits for what wakes the lot, unless that has come."""
EXECUTED: Final = 3

NOTHING: Final = -1


class Touch(NamedTuple):
    """What a batch touches, in the order of its entries. Keys may repeat; entries that touch the whole are apart."""

    keys: list[tuple[int, bool]]
    """(key hash, is it written?)"""
    writes: bool
    whole_read: bool
    whole_write: bool


def touched(batch: Batch) -> Touch:
    """What `batch` touches; ProtocolError when it is not framed as a batch."""
    keys: list[tuple[int, bool]] = []
    only_read = True
    whole = [False, False]
    for hash_, _, _, _, flags in walk(batch.data, HEADER.size):
        read = bool(flags & READ)
        only_read &= read
        if flags & WHOLE:
            whole[read] = True
        else:
            keys.append((hash_, not read))
    return Touch(keys, not only_read, whole[True], whole[False])


class Node:
    """One known, unexecuted id."""

    __slots__ = (
        "id", "lane", "slot", "touch", "deps", "state", "lot", "announced",
        "stamp", "index", "low", "hint", "step", "part",
    )  # fmt: skip

    def __init__(self, id_: InstanceId, touch: Touch) -> None:
        self.id = id_
        self.lane = id_.lane
        self.slot = id_.slot
        self.touch = touch
        self.deps: Vector = ()
        self.state = UNDECIDED
        self.lot: Lot | None = None
        """The lot it was parked in last; while undecided, its own: of those that wait for its decision."""
        self.announced = False
        """Its rows know what it waits for (`Row.want`)."""
        self.stamp = 0
        """The walk that visited it last. The next four fields belong to that walk."""
        self.index = 0
        self.low = 0
        self.step = 0
        """How many of its targets the walk has done with."""
        self.part = 0
        """How many strips of the current target."""
        self.hint = 0
        """The target to begin with: where it was blocked last."""

    @property
    def targets(self) -> int:
        """How many rows it may have edges into: the two of the whole state, then one a key."""
        return 2 + len(self.touch.keys)


class Lot:
    """Ids that reach one, the owner, and wait until the owner waits no more.

    The owner waits for one event: its own decision, or that everything in a lane is known up to a slot. The event wakes
    the lot. If the owner is then parked elsewhere, the lot is put into that one as a whole, since all of it reaches
    the owner: so what waits behind a long chain is not looked at again for every link of it.
    """

    __slots__ = ("owner", "members", "parts", "into", "woken")

    def __init__(self, owner: Node) -> None:
        self.owner = owner
        self.members: list[Node] = []
        """Some may have gone to another lot since."""
        self.parts: list[Lot] = []
        """Lots that were put into this one."""
        self.into: Lot | None = None
        self.woken = False

    def top(self) -> Lot:
        """The lot that this one is in by now, itself if in none."""
        lot = self
        while lot.into is not None:
            if lot.into.into is not None:
                lot.into = lot.into.into
            lot = lot.into
        return lot

    def put_into(self, other: Lot) -> None:
        """Become a part of `other`."""
        self.into = other
        other.parts.append(self)

    def everyone(self) -> list[Node]:
        """The members of this lot and of all its parts."""
        lots, found = [self], list[Node]()
        while lots:
            lot = lots.pop()
            lots += lot.parts
            found += lot.members
        return found


class Strip:
    """The ids of one row, lane and mode, in the order of their slots."""

    __slots__ = ("lane", "slots", "head", "want", "stamp", "lows")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.slots: list[int] = []
        self.head = 0
        """Where the ids begin: what lies before is over, so that taking the first away costs nothing."""
        self.want = 0
        """Decided ids wait for everything here up to this slot. It never falls: what executed had nothing undecided
        under it, and nothing can become known there any more."""
        self.stamp = 0
        """The walk that `lows` belongs to."""
        self.lows: list[int] = []
        """For each id from the head on that the walk has passed: the lowest index on the stack, up to here."""

    def add(self, slot: int) -> bool:
        """Put a slot in; False when it is there."""
        slots = self.slots
        if not slots or slots[-1] < slot:
            slots.append(slot)
            return True
        at = bisect_left(slots, slot, self.head)
        if at < len(slots) and slots[at] == slot:
            return False
        if at == self.head > 0:
            self.head -= 1
            slots[self.head] = slot
        else:
            slots.insert(at, slot)
        return True

    def remove(self, slot: int) -> bool:
        """Take a slot away; False when it is not there."""
        slots = self.slots
        at = bisect_left(slots, slot, self.head)
        if at == len(slots) or slots[at] != slot:
            return False
        if at > self.head:
            del slots[at]
            return True
        self.head += 1
        if 2 * self.head >= len(slots):
            del slots[: self.head]
            self.head = 0
        return True

    def raise_want(self, slot: int) -> list[int]:
        """Want everything up to `slot`; returns the slots that were not wanted before."""
        if slot <= self.want:
            return []
        first = bisect_right(self.slots, self.want, self.head)
        self.want = slot
        return self.slots[first : bisect_right(self.slots, slot, first)]

    def has_under(self, slot: int) -> bool:
        """Is there an id up to `slot`?"""
        return self.head < len(self.slots) and self.slots[self.head] <= slot


class Row:
    """The known, unexecuted ids that touch one key. One that reads it here and writes it there is among both."""

    __slots__ = ("strips", "writers", "readers")

    def __init__(self, n: int) -> None:
        self.strips = [Strip(lane) for lane in (*range(n), *range(n))]
        """First the writers of each lane, then the readers of each."""
        self.writers = 0
        self.readers = 0

    def conflicting(self, write: bool) -> list[Strip]:
        """The strips of what conflicts with a writer, or with a reader."""
        return self.strips if write else self.strips[: len(self.strips) // 2]

    def has_conflict(self, write: bool) -> bool:
        """Is anything here that conflicts with a writer, or with a reader?"""
        return self.writers > 0 or (write and self.readers > 0)

    def add(self, lane: Lane, slot: int, write: bool) -> bool:
        """Put an id in; is it wanted here?"""
        strip = self.strips[lane if write else len(self.strips) // 2 + lane]
        if write:
            self.writers += strip.add(slot)
        else:
            self.readers += strip.add(slot)
        return slot <= strip.want

    def remove(self, lane: Lane, slot: int) -> None:
        """Take an id away, if it is here."""
        self.writers -= self.strips[lane].remove(slot)
        self.readers -= self.strips[len(self.strips) // 2 + lane].remove(slot)

    def want(self, deps: Vector, write: bool) -> list[tuple[Lane, int]]:
        """A writer (or reader) with these dependencies waits: the (lane, slot) of what is wanted by it first."""
        strips = self.conflicting(write)
        return [(strip.lane, slot) for strip in strips for slot in strip.raise_want(deps[strip.lane])]

    def has_under(self, deps: Vector, write: bool) -> bool:
        """Is anything here, up to `deps`, that conflicts with a writer, or with a reader?"""
        return any(strip.has_under(deps[strip.lane]) for strip in self.conflicting(write))
