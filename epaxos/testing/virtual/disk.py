"""A data directory in memory and virtual time: its syncs take as long as they are told, hang, or find it full.

Unlike the simulator's disk, on which this rests, it has a driver: whoever waits in `moved` is the committer. What
gathers while one sync is under way is in the next one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from epaxos.errors import StorageError
from epaxos.identity import DISK_ID_BYTES, Acquaintance, Owner
from epaxos.net.signal import Signal, now_us
from epaxos.storage.interface import LiveStore, Mounted, SyncCounters, WriteGroup
from epaxos.storage.memory import MemoryDisk

BACKLOG_BYTES_MAX: Final = 1 << 28

_IDS: Final = itertools.count(1)


class VirtualDisk:
    """A `Volume` that lives as long as this object, through any number of starts."""

    def __init__(self, *, sync_us: int = 0, backlog_bytes_max: int = BACKLOG_BYTES_MAX) -> None:
        self.sync_us = sync_us
        """How long a sync takes."""
        self.backlog_bytes_max = backlog_bytes_max
        self.id = f"{next(_IDS):0{2 * DISK_ID_BYTES}x}"
        self.incarnation = 0
        self.stuck = False
        """No sync comes back."""
        self.room_bytes: int | None = None
        """What may still be written; None: anything."""
        self._owner: Owner | None = None
        self._met: dict[str, Acquaintance] = {}
        self._released = trio.lowlevel.ParkingLot()
        self._disk = MemoryDisk()
        self._open: VirtualStore | None = None

    @contextmanager
    def open(self, owner: Owner, *, map_bytes: int) -> Iterator[Mounted]:
        """As `Volume.open`. When the block ends, what waits is synced, unless the disk is stuck or has failed: then it
        is lost, as if the process had been killed."""
        if self._open is not None:
            raise StorageError(f"the disk of {owner.replica} is in use")
        self._owner = self._owner or owner
        objection = self._owner.objection(owner)
        if objection:
            raise StorageError(f"the disk of {owner.replica}: {objection}")
        self.incarnation += 1
        self._open = store = VirtualStore(self, self._disk, map_bytes)
        try:
            yield Mounted(store, self.id, self.incarnation, self)
        finally:
            store.close()
            self._disk = self._disk.crash()
            self._open = None

    def known(self, peer: str) -> Acquaintance | None:
        """As `Acquaintances.known`."""
        return self._met.get(peer)

    async def remember(self, peer: str, met: Acquaintance) -> None:
        """As `Acquaintances.remember`."""
        await self.sync()
        self.take(len(peer) + len(met.disk))
        self._met[peer] = met

    def stick(self) -> None:
        """From now on no sync comes back."""
        self.stuck = True

    def release(self) -> None:
        """Syncs come back, those that hung as well."""
        self.stuck = False
        self._released.unpark_all()

    # -- for the store

    async def sync(self) -> None:
        """Return when a sync that begins now comes back."""
        await trio.sleep(self.sync_us / 1e6)
        while self.stuck:
            await self._released.park()

    def take(self, size_bytes: int) -> None:
        """Take up room. Raises StorageError when there is not as much."""
        if self.room_bytes is not None:
            if size_bytes > self.room_bytes:
                raise StorageError("No space left on device")
            self.room_bytes -= size_bytes


class VirtualStore(LiveStore):
    """The store of one life of a replica."""

    def __init__(self, volume: VirtualDisk, disk: MemoryDisk, max_bytes: int) -> None:
        self._volume = volume
        self._disk = disk
        self._max_bytes = max_bytes
        self._closed = False
        self._told = False
        self._written = Signal()
        self._waiting: deque[tuple[int, int, int]] = deque()
        """(mark, records, bytes) of the groups that are not durable."""
        self._backlog_bytes = 0
        self._counters = SyncCounters()

    # -- the store

    def write(self, group: WriteGroup) -> None:
        """As `Store.write`."""
        size_bytes = sum(len(key) + len(value) for key, value in group.puts) + sum(map(len, group.drops))
        if self._disk.failure is None and self._backlog_bytes + size_bytes > self.backlog_bytes_max:
            self._fail(f"{self._backlog_bytes} bytes wait for the disk and {self.backlog_bytes_max} are allowed")
        self._disk.write(group)
        self._waiting.append((group.mark, len(group.puts) + len(group.drops), size_bytes))
        self._backlog_bytes += size_bytes
        self._written.set()

    @property
    def durable(self) -> int:
        """As `Store.durable`."""
        return self._disk.durable

    @property
    def failure(self) -> StorageError | None:
        """As `Store.failure`."""
        return self._disk.failure

    def get(self, key: bytes) -> bytes | None:
        """As `Store.get`."""
        return self._disk.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As `Store.scan`."""
        return self._disk.scan(first, last)

    def close(self) -> None:
        """As `Store.close`; see `VirtualDisk.open`."""
        if not self._closed and not self._volume.stuck and self.failure is None:
            self._sync(None)
        self._closed = True

    # -- for the shell

    @property
    def backlog_bytes(self) -> int:
        """As `LiveStore.backlog_bytes`."""
        return self._backlog_bytes

    @property
    def backlog_bytes_max(self) -> int:
        """As `LiveStore.backlog_bytes_max`."""
        return self._volume.backlog_bytes_max

    @property
    def used_bytes(self) -> int:
        """As `LiveStore.used_bytes`."""
        return self._disk.used_bytes

    @property
    def max_bytes(self) -> int:
        """As `LiveStore.max_bytes`; here it is `VirtualDisk.room_bytes` that ends."""
        return self._max_bytes

    @property
    def counters(self) -> SyncCounters:
        """As `LiveStore.counters`."""
        return self._counters

    async def moved(self) -> int:
        """As `LiveStore.moved`: one sync, when there is something to sync."""
        if self._disk.failure is not None and self._told:
            await trio.sleep_forever()
        while not self._waiting and self._disk.failure is None:
            await self._written.wait()
        began_us = now_us()
        upto = self._waiting[-1][0] if self._waiting else 0
        await self._volume.sync()
        if self._disk.failure is None:
            self._sync(upto)
        took_us = now_us() - began_us
        self._counters = self._counters._replace(max_sync_us=max(self._counters.max_sync_us, took_us))
        self._told = self._disk.failure is not None
        return self.durable

    # -- inside

    def _sync(self, upto: int | None) -> None:
        """Make groups durable, as far as there is room."""
        while self._waiting and (upto is None or self._waiting[0][0] <= upto):
            mark, records, size_bytes = self._waiting[0]
            try:
                self._volume.take(size_bytes)
            except StorageError as error:
                self._fail(f"cannot write: {error}. Nothing acknowledged is lost")
                return
            self._waiting.popleft()
            self._backlog_bytes -= size_bytes
            self._disk.sync(mark)
            before = self._counters
            self._counters = before._replace(
                records=before.records + records,
                stored_bytes=before.stored_bytes + size_bytes,
            )
        self._counters = self._counters._replace(syncs=self._counters.syncs + 1)

    def _fail(self, why: str) -> None:
        self._disk.fail(why)
        self._written.set()
