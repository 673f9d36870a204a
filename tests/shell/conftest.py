"""Clusters in virtual time, and what is drawn in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from epaxos.config import Config
from epaxos.testing.virtual.cluster import VirtualCluster, open_cluster
from tests.conftest import ClusterText
from tests.shell.virtual import History, draw_order_from, linked, set_world

SEEDS = int(os.environ.get("EPAXOS_SEEDS", "1"))
"""Every test in virtual time runs so often, each time in another order: `make virtual`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if SEEDS > 1 and "autojump_clock" in metafunc.fixturenames:
        metafunc.parametrize("chance", range(SEEDS), indirect=True)


@pytest.fixture(autouse=True)
def chance(request: pytest.FixtureRequest) -> int:
    """The seed of whatever a test draws: what a virtual replica does, and in which order trio takes the steps of one
    moment. So a failure comes again."""
    seed: int = getattr(request, "param", 0)
    draw_order_from(seed)
    return seed


@pytest.fixture
async def idle(
    autojump_clock: MockClock, cluster_text: ClusterText, chance: int
) -> AsyncIterator[VirtualCluster[History]]:
    """Three replicas that have not been started, 20 ms apart, with syncs of 1 ms."""
    config = Config.parse(cluster_text(3))
    async with trio.open_nursery() as nursery, open_cluster(config, History, seed=chance) as cluster:
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
