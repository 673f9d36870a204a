"""The committer and the loop: the store wakes trio, and gathers while it waits for the disk."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from epaxos.errors import StorageError
from epaxos.storage.lmdb import LmdbStore
from epaxos.testing.conformance import group

pytestmark = pytest.mark.trio

HOLDER = """
import sys
import lmdb
with lmdb.open(sys.argv[1]) as env, env.begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def stuck_disk(path: Path) -> Iterator[None]:
    """As long as this lasts no transaction of another process can begin: as if its sync did not come back."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield


async def durable(store: LmdbStore, mark: int) -> None:
    """The owner's loop, until `mark` is durable."""
    while store.acknowledge() < mark and store.failure is None:
        await trio.lowlevel.wait_readable(store)


async def test_a_durable_group_wakes_the_loop(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records")
    with trio.fail_after(30):
        for mark in range(1, 6):
            store.write(group(mark, [(b"k", b"%d" % mark)]))
            await trio.lowlevel.wait_readable(store)
            assert store.acknowledge() == mark
            assert store.get(b"k") == b"%d" % mark
    store.close()


async def test_the_loop_runs_and_the_next_group_gathers_while_the_disk_is_stuck(tmp_path: Path) -> None:
    path = tmp_path / "records"
    store = LmdbStore.open(path)
    with trio.fail_after(30):
        with stuck_disk(path):
            for mark in range(1, 201):
                store.write(group(mark, [(b"%04d" % mark, b"x" * 100)]))
            assert store.acknowledge() == 0
            assert store.backlog_bytes > 200 * 100
            assert store.get(b"0001") is None
        await durable(store, 200)
    assert store.backlog_bytes == 0
    assert store.counters.records == 200
    # One for what the committer had taken when the disk got stuck, one for all that gathered since.
    assert store.counters.syncs <= 2
    store.close()


async def test_what_is_large_is_committed_in_several_transactions(tmp_path: Path) -> None:
    path = tmp_path / "records"
    store = LmdbStore.open(path)
    with trio.fail_after(30):
        with stuck_disk(path):
            for mark in range(1, 6):
                store.write(group(mark, [(b"%04d" % mark, bytes(20 << 20))]))
        await durable(store, 5)
    assert store.counters.syncs >= 3
    assert len(list(store.scan(b"0", b"1"))) == 5
    store.close()


async def test_closing_waits_for_a_stuck_disk_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records"
    store = LmdbStore.open(path)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            with stuck_disk(path):
                store.write(group(1, [(b"k", b"v")]))
                nursery.start_soon(trio.to_thread.run_sync, store.close)
                await trio.testing.wait_all_tasks_blocked()
    assert store.durable == 1
    store = LmdbStore.open(path)
    assert store.get(b"k") == b"v"
    store.close()


async def test_a_failure_wakes_the_loop(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "records")
    store.write(group(1, [(b"k", b"v")]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with trio.fail_after(30):
        await durable(store, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            store.write(group(2, [(b"k", b"lost")]))
            await trio.lowlevel.wait_readable(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.acknowledge() == 1
    assert isinstance(store.failure, StorageError)
    assert store.get(b"k") == b"v"
    store.close()
