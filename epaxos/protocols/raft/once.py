"""A batch takes effect once, however often the log holds it.

Links duplicate, a forwarded batch is sent again until it has executed, and a new leader cannot know what is still
under way: so the log may come to hold a batch twice. Nothing at the leader could rule that out without waiting for
messages that may never come. Instead, the second one has no effect: whether an entry is a repetition is a function of
the log before it, so every replica finds the same at the same index, in every life, and decides a NOP there.

What must be remembered is bounded. A batch is named by its origin, the origin's incarnation and a number that grows,
so for each origin a window of numbers below the highest is enough: what is below the window, or of an earlier
incarnation, is refused as well. Nobody is told a wrong outcome by that. An origin whose batch was not decided before
it was refused knows that it never will be; and of an earlier incarnation nobody waits.

When snapshots exist, the rows belong into them: they are part of what the log before the snapshot means.
"""

from __future__ import annotations

from typing import Final

from epaxos.command import NOP, Batch, Payload
from epaxos.ids import BatchNumber, ReplicaId

NUMBERS: Final = 1 << 16
"""Numbers remembered below the highest of an origin: 8 KiB a replica. Small: a batch that was lost on its way to the
leader is refused after so many later ones, instead of being sent again. Large: nothing but memory and a microsecond."""

_ALL: Final = (1 << NUMBERS) - 1
_NOBODY: Final = (-1, 0, 0)


class Once:
    """What the log up to `upto` has decided."""

    def __init__(self) -> None:
        self.upto = 0
        self.refused: set[int] = set()
        """Indices whose batch had been decided before, or came too late."""
        self._rows: dict[ReplicaId, tuple[int, int, int]] = {}
        """origin -> (incarnation, highest number, which of the numbers below it were there: bit 0 is the highest)"""

    def knows(self, name: BatchNumber) -> bool:
        """Would a batch of this name have no effect behind `upto`?"""
        incarnation, highest, seen = self._rows.get(name.origin, _NOBODY)
        if name.incarnation != incarnation:
            return name.incarnation < incarnation
        below = highest - name.number
        return below >= NUMBERS or (below >= 0 and bool(seen >> below & 1))

    def decide(self, payload: Payload) -> Payload:
        """The entry behind `upto` is committed: what is decided there?"""
        self.upto += 1
        if not isinstance(payload, Batch):
            return payload
        name = payload.name
        if self.knows(name):
            self.refused.add(self.upto)
            return NOP
        incarnation, highest, seen = self._rows.get(name.origin, _NOBODY)
        if name.incarnation > incarnation:
            highest, seen = name.number, 1
        elif name.number > highest:
            # A step beyond the window empties it; it must not make a number of astronomical size first.
            seen = (seen << min(name.number - highest, NUMBERS) | 1) & _ALL
            highest = name.number
        else:
            seen |= 1 << highest - name.number
        self._rows[name.origin] = (name.incarnation, highest, seen)
        return payload

    def state(self) -> tuple[object, ...]:
        """For digests."""
        rows = [(origin, row[0], row[1], hex(row[2])) for origin, row in sorted(self._rows.items())]
        return (self.upto, sorted(self.refused), rows)
