"""Ten thousand connections that do nothing, at a real replica: little memory each, and everyone else served."""

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
ALL_WITHIN_S = 300.0
CONNECTIONS: Final = 10_000
SPARE_FILES: Final = 256
MOST_BYTES: Final = 64 * 1024
"""Of memory for one of them; it was 16 kB with 9 900."""


@pytest.fixture
def connections() -> Iterator[int]:
    """How many there can be: fewer where the system allows fewer open files. Each process needs one for each of them; a
    replica raises its limit by itself, from the one that it inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard - SPARE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed + SPARE_FILES), hard))
    yield allowed
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_idle_connections_cost_little_and_hold_up_nobody(tmp_path: Path, connections: int) -> None:
    async with local_cluster(ClusterSpec(names=("CA", "VA", "IR"), directory=tmp_path)) as cluster:
        await cluster.wait_ready(within_s=WITHIN_S)
        with trio.fail_after(ALL_WITHIN_S):
            stream = await trio.open_tcp_stream("127.0.0.1", cluster.port("CA"))
            async with RespConnection(stream) as kv, AsyncExitStack() as stack:
                before = await information(kv)
                idle = [await trio.open_tcp_stream("127.0.0.1", cluster.port("CA")) for _ in range(connections)]
                for stream in idle:
                    stack.push_async_callback(stream.aclose)
                    await stream.send_all(b"SET k v\r\n")
                for stream in idle:
                    assert await stream.receive_some() == b"+OK\r\n"
                after = await information(kv)
                assert int(after["connected_clients"]) == connections + 1
                memory = int(after["used_memory_rss"]) - int(before["used_memory_rss"])
                assert memory < connections * MOST_BYTES
                assert await kv.call(b"SET", b"somebody", b"else") == b"OK"


async def information(kv: RespConnection) -> dict[str, str]:
    """What INFO says."""
    text = await kv.call(b"INFO")
    assert isinstance(text, bytes)
    return {name: value for name, _, value in (line.partition(":") for line in text.decode().split("\r\n"))}
