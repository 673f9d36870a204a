"""Stores: the conformance suite on both, then what each promises beyond it."""

from __future__ import annotations

import random
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import lmdb
import pytest
from hypothesis import given, strategies as st

from epaxos.errors import StorageError
from epaxos.storage.interface import Store, WriteGroup
from epaxos.storage.lmdb import LmdbStore
from epaxos.storage.memory import MemoryDisk
from epaxos.storage.records import END_OF_KEYS, frame, unframe
from epaxos.testing.conformance import STORE_CHECKS, Check, StoreBench, check_store, group


class MemoryBench(StoreBench):
    """Loses all but the first `keep` of the unsynced groups."""

    def __init__(self, keep: int = 0) -> None:
        self.disk = MemoryDisk()
        self.keep = keep

    def open(self) -> Store:
        self.disk = self.disk.crash()
        return self.disk

    def settle(self, store: Store) -> None:
        self.disk.sync()

    def cut_power(self, store: Store) -> None:
        self.disk = self.disk.crash(min(self.keep, len(self.disk.unsynced)))

    def break_disk(self, store: Store) -> None:
        self.disk.fail("no space left on the disk")

    def damage(self, key: bytes) -> None:
        self.disk = self.disk.crash()
        self.disk.damage(key)


class LmdbBench(StoreBench):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def open(self) -> LmdbStore:
        self.mend()
        return LmdbStore.open(self.path)

    def settle(self, store: Store) -> None:
        settle(cast(LmdbStore, store))

    def cut_power(self, store: Store) -> None:
        store.close()  # a process cannot lose what the kernel has; see the test that kills one

    def break_disk(self, store: Store) -> None:
        self.fill_disk(0)

    def fill_disk(self, room_bytes: int) -> None:
        """From now on no file can be written beyond its first `room_bytes`."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, self.limits[1]))

    def mend(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)

    def damage(self, key: bytes) -> None:
        with lmdb.open(str(self.path)) as env, env.begin(write=True) as transaction:
            framed = bytearray(transaction.get(key, b""))
            framed[-1] ^= 0x10
            transaction.put(key, bytes(framed))


def settle(store: LmdbStore) -> None:
    """Wait, as a loop would, until all is durable or the store has failed."""
    while store.backlog_bytes and store.failure is None:
        select.select([store], [], [])
        store.acknowledge()


def contents(store: Store) -> dict[bytes, bytes]:
    return dict(store.scan(b"", END_OF_KEYS))


# ------------------------------------------------------------------------------------------------------ both stores


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("keep", [0, 1, 4, 99])
def test_the_memory_disk_conforms(check: Check, keep: int) -> None:
    check(MemoryBench(keep))


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
def test_lmdb_conforms(check: Check, tmp_path: Path) -> None:
    bench = LmdbBench(tmp_path / "records")
    try:
        check(bench)
    finally:
        bench.mend()


def test_the_suite_passes_a_sound_store_as_a_whole() -> None:
    check_store(MemoryBench)


class Delegate(Store):
    """A sound disk behind a store of which the subclasses below break one promise each."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk

    def write(self, group: WriteGroup) -> None:
        self.disk.write(group)

    @property
    def durable(self) -> int:
        return self.disk.durable

    @property
    def failure(self) -> StorageError | None:
        return self.disk.failure

    def get(self, key: bytes) -> bytes | None:
        return self.disk.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self.disk.scan(first, last)

    def close(self) -> None:
        self.disk.close()


class TearsGroups(Delegate):
    def write(self, group: WriteGroup) -> None:
        for put in group.puts[:1]:
            super().write(WriteGroup((put,), (), group.mark * 2 - 1))
        super().write(WriteGroup(group.puts[1:], group.drops, group.mark * 2))

    @property
    def durable(self) -> int:
        return self.disk.durable // 2


class DropsFirst(Delegate):
    def write(self, group: WriteGroup) -> None:
        put = {key for key, _ in group.puts}
        super().write(WriteGroup(group.puts, tuple(key for key in group.drops if key not in put), group.mark))


class ForgetsDrops(Delegate):
    def write(self, group: WriteGroup) -> None:
        super().write(WriteGroup(group.puts, (), group.mark))


class AcknowledgesEarly(Delegate):
    newest = 0

    def write(self, group: WriteGroup) -> None:
        super().write(group)
        self.newest = group.mark

    @property
    def durable(self) -> int:
        return self.newest


class AcknowledgesNothing(Delegate):
    @property
    def durable(self) -> int:
        return 0


class ScansTooFar(Delegate):
    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self.disk.scan(first, last + b"\x00")


class ScansBackwards(Delegate):
    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        return reversed(list(self.disk.scan(first, last)))


class HidesDamage(Delegate):
    def get(self, key: bytes) -> bytes | None:
        try:
            return super().get(key)
        except StorageError:
            return b"2"


class TakesEmptyKeys(Delegate):
    def write(self, group: WriteGroup) -> None:
        super().write(WriteGroup(tuple(put for put in group.puts if put[0]), group.drops, group.mark))


class ClosesWithoutSync(Delegate):
    def close(self) -> None:
        self.disk.crash()


class ForgivesFailure(Delegate):
    def write(self, group: WriteGroup) -> None:
        if self.failure is None:
            super().write(group)


class ForgetsFailure(Delegate):
    closed = False

    @property
    def failure(self) -> StorageError | None:
        return None if self.closed else self.disk.failure

    def close(self) -> None:
        super().close()
        self.closed = True


class SabotagedBench(MemoryBench):
    def __init__(self, broken: type[Delegate]) -> None:
        super().__init__()
        self.broken = broken

    def open(self) -> Store:
        return self.broken(cast(MemoryDisk, super().open()))

    def cut_power(self, store: Store) -> None:
        self.keep = len(self.disk.unsynced) - 1
        super().cut_power(store)


@pytest.mark.parametrize("broken", Delegate.__subclasses__(), ids=lambda broken: broken.__name__)
def test_the_suite_finds_a_broken_promise(broken: type[Delegate]) -> None:
    with pytest.raises(AssertionError):
        check_store(lambda: SabotagedBench(broken))


@given(key=st.binary(min_size=1, max_size=20), value=st.binary(max_size=64), data=st.data())
def test_a_changed_bit_or_key_or_length_fails_the_checksum(key: bytes, value: bytes, data: st.DataObject) -> None:
    framed = frame(key, value)
    assert unframe(key, framed) == value
    bit = data.draw(st.integers(0, 8 * len(framed) - 1))
    flipped = bytearray(framed)
    flipped[bit // 8] ^= 1 << bit % 8
    for wrong_key, wrong in ((key, bytes(flipped)), (key + b"'", framed), (key, framed[:3]), (key, b"")):
        with pytest.raises(StorageError, match=r"fails its checksum.* leave it down"):
            unframe(wrong_key, wrong)


def test_the_stored_form_is_a_little_endian_crc_of_key_and_value_and_then_the_value() -> None:
    assert frame(b"1234", b"56789") == bytes.fromhex("2639f4cb") + b"56789"


# ----------------------------------------------------------------------------------------------- the disk in memory


@given(seed=st.integers(0, 1 << 32))
def test_a_crash_keeps_exactly_the_prefix_asked_for(seed: int) -> None:
    rng = random.Random(seed)
    disk = MemoryDisk()
    model: list[dict[bytes, bytes]] = [{}]
    for mark in range(1, 13):
        puts = [(b"%d" % rng.randrange(5), b"%d" % rng.randrange(100)) for _ in range(rng.randrange(4))]
        drops = [b"%d" % rng.randrange(5) for _ in range(rng.randrange(2))]
        disk.write(group(mark, puts, drops))
        after = model[-1] | dict(puts)
        model.append({key: value for key, value in after.items() if key not in drops})
    synced = disk.sync(upto=rng.randrange(13))
    assert contents(disk) == model[synced]
    assert disk.unsynced == tuple(range(synced + 1, 13))
    keep = rng.randrange(len(disk.unsynced) + 1)
    assert contents(disk.crash(keep)) == model[synced + keep]


def test_the_memory_disk_shows_and_reports_nothing_before_a_sync() -> None:
    disk = MemoryDisk()
    disk.write(group(4, [(b"k", b"v")]))
    disk.write(group(9, [(b"l", b"v")]))
    assert (disk.durable, disk.get(b"k"), contents(disk), disk.unsynced) == (0, None, {}, (4, 9))
    assert disk.sync(upto=8) == 4
    assert (disk.durable, contents(disk), disk.unsynced) == (4, {b"k": b"v"}, (9,))


def test_the_old_life_of_a_crashed_disk_cannot_write() -> None:
    disk = MemoryDisk()
    disk.write(group(1, [(b"k", b"v")]))
    next_life = disk.crash(keep=1)
    with pytest.raises(StorageError, match="closed"):
        disk.write(group(2, [(b"k", b"ghost")]))
    with pytest.raises(StorageError, match="closed"):
        disk.sync()
    assert (next_life.durable, next_life.failure, contents(next_life)) == (0, None, {b"k": b"v"})


@pytest.mark.parametrize("keep", [-1, 2])
def test_a_crash_cannot_keep_groups_that_are_not_there(keep: int) -> None:
    disk = MemoryDisk()
    disk.write(group(1))
    with pytest.raises(ValueError, match="cannot keep"):
        disk.crash(keep)


def test_copies_of_a_disk_go_their_own_ways() -> None:
    disk = MemoryDisk()
    disk.write(group(1, [(b"k", b"1")]))
    disk.sync()
    disk.write(group(2, [(b"k", b"2")]))
    twin = disk.copy()
    twin.sync()
    twin.write(group(3, [(b"l", b"3")], drops=[b"k"]))
    twin.sync()
    twin.fail("full")
    assert (disk.durable, disk.unsynced, disk.failure, contents(disk)) == (1, (2,), None, {b"k": b"1"})
    assert (twin.durable, twin.unsynced, contents(twin)) == (3, (), {b"l": b"3"})
    assert "full" in str(twin.failure)


# ------------------------------------------------------------------------------------------------------------- LMDB


def test_the_map_grows_to_its_maximum_and_then_the_store_fails(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records", first_map_bytes=1 << 16, map_bytes=1 << 20)
    assert 0 < store.used_bytes < 1 << 16
    acknowledged = 0
    for mark in range(1, 100):
        half_read = store.scan(b"", END_OF_KEYS)
        assert next(half_read, None) in (None, (b"0001", b"x" * 30_000))
        try:
            store.write(group(mark, [(b"%04d" % mark, b"x" * 30_000)]))
        except StorageError:
            break
        settle(store)
        assert acknowledged <= store.durable
        acknowledged = store.durable
    assert (1 << 20) - 60_000 < store.used_bytes <= store.max_bytes == 1 << 20
    assert store.failure is not None
    assert "raise limits.map_bytes" in str(store.failure)
    assert 20 < acknowledged < 40
    store.close()

    store = LmdbStore.open(tmp_path / "records")
    assert list(contents(store)) == [b"%04d" % mark for mark in range(1, acknowledged + 1)]
    assert store.used_bytes > (1 << 20) - 60_000
    store.close()


def test_a_group_larger_than_the_map_makes_it_grow_several_times(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records", first_map_bytes=1 << 16, map_bytes=1 << 24)
    store.write(group(1, [(b"large", b"x" * (1 << 22))]))
    settle(store)
    assert (store.failure, store.durable) == (None, 1)
    assert store.get(b"large") == b"x" * (1 << 22)
    assert 1 << 22 < store.used_bytes <= 1 << 24
    store.close()


@pytest.mark.parametrize("room_bytes", [0, 10_000], ids=["nothing more fits", "a write is cut short"])
def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, room_bytes: int) -> None:
    bench = LmdbBench(tmp_path / "records")
    store = bench.open()
    try:
        bench.fill_disk(room_bytes)
        store.write(group(1, [(b"k", b"x" * 50_000)]))
        settle(store)
    finally:
        bench.mend()
    assert "make room" in str(store.failure)
    assert "Nothing acknowledged is lost" in str(store.failure)
    assert (store.durable, store.counters.syncs) == (0, 0)
    store.close()

    store = bench.open()
    assert contents(store) == {}
    store.write(group(1, [(b"k", b"v")]))
    settle(store)
    assert (store.durable, store.get(b"k")) == (1, b"v")
    store.close()


def test_a_closed_store_cannot_be_waited_for(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records")
    store.close()
    for call in (store.fileno, store.acknowledge):
        with pytest.raises(StorageError, match="closed"):
            call()


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records", backlog_bytes_max=1000)
    with pytest.raises(StorageError, match="bytes wait for the disk and 1000 are allowed"):
        store.write(group(1, [(b"k", b"x" * 1000)]))
    assert store.failure is not None
    with pytest.raises(StorageError, match="1000 are allowed"):
        store.write(group(2))
    store.close()
    assert store.durable == 0


def test_the_counters_add_up(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records")
    store.write(group(1, [(b"a", b"123"), (b"b", b"4")]))
    settle(store)
    store.write(group(2, [(b"c", b"5")], drops=[b"a", b"b"]))
    settle(store)
    counters = store.counters
    assert (counters.syncs, counters.records, counters.stored_bytes) == (2, 5, 10)
    assert counters.max_sync_us > 0
    assert store.backlog_bytes == 0
    store.close()


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "data.mdb").write_bytes(random.Random(1).randbytes(1 << 14))
    for name in ("file", "garbage", "no/such/parent"):
        with pytest.raises(StorageError, match="cannot open the store"):
            LmdbStore.open(tmp_path / name)
    with pytest.raises(StorageError, match="The files are damaged, and this replica is lost"):
        LmdbStore.open(tmp_path / "garbage")


WRITER = """
import sys
from pathlib import Path
from epaxos.storage.lmdb import LmdbStore
from epaxos.testing.conformance import group
import select
store = LmdbStore.open(Path(sys.argv[1]))
mark = 0
while True:
    for _ in range(7):
        mark += 1
        puts = [(b"a/%06d" % mark, b"x" * 50), (b"z/%06d" % mark, b"x" * 5000), (b"newest", b"%d" % mark)]
        store.write(group(mark, puts))
    select.select([store], [], [])
    print(store.acknowledge(), flush=True)
"""


def test_a_killed_process_leaves_a_prefix_of_whole_groups_with_all_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "records"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split()[:-1])])

    store = LmdbStore.open(path)
    found = contents(store)
    newest = int(found.pop(b"newest"))
    assert newest >= acknowledged
    assert set(found) == {b"%s/%06d" % (side, mark) for side in (b"a", b"z") for mark in range(1, newest + 1)}
    store.close()
