"""The window of a busy key (protocol.md 4.4): how many own batches may be on their way in its line at a time.

A command whose key has unexecuted predecessors (it is *entangled*) depends on them, and they may come to depend on it.
While such commands come faster than they execute, they form one ever longer cycle, of which nothing executes before
the last is decided; and there is no last. So a replica proposes an entangled command only while fewer than `size` of
its own batches of entangled commands on the same key are unexecuted here. The cycle ends, and what waits meanwhile
travels together in the next batch, so that the key loses no throughput.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from epaxos.packing import walk

Keys = frozenset[int]
"""The hashes of the keys of a batch. Commands on the whole state have one of their own."""

NO_KEYS: Final[Keys] = frozenset()


def keys_of(run: bytes) -> Keys:
    """What a run touches."""
    return frozenset(entry[0] for entry in walk(run))


class BusyKeys:
    """For every key, the own batches of entangled commands on it that are unexecuted here."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._batches: Counter[int] = Counter()
        self._full: set[int] = set()

    def has_room(self, run: bytes) -> bool:
        """May a batch with these commands be proposed now?"""
        return not self._full or self._full.isdisjoint(entry[0] for entry in walk(run))

    def enter(self, keys: Keys) -> None:
        """A batch of entangled commands on these keys is proposed."""
        for key in keys:
            self._batches[key] += 1
            if self._batches[key] >= self._size:
                self._full.add(key)

    def leave(self, keys: Keys) -> bool:
        """It was executed. Is there room now for something that had none?"""
        freed = not self._full.isdisjoint(keys)
        self._full -= keys
        for key in keys:
            left = self._batches[key] - 1
            if left:
                self._batches[key] = left
            else:
                del self._batches[key]
        return freed
