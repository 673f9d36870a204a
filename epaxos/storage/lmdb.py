"""The store on a real disk: LMDB, and one thread that commits.

    owner's thread:  write -> queue;  get, scan -> a read transaction
    committer:       all that is queued -> one transaction -> synced -> `durable` -> wake the owner

While the committer waits for the disk the next groups gather, so the slower the disk the larger the commit: group
commit without a timer. Every commit is durable when it is reported, since LMDB syncs the data and then the page that
names it; the options that trade this away (`sync`, `metasync`, `writemap`) are not offered.

**Failure is for good.** After a failed write nobody can tell what the kernel still holds of it, so the store stops
at the first error: `durable` stands, `failure` says why, the owner is woken. What was reported durable stays so.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import lmdb
import trio

from epaxos.errors import StorageError
from epaxos.identity import LOST
from epaxos.storage.directory import sync_directory
from epaxos.storage.interface import LiveStore, SyncCounters, WriteGroup
from epaxos.storage.records import check_group, check_key, frame, unframe

MAP_BYTES: Final = 1 << 36
"""How far the memory map may grow, and so the most that the store can hold. Too small: the store fails with room left
on the disk. Too large: the disk is filled, whoever else wants some of it."""

FIRST_MAP_BYTES: Final = 1 << 30
"""The map to begin with; a full one is doubled. Too small: a short pause each time. Too large: no start where address
space is limited (`ulimit -v`)."""

BACKLOG_BYTES_MAX: Final = 1 << 28
"""What may wait for the committer. Too small: a pause of the disk stops the replica. Too large: memory runs out."""

COMMIT_BYTES_MAX: Final = 1 << 25
"""One transaction takes no further group beyond this. Too small: more syncs under load. Too large: a backlog that
gathered behind a slow sync is reported durable all at once and late, and LMDB spills pages of the transaction."""

GROUP_BYTES: Final = 256
"""What a waiting group is reckoned to cost beyond its keys and values, so that the bounds hold for empty ones too."""

SCAN_RECORDS: Final = 1024
SCAN_BYTES: Final = 1 << 20
"""One read transaction of a scan gives this much, and then a record more."""


class _Queued(NamedTuple):
    framed: list[tuple[bytes, bytes]]
    drops: tuple[bytes, ...]
    mark: int
    size_bytes: int


class LmdbStore(LiveStore):
    """A store in the LMDB environment of one directory. Made by `open`.

    The owner's loop is:

        mark = await store.moved()            # then look at store.failure

    `fileno` and `acknowledge`, of which that is made, are for owners with a loop of another kind.

    **Backpressure.** `write` takes what it is given, and `backlog_bytes` says how much is not durable yet: the owner
    stops reading from clients and peers long before `backlog_bytes_max`. At that bound the store fails, for a group
    that was refused would be a hole in what the owner believes to be saved.
    """

    def __init__(self, env: lmdb.Environment, *, map_bytes: int, backlog_bytes_max: int) -> None:
        self._env = env
        self._path = env.path()
        self._map_bytes = map_bytes
        self._mapped_bytes = env.info()["map_size"]
        self._backlog_bytes_max = backlog_bytes_max
        # Held by whoever reads, and while the map is replaced: LMDB wants no transaction open then.
        self._mapping = threading.Lock()
        # Written by the owner, read by the committer. None asks it to end.
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._newest = 0
        self._accepted_bytes = 0
        self._closed = False
        # Written by the committer, read by the owner. The lock makes "failed" and "durable moved" exclude each other.
        self._outcome = threading.Lock()
        self._durable = 0
        self._failure: StorageError | None = None
        self._committed_bytes = 0
        self._used_bytes = self._reach()
        self._counters = SyncCounters()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # A daemon, so that a program that dies without `close` does end: nobody was told of what is lost with it.
        self._committer = threading.Thread(target=self._run, name=f"committer {self._path}", daemon=True)
        self._committer.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_bytes: int = MAP_BYTES,
        first_map_bytes: int = FIRST_MAP_BYTES,
        backlog_bytes_max: int = BACKLOG_BYTES_MAX,
        readonly: bool = False,
    ) -> Self:
        """Open the store in directory `path`, creating it if needed; `map_bytes` is the most it may hold.

        With `readonly` nothing is created or changed, and nobody else may have it open. Raises StorageError when the
        directory cannot be used.
        """
        map_bytes = _whole_pages(map_bytes)
        try:
            # At most one reader at a time, so one spare read transaction is all that is ever needed.
            env = lmdb.open(
                os.fspath(path),
                map_size=min(_whole_pages(first_map_bytes), map_bytes),
                max_spare_txns=1,
                readonly=readonly,
                create=not readonly,
                lock=not readonly,
            )
            if not readonly:
                # What a killed process had written and not yet synced can be read, and is not durable before this.
                env.sync(True)
                sync_directory(path)
                sync_directory(path.parent)
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"{path}: cannot open the store: {error}. {_advice(error)}") from error
        return cls(env, map_bytes=map_bytes, backlog_bytes_max=backlog_bytes_max)

    # -- the store

    def write(self, group: WriteGroup) -> None:
        """As `Store.write`. Raises ValueError when the mark does not grow or a key is out of bounds."""
        self._check_open()
        if self._failure is not None:
            raise StorageError(str(self._failure)) from self._failure
        size_bytes = check_group(group, self._newest) + GROUP_BYTES
        if self.backlog_bytes + size_bytes > self._backlog_bytes_max:
            failure = StorageError(
                f"{self._path}: {self.backlog_bytes} bytes wait for the disk and {self._backlog_bytes_max} are "
                "allowed: the disk hangs, or it is too slow for what is asked of it. See what holds it up, then "
                "start the replica again; nothing acknowledged is lost"
            )
            self._stop(failure)
            raise failure
        self._newest = group.mark
        self._accepted_bytes += size_bytes
        # Framed here rather than by the committer, which holds up every reply each time it has to wait for the
        # interpreter, and would have to after every checksum: `crc32` lets go of it.
        framed = [(key, frame(key, value)) for key, value in group.puts]
        self._queue.put(_Queued(framed, group.drops, group.mark, size_bytes))

    @property
    def durable(self) -> int:
        return self._durable

    @property
    def failure(self) -> StorageError | None:
        return self._failure

    def get(self, key: bytes) -> bytes | None:
        check_key(key)
        self._check_open()
        try:
            with self._mapping, self._env.begin(buffers=True) as transaction:
                framed = transaction.get(key)
                return None if framed is None else unframe(key, framed)
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As `Store.scan`. Not one snapshot: a long scan sees what is committed meanwhile, as far as it lies ahead.

        (A snapshot held open by a slow reader would keep LMDB from using any page again, and the map from growing.)
        """
        self._check_open()
        return ((key, unframe(key, framed)) for key, framed in self.framed(first, last))

    def framed(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As `scan`, with the values as they are stored: for tools that go on behind a damaged one."""
        more = True
        while more:
            records, more = self._read(first, last)
            yield from records
            if more:
                first = records[-1][0] + b"\0"

    def close(self) -> None:
        """As `Store.close`; takes as long as the disk does. Nobody may wait on `fileno` any more.

        When what was queued could not be written, `failure` says so afterwards.
        """
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._committer.join()
        self._env.close()
        os.close(self._wake_fd)

    # -- for the shell

    async def moved(self) -> int:
        """As `LiveStore.moved`."""
        await trio.lowlevel.wait_readable(self.fileno())
        return self.acknowledge()

    def fileno(self) -> int:
        """Readable when `durable` has moved, or `failure` was set, since the last `acknowledge`."""
        self._check_open()
        return self._wake_fd

    def acknowledge(self) -> int:
        """Take note of the wake-up; returns `durable`. What comes later makes `fileno` readable again."""
        self._check_open()
        with contextlib.suppress(BlockingIOError):  # nothing new
            os.eventfd_read(self._wake_fd)
        return self._durable

    @property
    def backlog_bytes(self) -> int:
        return self._accepted_bytes - self._committed_bytes

    @property
    def backlog_bytes_max(self) -> int:
        return self._backlog_bytes_max

    @property
    def used_bytes(self) -> int:
        """How far the records reach in the map, pages that became free among them: those are used again."""
        return self._used_bytes

    @property
    def max_bytes(self) -> int:
        return self._map_bytes

    @property
    def counters(self) -> SyncCounters:
        return self._counters

    # -- reading

    def _read(self, first: bytes, last: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The next records of a scan, as they are stored, in one read transaction; and whether to ask again."""
        self._check_open()
        records: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        try:
            with self._mapping, self._env.begin() as transaction, transaction.cursor() as cursor:
                if not cursor.set_range(first):
                    return records, False
                for key, framed in cursor:
                    if key >= last:
                        return records, False
                    records.append((key, framed))
                    size_bytes += len(framed)
                    if len(records) > SCAN_RECORDS or size_bytes > SCAN_BYTES:
                        return records, True
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        return records, False

    def _unreadable(self, error: lmdb.Error) -> StorageError:
        return StorageError(f"{self._path}: cannot read: {error}. {_advice(error)}")

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the store is closed")

    # -- the committer's thread

    def _run(self) -> None:
        try:
            while self._failure is None and (queued := self._gather()):
                self._commit(queued)
        except (lmdb.Error, OSError) as error:
            self._stop(
                StorageError(f"{self._path}: cannot write: {error}. {_advice(error)}. Nothing acknowledged is lost")
            )
        except BaseException as error:
            self._stop(StorageError(f"{self._path}: the committer died of {error!r}; this is a bug, report it"))
            raise

    def _gather(self) -> list[_Queued]:
        """Wait for a group, and take what has gathered behind it. Empty: the store is being closed."""
        gathered: list[_Queued] = []
        size_bytes = 0
        next_one = self._queue.get()
        while next_one is not None:
            gathered.append(next_one)
            size_bytes += next_one.size_bytes
            if size_bytes >= COMMIT_BYTES_MAX or self._queue.empty():
                return gathered
            next_one = self._queue.get()
        if gathered:
            self._queue.put(None)  # for the next call; nothing can have been queued behind it
        return gathered

    def _commit(self, queued: list[_Queued]) -> None:
        """Make the groups durable, then say so."""
        started_ns = time.monotonic_ns()
        # Only the last word on a key reaches LMDB. Groups stay whole: all of them are in the one transaction.
        latest: dict[bytes, bytes | None] = {}
        for group in queued:
            latest.update(group.framed)
            latest.update(dict.fromkeys(group.drops))
        puts = [(key, framed) for key, framed in latest.items() if framed is not None]
        drops = [key for key, framed in latest.items() if framed is None]
        while not self._transact(puts, drops):
            self._grow()
        took_us = (time.monotonic_ns() - started_ns) // 1000
        took_bytes = sum(group.size_bytes for group in queued)
        before = self._counters
        with self._outcome:
            if self._failure is not None:
                return
            self._durable = queued[-1].mark
            self._committed_bytes += took_bytes
            self._used_bytes = self._reach()
            self._counters = SyncCounters(
                syncs=before.syncs + 1,
                records=before.records + len(latest),
                stored_bytes=before.stored_bytes + took_bytes - GROUP_BYTES * len(queued),
                max_sync_us=max(before.max_sync_us, took_us),
            )
        os.eventfd_write(self._wake_fd, 1)

    def _transact(self, puts: list[tuple[bytes, bytes]], drops: list[bytes]) -> bool:
        """One durable transaction. False when the map is full and may grow: then nothing was written."""
        try:
            with self._env.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(puts)
                for key in drops:
                    transaction.delete(key)
        except lmdb.MapFullError:
            if self._mapped_bytes >= self._map_bytes:
                raise
            return False
        return True

    def _grow(self) -> None:
        """Double the map. No transaction of this process is open: `_mapping` keeps the owner's away."""
        self._env.reader_check()  # a tool that died while it looked may be all that keeps pages from being used again
        grown_bytes = min(2 * self._mapped_bytes, self._map_bytes)
        with self._mapping:
            self._env.set_mapsize(grown_bytes)
        self._mapped_bytes = grown_bytes

    def _reach(self) -> int:
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    # -- either thread

    def _stop(self, failure: StorageError) -> None:
        """Fail, unless failed already, and wake the owner."""
        with self._outcome:
            if self._failure is None:
                self._failure = failure
        os.eventfd_write(self._wake_fd, 1)


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _advice(error: lmdb.Error | OSError) -> str:
    """What to do about it."""
    if isinstance(error, lmdb.MapFullError):
        return "The records have reached the largest size allowed: raise limits.map_bytes, then start again"
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError | lmdb.PanicError):
        return f"The files are damaged, and {LOST}"
    code = error.errno if isinstance(error, OSError) else error.code
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "The disk, the quota or the file size limit is exhausted: make room, then start again"
    if code == errno.EIO:
        # LMDB says this of a write that was cut short, too, and that is how most disks fill up.
        return f"If the disk is full, make room, then start again; if the kernel's log says that it is failing, {LOST}"
    return "Check the path, the permissions and what the kernel's log says of the disk, then start again"
