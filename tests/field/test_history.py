"""Clients of three real processes, one of which is killed and comes back: what they saw is a history that can be."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio

import epaxos
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from epaxos.testing.history import History, Load
from epaxos.testing.record import Outcome

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 60.0
"""A test gives up after this; nothing asserts how long anything took."""
NAMES = ("CA", "VA", "IR")


class Crowd:
    """Clients at every replica that share keys, until they are told to stop."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.history = History()
        self.load = Load(Random(11), readers=len(NAMES))
        self._file = cluster.spec.directory / "cluster.toml"
        self._done = trio.Condition()

    async def client(self, near: str) -> None:
        """One client, which goes to another replica when its own is gone."""
        async with epaxos.Client(self._file, near) as kv:
            while True:
                await self.history.call(f"client at {near}", self.load.next(), kv.execute)
                async with self._done:
                    self._done.notify_all()

    async def answered(self, count: int) -> None:
        """Returns when so many more commands were answered."""
        goal = self.history.counts()[Outcome.DONE] + count
        async with self._done:
            while self.history.counts()[Outcome.DONE] < goal:
                await self._done.wait()

    async def survey(self) -> None:
        """Read everything at every replica."""
        for near in NAMES:
            async with epaxos.Client(self._file, near) as kv:
                for action in self.load.survey():
                    await self.history.call(f"reader at {near}", action, kv.execute)


@pytest.mark.parametrize("protocol", ["epaxos", "raft"])
async def test_what_clients_saw_around_a_kill_9_is_linearizable(tmp_path: Path, protocol: str) -> None:
    spec = ClusterSpec(names=NAMES, directory=tmp_path, protocol=protocol)
    with trio.fail_after(WITHIN_S):
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=WITHIN_S)
            crowd = Crowd(cluster)
            async with trio.open_nursery() as nursery:
                for near in (*NAMES, *NAMES):
                    nursery.start_soon(crowd.client, near)
                await crowd.answered(300)
                await cluster.kill("CA")
                await crowd.answered(300)
                await cluster.launch("CA")
                await cluster.wait_until(
                    "CA", lambda _, status: status["behind"] == 0, within_s=WITHIN_S, what="catch up"
                )
                await crowd.answered(300)
                nursery.cancel_scope.cancel()
            await crowd.survey()
    judgement = crowd.history.judge()
    assert judgement.sound, crowd.history.explain(judgement)
    assert not judgement.undecided
    assert crowd.history.counts()[Outcome.DONE] > 900
