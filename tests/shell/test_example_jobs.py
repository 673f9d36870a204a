"""The example that hands out jobs, in virtual time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from epaxos.config import Config
from epaxos.testing.virtual.cluster import open_cluster
from tests.conftest import ClusterText
from tests.shell.virtual import linked, set_world

pytestmark = pytest.mark.trio


@pytest.fixture
def jobs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(repository / "examples"))
    return importlib.import_module("jobs")


async def test_a_worker_goes_on_after_hours_without_a_job(
    autojump_clock: MockClock, cluster_text: ClusterText, jobs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.parse(cluster_text(3, extra="[limits]\nsession_idle_ms = 10000\n"))
    async with trio.open_nursery() as nursery, open_cluster(config, jobs.Jobs) as cluster:
        set_world(cluster)
        await cluster.start()
        await linked(cluster)
        nursery.start_soon(jobs.work, cluster.replicas["VA"], "alice")
        for job in ("wash", "dry"):
            await trio.sleep(60)
            await cluster.replicas["CA"].propose(f"put {job}".encode(), writes=jobs.QUEUE)
        await trio.sleep(1)
        assert capsys.readouterr().out == "alice has wash\nalice has dry\n"
        listed = await cluster.replicas["CA"].read(b"list", reads=jobs.QUEUE)
        assert json.loads(listed) == [[], 2, {}]
        nursery.cancel_scope.cancel()
