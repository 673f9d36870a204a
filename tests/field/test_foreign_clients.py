"""The clients for asyncio and for programs without an event loop, against a real replica."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import epaxos
from bench.cluster import ClusterSpec, local_cluster

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 60.0


async def test_asyncio_and_plain_programs_have_the_same_client(tmp_path: Path) -> None:
    spec = ClusterSpec(names=("CA", "VA", "IR"), directory=tmp_path)
    with trio.fail_after(WITHIN_S):
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=WITHIN_S)
            for program in (plain, in_asyncio):
                await trio.to_thread.run_sync(program, tmp_path / "cluster.toml")
    assert not [thread for thread in threading.enumerate() if thread.name == "epaxos-client"]


def plain(config: Path) -> None:
    with epaxos.SyncClient(config, near="VA") as kv:
        kv.ping()
        assert kv.set("k", "1") and kv.get("k") == b"1"
        assert kv.mget("k", "none") == [b"1", None]
        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(lambda _: kv.incr("plain"), range(20))) == list(range(1, 21))
        with pytest.raises(epaxos.ResponseError, match="unknown command"):
            kv.execute("NOPE")
        with pytest.raises(TypeError):
            kv.execute("SET", "k", 1.5)  # type: ignore[arg-type]  # what people do
    with pytest.raises(epaxos.Rejected, match="outside"):
        kv.get("k")
    with epaxos.SyncClient(config, near="VA", fifo=True) as kv:
        assert kv.set("k", "1") and kv.get("k") == b"1"


def in_asyncio(config: Path) -> None:
    asyncio.run(_in_asyncio(config))


async def _in_asyncio(config: Path) -> None:
    async with epaxos.AsyncioClient(config, near="IR") as kv:
        assert await kv.set("k", "2") and await kv.get("k") == b"2"
        assert sorted(await asyncio.gather(*(kv.incr("asyncio") for _ in range(20)))) == list(range(1, 21))
        with pytest.raises(epaxos.ResponseError, match="not an integer"):
            await kv.set("text", "x")
            await kv.incr("text")
    async with epaxos.AsyncioClient(config, near="IR", fifo=True) as kv:
        await asyncio.gather(*(kv.execute("RPUSH", "list", at) for at in range(20)))
        assert await kv.execute("LRANGE", "list", 0, -1) == [b"%d" % at for at in range(20)]


async def test_a_plain_program_learns_that_nobody_answers(tmp_path: Path) -> None:
    """One replica of three is up: nothing can be decided, and nothing is known."""
    spec = ClusterSpec(names=("CA", "VA", "IR"), directory=tmp_path)
    with trio.fail_after(WITHIN_S):
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=WITHIN_S)
            await cluster.kill("VA")
            await cluster.kill("IR")
            await trio.to_thread.run_sync(_impatient, tmp_path / "cluster.toml")
            await cluster.launch("VA")
            await cluster.launch("IR")
            await cluster.wait_ready(within_s=WITHIN_S)


def _impatient(config: Path) -> None:
    with (
        epaxos.SyncClient(config, near="CA", timeout_s=0.3, retry_ms=0) as kv,
        pytest.raises(epaxos.Unknown, match="no reply within"),
    ):
        kv.set("k", "3")


async def test_a_client_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(epaxos.ConfigError):
        epaxos.SyncClient(tmp_path / "nowhere.toml")
