"""What a replica answers, against a Redis server that is told the same."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from epaxos.gateway.server import serve_clients
from epaxos.gateway.table import TABLE, Shape
from epaxos.limits import LimitsConfig
from tests.field.redis_compare import Comparison, run_corpus, run_differences, run_random, run_raw
from tests.field.redis_corpus import DIFFERENCES, LOCKED, PASSWORD, RAW
from tests.field.redis_pair import redis_server
from tests.shell.fake_replica import FakeReplica

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 30.0
DOCS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "redis-differences.md"


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """A Redis server."""
    with redis_server(tmp_path) as port:
        yield port


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """A cluster of one replica."""
    async with local_cluster(ClusterSpec(names=("CA",), directory=tmp_path)) as running:
        await running.wait_ready(within_s=WITHIN_S)
        yield running


async def test_random_commands_are_answered_as_redis_does(alone: LocalCluster, redis_port: int) -> None:
    def compare() -> None:
        with Comparison([alone.port("CA")] * 3, redis_port) as comparison:
            run_random(comparison, seed=1, commands=10_000)
            assert set(comparison.seen) <= set(DIFFERENCES)

    await trio.to_thread.run_sync(compare)


async def test_chosen_commands_are_answered_as_redis_does(alone: LocalCluster, redis_port: int) -> None:
    def compare() -> set[bytes]:
        with Comparison([alone.port("CA")] * 2, redis_port) as comparison:
            return run_corpus(comparison)

    met = await trio.to_thread.run_sync(compare)
    assert met >= {name for name, spec in TABLE.items() if spec.shape is not Shape.LOCAL}, "each command at least once"


async def test_nonsense_is_answered_as_redis_does(alone: LocalCluster, redis_port: int) -> None:
    await trio.to_thread.run_sync(run_raw, alone.port("CA"), redis_port, RAW)


async def test_a_stranger_is_answered_as_redis_does(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with redis_server(tmp_path, "--requirepass", PASSWORD.decode()) as redis_port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: serve_clients(FakeReplica(), listeners, limits=LimitsConfig(), password=PASSWORD)
            )
            await trio.to_thread.run_sync(run_raw, port, redis_port, LOCKED)
            nursery.cancel_scope.cancel()


async def test_the_table_says_of_a_command_what_redis_says(alone: LocalCluster, redis_port: int) -> None:
    def compare() -> None:
        with Comparison([alone.port("CA")], redis_port) as comparison:
            for name, spec in TABLE.items():
                if name != b"epaxos":
                    ours, theirs = comparison.both(b"command", b"info", name)
                    assert ours[0][:6] == theirs[0][:6]
                    assert spec.group.encode() in comparison.both(b"command", b"docs", name)[1][1]

    await trio.to_thread.run_sync(compare)


async def test_every_difference_is_one(tmp_path: Path, redis_port: int) -> None:
    async with local_cluster(ClusterSpec(names=("CA", "VA", "IR"), directory=tmp_path)) as running:
        await running.wait_ready(within_s=WITHIN_S)

        def compare() -> None:
            with Comparison([running.port("CA")], redis_port) as comparison:
                run_differences(comparison)

        await trio.to_thread.run_sync(compare)


async def test_the_docs_list_every_difference_and_no_other() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(DIFFERENCES)
