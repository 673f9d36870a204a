"""The durability gate and the timers: what an effect waits for before it leaves the replica.

Saves gather into one write group a turn. A `Send` or `Decide` waits until the marks it depends on are durable; marks
only grow, so what is held leaves in order. The shell numbers nothing: groups are counted here and mapped back to the
protocol's own marks.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from epaxos.protocols.interface import NEWEST, Decide, Save, Send, Timer
from epaxos.storage.interface import WriteGroup

if TYPE_CHECKING:
    from epaxos.applier import Applier


class Gate:
    """Holds writes until the end of the turn, and effects until their marks are durable."""

    def __init__(self, lazy_us: int) -> None:
        self.wake_us: int | None = None
        """When records that nobody waits for are written at the latest."""
        self._lazy_us = lazy_us
        self._records: dict[bytes, bytes | None] = {}
        self._urgent = False
        self._mark = 0
        self._newest_urgent = 0
        self._written = 0
        self._durable = 0
        self._held: deque[tuple[int, Send | Decide]] = deque()
        self._free: list[Send | Decide] = []
        self._group = 0
        self._groups: deque[tuple[int, int, int]] = deque()
        """(group, newest mark in it, log cursor it makes durable)"""

    def save(self, effect: Save) -> None:
        """Gather records; the last put or drop of a key counts."""
        self._records.update(effect.puts)
        if effect.drops:
            self._records.update(dict.fromkeys(effect.drops))
        self._mark = effect.mark
        if effect.urgent:
            self._urgent = True
            self._newest_urgent = effect.mark

    def hold(self, effect: Send | Decide) -> None:
        """Let the effect leave when its mark is durable: at once, or in the order of marks."""
        after = self._newest_urgent if effect.after == NEWEST else effect.after
        if after <= self._durable:
            self._free.append(effect)
        else:
            self._urgent = self._urgent or after > self._written
            self._held.append((after, effect))

    def release(self) -> list[Send | Decide]:
        """What may leave now, in order."""
        held = self._held
        if not self._free and not (held and held[0][0] <= self._durable):
            return []
        free, self._free = self._free, []
        while held and held[0][0] <= self._durable:
            free.append(held.popleft()[1])
        return free

    def durable(self, group: int, applier: Applier) -> int | None:
        """The disk holds everything up to `group`. Returns the protocol's mark for it, if that moved."""
        mark = self._durable
        while self._groups and self._groups[0][0] <= group:
            _, mark, applier.delivered = self._groups.popleft()
        if mark == self._durable:
            return None
        self._durable = mark
        return mark

    def flush(self, now_us: int, applier: Applier) -> WriteGroup | None:
        """The group to write after this turn: now if something waits for it, else by the lazy timer."""
        applied = applier.record()
        if applied is not None:
            self._records[applied[0]] = applied[1]
        if not self._records:
            return None
        if not self._urgent:
            if self.wake_us is None:
                self.wake_us = now_us + self._lazy_us
            if now_us < self.wake_us:
                return None
        records, self._records = self._records, {}
        self._urgent = False
        self._written = self._mark
        self.wake_us = None
        self._group += 1
        self._groups.append((self._group, self._mark, applier.cursor))
        puts = tuple((key, value) for key, value in records.items() if value is not None)
        drops = tuple(key for key, value in records.items() if value is None)
        return WriteGroup(puts=puts, drops=drops, mark=self._group)


class Timers:
    """Named timers, due in the order of their times and then of their setting."""

    def __init__(self) -> None:
        self._at: dict[Timer, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = 0

    def set(self, timer: Timer, at_us: int) -> None:
        """Set or move a timer."""
        self._sequence += 1
        self._at[timer] = (at_us, self._sequence)
        heapq.heappush(self._heap, (at_us, self._sequence, timer))

    def clear(self, timer: Timer) -> None:
        """Forget a timer, if it is set."""
        self._at.pop(timer, None)

    def due(self, now_us: int) -> Iterator[Timer]:
        """Take the timers that are due now; one set meanwhile waits for the next turn unless it is due as well."""
        while self._heap and self._heap[0][0] <= now_us:
            at_us, sequence, timer = heapq.heappop(self._heap)
            if self._at.get(timer) == (at_us, sequence):
                del self._at[timer]
                yield timer

    def waiting(self) -> list[tuple[int, Timer]]:
        """(when it is due, name) of every timer that is set, the next one first."""
        return [(at_us, timer) for timer, (at_us, _) in sorted(self._at.items(), key=lambda item: item[1])]

    def next_us(self) -> int | None:
        """When the next timer is due."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
