"""Links that are slow, stand still, or break hundreds of times, under whole replicas in virtual time."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from epaxos.config import Config
from epaxos.net.link import PING_EVERY_US, QUIET_MIN_US, SILENCE_US, STEP_US
from epaxos.testing.virtual.cluster import VirtualCluster
from tests.conftest import ClusterText
from tests.shell.virtual import ROUND_US, History, Outcomes, caught_up, linked, quiet, tasks

pytestmark = pytest.mark.trio

Cluster = VirtualCluster[History]


async def load(cluster: Cluster, outcomes: Outcomes, name: str, *, every_s: float, count: int) -> None:
    """Propose at a steady rate, whatever becomes of it."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(outcomes.propose, cluster.replicas[name], f"{name} {number}".encode())
            await trio.sleep(every_s)


@pytest.mark.parametrize("seed", range(2))
async def test_links_that_break_hundreds_of_times(autojump_clock: MockClock, cluster: Cluster, seed: int) -> None:
    rng = random.Random(seed)
    outcomes = Outcomes()
    before, calls, breaks = tasks(), len(cluster.network.calls), 0
    async with trio.open_nursery() as nursery:
        for name in cluster.config.names:
            nursery.start_soon(lambda name: load(cluster, outcomes, name, every_s=0.4, count=50), name)
        for _ in range(300):
            await trio.sleep(rng.expovariate(15))
            breaks += cluster.network.reset(*rng.sample(cluster.config.names, 2))
    assert breaks > 300
    assert len(cluster.network.calls) - calls < 4 * breaks
    assert len(outcomes.replies) == 150
    await linked(cluster)
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before


async def test_a_link_that_never_lasts_is_not_called_in_a_frenzy(autojump_clock: MockClock, cluster: Cluster) -> None:
    """Both ends answer calls, and every connection breaks within a millisecond."""
    cluster.network.delay("CA", "VA", us=0)
    calls = len(cluster.network.calls)
    for _ in range(10_000):
        await trio.sleep(0.001)
        cluster.network.reset("CA", "VA")
    made = Counter(cluster.network.calls[calls:])
    assert made["CA", "VA"] <= 30
    assert made["VA", "CA"] <= 30
    await linked(cluster)


@pytest.mark.parametrize("blackhole", [False, True], ids=["refused", "silent"])
async def test_a_replica_that_is_cut_off_comes_back(
    autojump_clock: MockClock, cluster: Cluster, blackhole: bool
) -> None:
    outcomes = Outcomes()
    before = tasks()
    for others in (("CA", "IR"), ("VA", "IR")):
        for wire in cluster.network.wires(*others):
            if blackhole:
                wire.stall()
        if not blackhole:
            cluster.network.cut(*others)
    began_s = trio.current_time()
    await load(cluster, outcomes, "CA", every_s=1, count=60)
    assert len(outcomes.replies) == 60
    assert "IR" not in {name for name, peer in cluster.replicas["CA"].status()["peers"].items() if peer["up"]}
    calls = len(cluster.network.calls)
    await trio.sleep(60)
    assert len(cluster.network.calls) - calls <= 4 * 60 * 2
    cluster.network.heal()
    healed_s = trio.current_time()
    await linked(cluster)
    assert trio.current_time() - healed_s < 15
    assert healed_s - began_s > 100
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before


async def test_a_peer_that_stands_still_is_noticed_after_a_few_round_trips(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    await trio.sleep(3)
    for name in ("CA", "VA"):
        for wire in cluster.network.wires(name, "IR"):
            wire.stall()
    await trio.sleep((PING_EVERY_US + QUIET_MIN_US + 2 * STEP_US) / 1e6)
    for name in ("CA", "VA"):
        assert not cluster.replicas[name].status()["peers"]["IR"]["up"]
    cluster.network.heal()
    await linked(cluster)


async def test_a_peer_that_stands_still_costs_a_bounded_queue_and_delays_nobody(
    autojump_clock: MockClock, idle: Cluster, cluster_text: ClusterText
) -> None:
    bound_bytes = 4 << 20
    idle.config = Config.parse(cluster_text(3, extra=f"[limits]\nlink_queue_bytes = {bound_bytes}\n"))
    await idle.start()
    await linked(idle)
    outcomes = Outcomes()
    for name in ("CA", "VA"):
        idle.network.wire(name, "IR").stall()
    queue_bytes: list[int] = []
    for number in range(80):
        began_s = trio.current_time()
        await outcomes.propose(idle.replicas["CA"], b"%d " % number + bytes(100_000))
        assert round((trio.current_time() - began_s) * 1e6) < 2 * ROUND_US
        queue_bytes.append(idle.replicas["CA"].status()["peers"]["IR"]["queue_bytes"])
    assert bound_bytes - 200_000 < max(queue_bytes) <= bound_bytes
    assert idle.replicas["CA"].status()["peers"]["IR"]["dropped"] > 30
    await trio.sleep(2 * SILENCE_US / 1e6)
    assert not idle.replicas["CA"].status()["peers"]["IR"]["up"]
    idle.network.heal()
    await linked(idle)
    await caught_up(idle)
    outcomes.check(idle)
    await quiet(idle)


async def test_a_slow_link_is_not_taken_for_a_broken_one(
    autojump_clock: MockClock, idle: Cluster, cluster_text: ClusterText
) -> None:
    """A ping behind a full queue of 4 MB at 200 kB/s waits for longer than a link may be silent."""
    idle.config = Config.parse(cluster_text(3, extra=f"[limits]\nlink_queue_bytes = {4 << 20}\n"))
    await idle.start()
    await linked(idle)
    outcomes = Outcomes()
    for name in ("CA", "VA"):
        idle.network.wire(name, "IR").bytes_per_s = 200_000
    for number in range(60):
        await outcomes.propose(idle.replicas["CA"], b"%d " % number + bytes(60_000))
    await trio.sleep(5)
    assert idle.replicas["CA"].status()["peers"]["IR"]["queue_bytes"] > 200_000 * SILENCE_US / 1e6
    await trio.sleep(115)
    for name in ("CA", "VA"):
        peer = idle.replicas[name].status()["peers"]["IR"]
        assert (peer["up"], peer["queue_bytes"], idle.events(name, "peer_down")) == (True, 0, [])
    await caught_up(idle)
    outcomes.check(idle)
    await quiet(idle)


async def test_what_was_missed_does_not_gather_on_slow_links(autojump_clock: MockClock, idle: Cluster) -> None:
    """A replica that was away missed 1.2 MB. What it is told is longer under way than any round trip, and is not told
    again and again meanwhile."""
    await idle.start()
    await linked(idle)
    await idle.stop("IR")
    outcomes = Outcomes()
    for number in range(300):
        await outcomes.propose(idle.replicas["CA"], b"%d " % number + bytes(4_000))
    for name in ("CA", "VA"):
        idle.network.wire(name, "IR").bytes_per_s = 100_000
    await idle.start("IR")
    queued_bytes = 0
    while len(idle.machines["IR"].commands) < 300:
        await trio.sleep(0.5)
        status = [idle.replicas[name].status()["peers"]["IR"]["queue_bytes"] for name in ("CA", "VA")]
        queued_bytes = max(queued_bytes, sum(status))
    assert queued_bytes < 3 << 20
    await quiet(idle)


async def test_whoever_catches_up_holds_up_nobody_who_writes_the_same_key(
    autojump_clock: MockClock, idle: Cluster
) -> None:
    """The answers to what it led would come behind seconds of old decisions."""
    await idle.start()
    await linked(idle)
    await idle.stop("IR")
    outcomes = Outcomes()
    for number in range(300):
        await outcomes.propose(idle.replicas["CA"], b"%d " % number + bytes(4_000))
    for name in ("CA", "VA"):
        idle.network.wire(name, "IR").bytes_per_s = 100_000
    await idle.start("IR")
    await linked(idle)
    waits_s: list[float] = []
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(outcomes.propose, idle.replicas["IR"], b"IR %d" % number)
            began_s = trio.current_time()
            await outcomes.propose(idle.replicas["CA"], b"CA %d" % number)
            waits_s.append(trio.current_time() - began_s)
            await trio.sleep(0.1)
    assert max(waits_s) < 0.3
    await caught_up(idle)
    outcomes.check(idle)
    await quiet(idle)


async def test_a_link_that_stops_in_the_middle_of_a_queue_is_given_up_in_time(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    outcomes = Outcomes()
    wire = cluster.network.wire("CA", "IR")
    wire.bytes_per_s = 100_000
    for number in range(100):
        await outcomes.propose(cluster.replicas["CA"], b"%d " % number + bytes(100_000))
    await trio.sleep(2 * SILENCE_US / 1e6)
    assert cluster.replicas["CA"].status()["peers"]["IR"]["queue_bytes"] > 0
    wire.stall()
    for _ in range(SILENCE_US // 1_000_000):
        assert cluster.replicas["CA"].status()["peers"]["IR"]["up"]
        await trio.sleep(1)
    await trio.sleep(1)
    assert not cluster.replicas["CA"].status()["peers"]["IR"]["up"]
    cluster.network.heal()
    wire.bytes_per_s = None
    await linked(cluster)
    await caught_up(cluster)
    outcomes.check(cluster)
