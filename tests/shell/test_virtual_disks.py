"""Disks that hang or fill, under whole replicas in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

import epaxos
from epaxos.testing.virtual.cluster import VirtualCluster
from epaxos.testing.virtual.disk import VirtualDisk
from tests.shell.virtual import History, Outcomes, caught_up, linked, quiet, tasks

pytestmark = pytest.mark.trio

Cluster = VirtualCluster[History]


async def test_nothing_is_answered_while_the_disk_is_stuck_and_everything_after(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    outcomes, elsewhere = Outcomes(), Outcomes()
    async with trio.open_nursery() as nursery:
        cluster.disks["CA"].stick()
        for number in range(20):
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"stuck %d" % number)
        await trio.sleep(1)
        for number in range(20):
            await elsewhere.propose(cluster.replicas["VA"], b"elsewhere %d" % number)
        assert len(elsewhere.replies) == 20
        await trio.sleep(5)
        assert not outcomes.replies
        assert not outcomes.rejected
        assert len(outcomes.unknown) == 20
        assert cluster.replicas["CA"].status()["disk"]["sync_us_max"] < 1_000_000
        cluster.disks["CA"].release()
    assert len(outcomes.replies) == 20
    await caught_up(cluster)
    outcomes.check(cluster)
    elsewhere.check(cluster)
    await quiet(cluster)


async def test_a_disk_that_gets_stuck_at_any_moment_of_a_proposal(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    for moment_us in range(0, 46_000, 1_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"%d" % moment_us)
            await trio.sleep(moment_us / 1e6)
            cluster.disks["CA"].stick()
            await trio.sleep(1)
            told = b"%d" % moment_us in outcomes.replies
            await outcomes.propose(cluster.replicas["VA"], b"beside %d" % moment_us)
            assert told == (b"%d" % moment_us in outcomes.replies), "answered while the disk was stuck"
            cluster.disks["CA"].release()
    assert not outcomes.rejected
    assert not outcomes.unknown
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)


async def test_deadlines_run_out_while_the_disk_is_stuck(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    cluster.disks["CA"].stick()
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"%d" % number)
    assert trio.current_time() - began_s == cluster.config.limits.request_timeout_ms / 1e3
    assert len(outcomes.unknown) + len(outcomes.rejected) == 20
    cluster.disks["CA"].release()
    await outcomes.propose(cluster.replicas["CA"], b"later")
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)


async def test_a_replica_whose_disk_is_stuck_can_be_stopped(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    before = tasks()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"%d" % number)
        await trio.sleep(0.030)
        cluster.disks["CA"].stick()
        await cluster.stop("CA")
    assert not outcomes.replies
    cluster.disks["CA"].release()
    await cluster.start("CA")
    await outcomes.propose(cluster.replicas["CA"], b"later")
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before


async def test_a_replica_that_lost_its_disk_does_not_vote_under_its_name_again(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    assert await cluster.replicas["CA"].propose(b"before", writes=[b"k"])
    await cluster.stop()
    lost, cluster.disks["CA"] = cluster.disks["CA"], VirtualDisk()
    await cluster.start()
    await trio.sleep(10)
    assert not any(peer["up"] for peer in cluster.replicas["CA"].status()["peers"].values())
    with pytest.raises(epaxos.Unknown):
        await cluster.replicas["CA"].propose(b"forgetful", writes=[b"k"])
    for name in ("VA", "IR"):
        assert cluster.replicas[name].status()["peers"]["CA"]["up"] is False
        said = [event["text"] for event in cluster.events(name, "peer_refused")]
        assert any("CA is refused: CA came with another disk than the one known here" in text for text in said)
    said = [event["text"] for event in cluster.events("CA", "peer_refused")]
    assert any("VA refuses us: CA came with another disk" in text and "leave it down" in text for text in said)
    assert await cluster.replicas["VA"].propose(b"beside", writes=[b"k"]) == b"2"
    await cluster.stop("CA")
    cluster.disks["CA"] = lost
    await cluster.start("CA")
    await linked(cluster)
    await caught_up(cluster)
    assert [machine.commands for machine in cluster.machines.values()] == [[b"before", b"beside"]] * 3


async def test_replicas_that_never_met_take_each_other_at_their_word(autojump_clock: MockClock, idle: Cluster) -> None:
    await idle.start("CA", "VA")
    await linked(idle)
    idle.disks["IR"] = VirtualDisk()
    await idle.start("IR")
    await linked(idle)
    assert await idle.replicas["IR"].propose(b"together", writes=[b"k"]) == b"1"


async def test_a_peer_that_cannot_be_written_down_is_not_linked_until_there_is_room(
    autojump_clock: MockClock, idle: Cluster
) -> None:
    await idle.start("CA", "IR")
    await linked(idle)
    idle.disks["CA"].room_bytes = 10
    await idle.start("VA")
    await trio.sleep(5)
    assert not idle.replicas["CA"].status()["peers"]["VA"]["up"]
    assert any("VA cannot be written down" in event["text"] for event in idle.events("CA", "peer_refused"))
    assert any("No space left on device" in event["text"] for event in idle.events("VA", "peer_refused"))
    idle.disks["CA"].room_bytes = None
    await linked(idle)


async def test_a_disk_is_refused_under_other_members(autojump_clock: MockClock, cluster: Cluster) -> None:
    await cluster.stop()
    swapped = replace(cluster.config, replicas=cluster.config.replicas[::-1])
    with pytest.raises(epaxos.StorageError, match="the cluster was CA VA IR; the file says IR VA CA: members cannot"):
        async with epaxos.open_replica(swapped, "CA", History(), data=cluster.disks["CA"]):
            raise AssertionError("opened under other members")


async def flood(cluster: Cluster, outcomes: Outcomes, name: str) -> None:
    """Propose, fifty at a time, until the replica stops."""

    async def keep_proposing(first: int) -> None:
        number = first
        while name in cluster.replicas:
            await outcomes.propose(cluster.replicas[name], b"%s %d" % (name.encode(), number))
            number += 50

    async with trio.open_nursery() as nursery:
        for first in range(50):
            nursery.start_soon(keep_proposing, first)


async def test_a_full_disk_stops_the_replica_and_nothing_is_lost(autojump_clock: MockClock, cluster: Cluster) -> None:
    for room_bytes in range(10_000, 100_000, 20_000):
        outcomes = Outcomes()
        cluster.disks["CA"].room_bytes = room_bytes
        replica = cluster.replicas["CA"]
        await flood(cluster, outcomes, "CA")
        failure = cluster.failures.pop("CA")
        assert isinstance(failure, epaxos.StorageError)
        assert "No space left" in str(failure)
        with pytest.raises(epaxos.Rejected, match="closed"):
            await replica.propose(b"late")
        assert await cluster.replicas["VA"].propose(b"beside", writes=[b"other"])
        cluster.disks["CA"].room_bytes = None
        await cluster.start("CA")
        await linked(cluster)
        await caught_up(cluster)
        machines = {name: machine.commands for name, machine in cluster.machines.items()}
        for commands in machines.values():
            assert {*outcomes.replies} <= {*commands}
            assert not {*outcomes.rejected} & {*commands}
            assert len({*commands} & {*outcomes.unknown, *outcomes.replies}) <= len(commands)
        await cluster.stop()
        for name in cluster.config.names:
            cluster.disks[name] = VirtualDisk(sync_us=1_000)
        await cluster.start()
        await linked(cluster)


async def test_a_disk_that_fails_while_more_is_written_is_told_of_once(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    for _ in range(10):  # trio draws who is first: the one who learns that it failed, or the one who writes
        disk, outcomes = cluster.disks["CA"], Outcomes()
        disk.stick()
        disk.room_bytes = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"first")
            await trio.sleep(1)
            disk.release()
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"second")
        await cluster.ended("CA")
        assert isinstance(cluster.failures.pop("CA"), epaxos.StorageError)
        assert not outcomes.replies
        disk.room_bytes = None
        await cluster.start("CA")


async def test_links_are_not_read_while_the_disk_owes_too_much(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    disk = cluster.disks["IR"]
    disk.backlog_bytes_max = 8_000_000
    disk.stick()
    for number in range(250):
        await outcomes.propose(cluster.replicas["CA"], b"%d " % number + bytes(50_000))
    assert len(outcomes.replies) == 250
    assert not cluster.failures
    disk.release()
    await linked(cluster)
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)


async def test_clients_are_told_busy_while_the_disk_owes_too_much(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    disk = cluster.disks["CA"]
    disk.backlog_bytes_max = 8_000_000
    disk.stick()
    async with trio.open_nursery() as nursery:
        for number in range(200):
            key = b"%d" % number
            nursery.start_soon(outcomes.propose, cluster.replicas["CA"], key + bytes(50_000), key)
            await trio.sleep(0.01)
        assert 20 < len(outcomes.rejected) < 180
        assert not outcomes.replies
        assert not cluster.failures
        disk.release()
    await outcomes.propose(cluster.replicas["CA"], b"later")
    assert len(outcomes.replies) == 201 - len(outcomes.rejected)
    await caught_up(cluster)
    for machine in cluster.machines.values():
        assert {*machine.commands} == {*outcomes.replies}
    await quiet(cluster)
