"""Clusters in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from epaxos.config import Config
from epaxos.testing.virtual.cluster import VirtualCluster, open_cluster
from tests.conftest import ClusterText
from tests.shell.virtual import History, linked, set_world


@pytest.fixture
async def idle(autojump_clock: MockClock, cluster_text: ClusterText) -> AsyncIterator[VirtualCluster[History]]:
    """Three replicas that have not been started, 20 ms apart, with syncs of 1 ms."""
    async with trio.open_nursery() as nursery, open_cluster(Config.parse(cluster_text(3)), History) as cluster:
        nursery.start_soon(_not_for_ever)
        set_world(cluster)
        yield cluster
        nursery.cancel_scope.cancel()


async def _not_for_ever() -> None:
    """Fail a test that waits for what never comes: pings go on, so the clock jumps on and on."""
    await trio.sleep(1_200)
    raise AssertionError("twenty minutes of virtual time have passed")


@pytest.fixture
async def cluster(idle: VirtualCluster[History]) -> VirtualCluster[History]:
    """The same, serving, with all links up."""
    await idle.start()
    await linked(idle)
    return idle
