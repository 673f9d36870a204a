"""Thousands of connections that do nothing, at a real replica: little memory each, and everyone else served."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

from bench.cluster import ClusterSpec, local_cluster
from bench.resp import RespConnection

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 60.0
CONNECTIONS: Final = 2_000
MOST_BYTES: Final = 64 * 1024
"""Of memory for one of them; it was 16 kB with 9 900."""


@pytest.fixture
def open_files() -> Iterator[None]:
    """So many files may be open here; a replica raises its limit by itself, from the one that it inherits."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] < CONNECTIONS + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (CONNECTIONS + 256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_idle_connections_cost_little_and_hold_up_nobody(tmp_path: Path, open_files: None) -> None:
    async with local_cluster(ClusterSpec(names=("CA", "VA", "IR"), directory=tmp_path)) as cluster:
        await cluster.wait_ready(within_s=WITHIN_S)
        with trio.fail_after(WITHIN_S):
            stream = await trio.open_tcp_stream("127.0.0.1", cluster.port("CA"))
            async with RespConnection(stream) as kv, AsyncExitStack() as stack:
                before = await information(kv)
                idle = [await trio.open_tcp_stream("127.0.0.1", cluster.port("CA")) for _ in range(CONNECTIONS)]
                for stream in idle:
                    stack.push_async_callback(stream.aclose)
                    await stream.send_all(b"SET k v\r\n")
                for stream in idle:
                    assert await stream.receive_some() == b"+OK\r\n"
                after = await information(kv)
                assert int(after["connected_clients"]) == CONNECTIONS + 1
                memory = int(after["used_memory_rss"]) - int(before["used_memory_rss"])
                assert memory < CONNECTIONS * MOST_BYTES
                assert await kv.call(b"SET", b"somebody", b"else") == b"OK"


async def information(kv: RespConnection) -> dict[str, str]:
    """What INFO says."""
    text = await kv.call(b"INFO")
    assert isinstance(text, bytes)
    return {name: value for name, _, value in (line.partition(":") for line in text.decode().split("\r\n"))}
