"""One counter at five sites, incremented by clients that watch it: no increment is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import trio

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.resp import RespConnection

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 120.0
NAMES: Final = ("CA", "VA", "IR", "OR", "JP")
EACH: Final = 10


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Five running replicas."""
    async with local_cluster(ClusterSpec(names=NAMES, directory=tmp_path)) as running:
        await running.wait_ready(within_s=WITHIN_S)
        yield running


async def increment(kv: RespConnection) -> bool:
    """Read the counter and write one more, unless somebody else comes in between; was it done?"""
    await kv.call("WATCH", "counter")
    value = int(await kv.call("GET", "counter") or 0)
    await kv.call("MULTI")
    await kv.call("SET", "counter", value + 1)
    return await kv.call("EXEC") is not None


async def test_no_increment_is_lost(cluster: LocalCluster) -> None:
    attempts = dict.fromkeys(NAMES, 0)

    async def client(name: str) -> None:
        async with RespConnection(await cluster.connect(name)) as kv:
            done = 0
            while done < EACH:
                attempts[name] += 1
                done += await increment(kv)

    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(client, name)
    for name in NAMES:
        assert int(await cluster.ask(name, "GET", "counter")) == EACH * len(NAMES), attempts
