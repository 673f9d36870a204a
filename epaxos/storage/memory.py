"""A disk in memory that forgets what was not synced: the simulator's, and the tests'.

It is as unkind as the contract of `interface.py` allows. Nothing becomes durable before `sync` says so, reads show
durable records only, and a power cut keeps any prefix of the groups that were waiting, chosen by the caller. It draws
no randomness and knows no time, so a seed that chooses `sync`s and `crash`es replays.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from epaxos.errors import StorageError
from epaxos.storage.interface import Store, WriteGroup
from epaxos.storage.records import check_group, check_key, frame, unframe


class MemoryDisk(Store):
    """An empty disk. `crash` gives the disk of the next life; `copy` one that goes its own way from here."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        """The keys of `_records`, in order."""
        self._waiting: deque[WriteGroup] = deque()
        self._newest = 0
        self._durable = 0
        self._failure: StorageError | None = None
        self._closed = False

    # -- the store

    def write(self, group: WriteGroup) -> None:
        self._check_open()
        if self._failure is not None:
            raise StorageError(str(self._failure)) from self._failure
        check_group(group, self._newest)
        self._newest = group.mark
        self._waiting.append(group)

    @property
    def durable(self) -> int:
        return self._durable

    @property
    def failure(self) -> StorageError | None:
        return self._failure

    def get(self, key: bytes) -> bytes | None:
        check_key(key)
        self._check_open()
        framed = self._records.get(key)
        return None if framed is None else unframe(key, framed)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As `Store.scan`; a snapshot of the moment of the call."""
        self._check_open()
        found = self._keys[bisect_left(self._keys, first) : bisect_left(self._keys, last)]
        framed = [(key, self._records[key]) for key in found]
        return ((key, unframe(key, value)) for key, value in framed)

    def close(self) -> None:
        """As `Store.close`. What was made durable lives on in `crash(0)`, which is how this disk is opened again."""
        if not self._closed:
            self.sync()
            self._closed = True

    # -- what the world does to it

    @property
    def used_bytes(self) -> int:
        """What the durable records take: keys and framed values."""
        return sum(len(key) + len(framed) for key, framed in self._records.items())

    @property
    def unsynced(self) -> tuple[int, ...]:
        """The marks of the groups that a power cut could take, oldest first."""
        return tuple(group.mark for group in self._waiting)

    def sync(self, upto: int | None = None) -> int:
        """Make the groups up to and including mark `upto` durable, or all of them; returns `durable`.

        Does nothing once the disk has failed. Raises StorageError when it is closed.
        """
        self._check_open()
        while self._failure is None and self._waiting and (upto is None or self._waiting[0].mark <= upto):
            self._durable = self._store(self._waiting.popleft())
        return self._durable

    def crash(self, keep: int = 0) -> MemoryDisk:
        """Cut the power: the first `keep` unsynced groups had reached the disk, the others never will.

        Returns the disk as the next life finds it, sound again even if this one had failed. This one is closed
        without a sync, so that a part of the old life that still writes is found out. Raises ValueError when there
        are not that many unsynced groups.
        """
        if not 0 <= keep <= len(self._waiting):
            raise ValueError(f"cannot keep {keep} of {len(self._waiting)} unsynced groups")
        for _ in range(keep):
            self._store(self._waiting.popleft())
        next_life = MemoryDisk()
        next_life._records, next_life._keys = self._records, self._keys
        self._records, self._keys = {}, []
        self._waiting.clear()
        self._closed = True
        return next_life

    def copy(self) -> MemoryDisk:
        """The same disk in the same state; neither sees what happens to the other from here. Values are shared."""
        twin = MemoryDisk()
        twin._records, twin._keys, twin._waiting = self._records.copy(), self._keys.copy(), self._waiting.copy()
        twin._newest, twin._durable = self._newest, self._durable
        twin._failure, twin._closed = self._failure, self._closed
        return twin

    def fail(self, why: str) -> None:
        """From now on nothing can be written, for this reason: a full disk, a broken one."""
        if self._failure is None:
            self._failure = StorageError(why)

    def damage(self, key: bytes) -> None:
        """Flip one bit of the durable record of `key`. Raises KeyError when there is none."""
        framed = bytearray(self._records[key])
        framed[-1] ^= 1
        self._records[key] = bytes(framed)

    # -- inside

    def _store(self, group: WriteGroup) -> int:
        for key, value in group.puts:
            if key not in self._records:
                insort(self._keys, key)
            self._records[key] = frame(key, value)
        for key in group.drops:
            if self._records.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        return group.mark

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the store is closed")
