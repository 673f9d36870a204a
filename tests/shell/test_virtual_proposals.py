"""Whole replicas in virtual time: how long things take, to the microsecond, and who learns what when nobody answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

import epaxos
from epaxos.replica import Replica
from epaxos.testing.virtual.cluster import VirtualCluster
from tests.shell.virtual import DELAY_US, ROUND_US, SYNC_US, History, Outcomes, caught_up, quiet

pytestmark = pytest.mark.trio

Cluster = VirtualCluster[History]


def us_since(began_s: float) -> int:
    return round((trio.current_time() - began_s) * 1e6)


async def test_a_proposal_takes_one_round_trip_and_three_syncs(autojump_clock: MockClock, cluster: Cluster) -> None:
    for number in range(1, 6):
        began_s = trio.current_time()
        assert await cluster.replicas["CA"].propose(b"%d" % number, writes=[b"k"]) == b"%d" % number
        assert us_since(began_s) == ROUND_US


async def test_the_nearest_majority_is_enough(autojump_clock: MockClock, cluster: Cluster) -> None:
    cluster.network.delay("CA", "IR", us=500_000)
    cluster.network.delay("VA", "IR", us=500_000)
    began_s = trio.current_time()
    await cluster.replicas["CA"].propose(b"command", writes=[b"k"])
    assert us_since(began_s) == ROUND_US


async def test_a_slow_disk_of_the_third_replica_holds_up_nobody(autojump_clock: MockClock, cluster: Cluster) -> None:
    cluster.disks["IR"].sync_us = 5_000_000
    began_s = trio.current_time()
    await cluster.replicas["CA"].propose(b"command", writes=[b"k"])
    assert us_since(began_s) == ROUND_US


async def test_commands_that_wait_for_one_sync_share_it(autojump_clock: MockClock, cluster: Cluster) -> None:
    replica = cluster.replicas["CA"]
    before = replica.status()["disk"]["syncs"]
    began_s = trio.current_time()
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(outcomes.propose, replica, b"%d" % number, b"%d" % number)
    assert len(outcomes.replies) == 100
    assert us_since(began_s) <= 2 * ROUND_US
    assert replica.status()["disk"]["syncs"] - before < 20


async def test_a_read_sees_what_was_answered_elsewhere(autojump_clock: MockClock, cluster: Cluster) -> None:
    await cluster.replicas["CA"].propose(b"command", writes=[b"k"])
    began_s = trio.current_time()
    assert await cluster.replicas["VA"].read(b"query", reads=[b"k"]) == b"2"
    assert us_since(began_s) <= ROUND_US + DELAY_US + SYNC_US


async def test_the_log_gives_an_entry_when_it_is_durable(autojump_clock: MockClock, cluster: Cluster) -> None:
    replica = cluster.replicas["CA"]
    found: list[tuple[int, bytes]] = []
    began_s = trio.current_time()

    async def follow() -> None:
        entries = replica.log()
        while True:
            entry = await anext(entries)
            found.append((us_since(began_s), entry.payload))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await replica.propose(b"command", writes=[b"k"])
        assert found == []
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    lazy_us = cluster.config.limits.lazy_us
    assert found == [(ROUND_US + lazy_us + SYNC_US, b"command")]


async def test_the_same_key_at_all_sites_at_once_ends_in_one_order(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            for name, replica in cluster.replicas.items():
                nursery.start_soon(outcomes.propose, replica, f"{name}{number}".encode())
    await caught_up(cluster)
    outcomes.check(cluster)
    assert len(outcomes.replies) == 60
    await quiet(cluster)


async def test_without_a_quorum_everybody_learns_in_time_what_is_known(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    await cluster.stop("VA", "IR")
    timeout_us = cluster.config.limits.request_timeout_ms * 1_000
    began_s = trio.current_time()
    with pytest.raises(epaxos.Unknown):
        await cluster.replicas["CA"].propose(b"command", writes=[b"k"])
    assert us_since(began_s) == timeout_us
    began_s = trio.current_time()
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.25):
        await cluster.replicas["CA"].propose(b"command", writes=[b"k"])
    assert us_since(began_s) == 250_000, "the caller's own deadline is the caller's"


@pytest.mark.parametrize(
    "ask",
    [
        lambda replica: replica.propose(b"command", writes=[b"k"]),
        lambda replica: replica.read(b"query", reads=[b"k"]),
        lambda replica: replica.barrier(),
    ],
    ids=["propose", "read", "barrier"],
)
async def test_a_deadline_at_any_moment_either_cancels_or_does_not(
    autojump_clock: MockClock, cluster: Cluster, ask: Callable[[Replica], Awaitable[object]]
) -> None:
    cancelled: list[bool] = []
    for wait_us in range(0, ROUND_US + 5_000, 1_000):
        began_s = trio.current_time()
        with trio.move_on_after(wait_us / 1e6) as scope:
            await ask(cluster.replicas["CA"])
        took_us = us_since(began_s)
        assert took_us == wait_us if scope.cancelled_caught else took_us <= wait_us
        cancelled.append(scope.cancelled_caught)
        await cluster.replicas["CA"].propose(b"next", writes=[b"k"])
    assert cancelled[0]
    assert not cancelled[-1]
    assert cancelled == sorted(cancelled, reverse=True)
    await quiet(cluster)


async def test_a_replica_that_comes_back_catches_up(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    await outcomes.propose(cluster.replicas["CA"], b"before")
    await cluster.stop("IR")
    for number in range(20):
        await outcomes.propose(cluster.replicas["CA"], b"%d" % number)
    await cluster.start("IR")
    await caught_up(cluster)
    outcomes.check(cluster)
    assert len(outcomes.replies) == 21


async def test_everybody_may_stop_and_nothing_is_lost(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    for life in range(3):
        for name, replica in cluster.replicas.items():
            await outcomes.propose(replica, f"{name}{life}".encode())
        await cluster.stop()
        await cluster.start()
        assert {replica.incarnation for replica in cluster.replicas.values()} == {life + 2}
    await caught_up(cluster)
    outcomes.check(cluster)
    assert len(outcomes.replies) == 9


async def test_a_machine_that_raises_stops_its_replica_and_says_so(autojump_clock: MockClock, cluster: Cluster) -> None:
    with pytest.raises(epaxos.Unknown):
        await cluster.replicas["CA"].propose(b"boom")
    await cluster.ended("CA")
    assert isinstance(cluster.failures["CA"], epaxos.MachineError)
