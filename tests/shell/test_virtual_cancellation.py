"""A strike behind every single step of the program while a proposal is under way: the caller is cancelled, a replica
stops, a link breaks. Whoever was told something was told the truth, and nothing stays behind.

The steps of one moment run in an order that trio draws; so a strike at step k is not the same strike each time, and
the assertions are about what must hold after any.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from epaxos.testing.virtual.cluster import VirtualCluster
from tests.shell.virtual import History, Outcomes, at_step, caught_up, linked, quiet, tasks

pytestmark = pytest.mark.trio

Cluster = VirtualCluster[History]


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "among others"])
async def test_a_proposal_cancelled_at_any_step(autojump_clock: MockClock, cluster: Cluster, busy: bool) -> None:
    outcomes = Outcomes()
    before = tasks()
    step, untouched = 0, 0
    while untouched < 3:
        step += 1
        async with trio.open_nursery() as nursery:
            if busy:
                for name, replica in cluster.replicas.items():
                    nursery.start_soon(outcomes.propose, replica, f"{name} beside {step}".encode())
            with trio.CancelScope() as scope, at_step(step, scope.cancel) as strike:
                await outcomes.propose(cluster.replicas["CA"], b"struck %d" % step)
            untouched += not strike.struck
        await outcomes.propose(cluster.replicas["CA"], b"behind %d" % step)
    assert step > 20
    assert all(command.startswith(b"struck") for command in outcomes.unknown), "only who was cancelled does not know"
    assert not outcomes.rejected
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before


async def test_what_was_cancelled_before_it_was_proposed_never_happens(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await cluster.replicas["CA"].propose(b"never", writes=[b"k"])
    assert scope.cancelled_caught
    await cluster.replicas["CA"].propose(b"later", writes=[b"k"])
    await caught_up(cluster)
    assert cluster.machines["VA"].commands == [b"later"]


async def strike_everywhere(
    cluster: Cluster, outcomes: Outcomes, strike: Callable[[], None], mend: Callable[[], Awaitable[None]]
) -> int:
    """Propose three commands at CA, from outside of its block, with a strike behind step 1, 2, 3, …; how many."""
    step, struck = 0, True
    while struck:
        step += 1
        with at_step(step, strike) as instrument:
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(outcomes.propose, cluster.replicas["CA"], b"%d of %d" % (number, step))
        struck = instrument.struck
        if struck:
            await mend()
            await linked(cluster)
    return step


async def test_the_proposers_replica_stops_at_any_step(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    before = tasks()
    cancel = itertools.cycle((False, True))  # its block ends, or is cancelled

    async def mend() -> None:
        await cluster.ended("CA")
        await cluster.start("CA")

    steps = await strike_everywhere(cluster, outcomes, lambda: cluster.ask_to_stop("CA", cancel=next(cancel)), mend)
    assert steps > 20
    assert outcomes.rejected, "stopped before a batch took it"
    assert outcomes.unknown, "stopped behind the proposal"
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before


async def test_another_replica_stops_at_any_step_and_nobody_notices(
    autojump_clock: MockClock, cluster: Cluster
) -> None:
    outcomes = Outcomes()

    async def mend() -> None:
        await cluster.ended("VA")
        await cluster.start("VA")

    steps = await strike_everywhere(cluster, outcomes, partial(cluster.ask_to_stop, "VA", cancel=True), mend)
    assert steps > 20
    assert len(outcomes.replies) == 3 * steps
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)


async def test_all_links_break_at_any_step(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()

    async def mend() -> None:
        await trio.sleep(1)

    steps = await strike_everywhere(cluster, outcomes, cluster.network.reset, mend)
    assert steps > 20
    assert len(outcomes.replies) == 3 * steps
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)


async def test_everybody_stops_in_the_middle_of_everything(autojump_clock: MockClock, cluster: Cluster) -> None:
    outcomes = Outcomes()
    before = tasks()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            for name, replica in cluster.replicas.items():
                nursery.start_soon(outcomes.propose, replica, f"{name}{number}".encode())
        await trio.sleep(0.030)
        await cluster.stop(cancel=True)
    assert len(outcomes.unknown) + len(outcomes.rejected) + len(outcomes.replies) == 150
    await cluster.start()
    await caught_up(cluster)
    outcomes.check(cluster)
    await quiet(cluster)
    assert tasks() == before
