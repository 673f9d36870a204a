"""Catching up: in ranges, from the lowest gap upwards, at a bounded rate, and from others when nobody answers."""

from __future__ import annotations

from epaxos.ids import InstanceId
from epaxos.messages import MAX_SLOT, Commit, CommitQuery, SlotRange
from epaxos.protocols.epaxos.catchup import STEP_IDS, STEP_US
from epaxos.protocols.interface import PeerUp, Receive
from epaxos.testing.byhand import RETRY_US, ByHand, set_

MISSED = 5 * STEP_IDS


def behind() -> ByHand:
    """Replica 2 was away while replica 0 took so many commands; it has been told how far the others are."""
    cluster = ByHand(3)
    cluster.crash(2)
    for number in range(MISSED):
        cluster.submit(0, set_(f"k{number}", "v"), stream=number)
        cluster.settle()
    cluster.restart(2)
    for _ in range(2):
        cluster.settle()
    return cluster


def questions(cluster: ByHand) -> list[SlotRange]:
    """What replica 2 asks about lane 0 below what it has heard of."""
    asked = [r for flight in cluster.pick(CommitQuery, source=2) for r in flight.message.ranges]
    return [r for r in asked if r.lane == 0 and r.last != MAX_SLOT]


def test_a_link_that_comes_up_tells_how_far_the_others_are() -> None:
    cluster = behind()
    status = cluster.sites[2].protocol.status()
    assert status["highest"][0] == MISSED
    assert status["catching_up"] == {"missing": MISSED - STEP_IDS - 1, "per_s": 0}


def test_what_was_missed_is_asked_for_step_by_step_and_nothing_waits_for_an_answer() -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    steps = []
    for _ in range(4):
        steps += questions(cluster)
        cluster.drop()
        cluster.wait(STEP_US)
    assert [(r.first, r.last) for r in steps[:3]] == [(1 + n * STEP_IDS, (n + 1) * STEP_IDS) for n in range(1, 4)]


def test_each_answer_is_short() -> None:
    cluster = behind()
    cluster.drop()
    cluster.turn(0, Receive(peer=2, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, MISSED),))))
    assert len(cluster.pick(Commit, source=0)) == STEP_IDS


def test_it_ends_and_everything_is_there() -> None:
    cluster = behind()
    cluster.heal(2_000_000)
    assert cluster.sites[2].engine.executor.executed() == cluster.sites[0].engine.executor.executed()
    assert cluster.sites[2].protocol.status()["catching_up"]["missing"] == 0


def test_people_are_shown_how_fast_it_goes() -> None:
    cluster = behind()
    learned = []
    for _ in range(20):
        cluster.wait(RETRY_US)
        cluster.settle()
        learned.append(cluster.sites[2].protocol.status()["catching_up"]["per_s"])
    assert max(learned) >= MISSED // 4 and learned[-1] == 0


def test_whoever_does_not_answer_is_not_asked_for_ever() -> None:
    cluster = behind()
    targets = set()
    for _ in range(12):
        cluster.wait(RETRY_US)
        targets |= {f.target for f in cluster.pick(CommitQuery, source=2) if f.message.ranges[0].last != MAX_SLOT}
        cluster.drop()
    assert targets == {0, 1}


def test_what_has_its_turn_is_not_asked_for_in_another_way() -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    query = cluster.sites[2].protocol.query
    last = InstanceId(0, MISSED - 1, 0)
    assert query.catching_up.has_its_turn(last)
    assert query.need([last]) == []


def test_a_link_that_only_flapped_costs_a_few_messages() -> None:
    cluster = ByHand(3)
    for number in range(MISSED):
        cluster.submit(0, set_(f"k{number}", "v"), stream=number)
        cluster.settle()
    cluster.turn(2, PeerUp(peer=0))
    cluster.settle()
    cluster.wait(2 * RETRY_US)
    assert questions(cluster) == []
