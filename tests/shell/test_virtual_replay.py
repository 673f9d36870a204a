"""One seed is one run: what fails in virtual time fails again."""

from __future__ import annotations

import random

import trio
from trio.testing import MockClock

from epaxos.config import Config
from epaxos.testing.virtual.cluster import VirtualCluster, open_cluster
from tests.conftest import MakeConfig
from tests.shell.virtual import History, Outcomes, draw_order_from, linked, set_world


def stormy(config: Config, seed: int) -> list[object]:
    """Commands at two replicas while links break: every answer and every call, and when."""
    draw_order_from(seed)
    outcomes, told = Outcomes(), list[object]()

    async def propose(cluster: VirtualCluster[History], name: str, number: int) -> None:
        await outcomes.propose(cluster.replicas[name], b"%a %d" % (name, number))
        told.append((trio.current_time(), name, number))

    async def main() -> None:
        rng = random.Random(seed)
        async with open_cluster(config, History, seed=seed) as cluster, trio.open_nursery() as nursery:
            set_world(cluster)
            await cluster.start()
            await linked(cluster)
            for number in range(40):
                for name in ("CA", "VA"):
                    nursery.start_soon(propose, cluster, name, number)
                await trio.sleep(rng.expovariate(20))
                cluster.network.reset(*rng.sample(config.names, 2))
        told.extend(cluster.network.calls)
        told.extend(cluster.machines["IR"].commands)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return told


def test_one_seed_is_one_run(make_config: MakeConfig) -> None:
    runs = [stormy(make_config(3), seed) for seed in (1, 1, 2)]
    assert len(runs[0]) > 100
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
