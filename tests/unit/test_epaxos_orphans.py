"""What a dead coordinator left: finished by the others at once, by one of them, and whether or not anybody waits."""

from __future__ import annotations

from epaxos.command import NOP
from epaxos.ids import InstanceId
from epaxos.messages import PreAccept, PreAcceptOK, Recover
from epaxos.protocols.interface import PeerDown, PeerUp
from epaxos.testing.byhand import RETRY_US, ByHand, set_

A1 = InstanceId(0, 1, 0)


def abandoned(n: int, *holders: int) -> ByHand:
    """Replica 0 asks for A1, `holders` hear of it, and it dies."""
    cluster = ByHand(n)
    cluster.submit(0, set_("k", "x"))
    for holder in holders:
        cluster.pass_on(PreAccept, target=holder)
    cluster.drop(PreAccept)
    cluster.drop(PreAcceptOK)
    cluster.crash(0)
    return cluster


def starters(cluster: ByHand) -> list[int]:
    return sorted({flight.source for flight in cluster.pick(Recover)})


def test_what_nobody_waits_for_is_recovered_as_soon_as_its_coordinator_is_suspected() -> None:
    cluster = abandoned(3, 1, 2)
    for site in (1, 2):
        cluster.turn(site, PeerDown(peer=0))
    assert len(starters(cluster)) == 1, "one at a time"
    cluster.settle()
    ((payload, _),) = cluster.decided[A1]
    assert payload is not NOP and cluster.decided[A1][payload, (0, 0, 0)] == {1, 2}


def test_while_the_coordinator_is_not_suspected_what_nobody_waits_for_is_left_alone() -> None:
    cluster = abandoned(3, 1, 2)
    cluster.wait(RETRY_US)
    assert starters(cluster) == []


def test_a_coordinator_that_is_back_finishes_its_own() -> None:
    cluster = abandoned(5, 1, 2, 3, 4)
    for site in (1, 2, 3, 4):
        cluster.turn(site, PeerDown(peer=0))
    late = {1, 2, 3, 4} - set(starters(cluster))
    cluster.drop(Recover)
    for site in late:
        cluster.turn(site, PeerUp(peer=0))
    cluster.drop()
    cluster.wait(4 * RETRY_US)
    assert len(late) == 3 and not late & set(starters(cluster))


def test_when_the_first_in_turn_knows_nothing_the_next_one_recovers() -> None:
    for holder in (1, 2, 3, 4):
        cluster = abandoned(5, holder)
        for site in (1, 2, 3, 4):
            cluster.turn(site, PeerDown(peer=0))
        assert set(starters(cluster)) <= {holder}
        cluster.wait(3 * RETRY_US)
        assert starters(cluster) == [holder], "at the latest when three others had their turn"


def test_who_hears_that_another_recovers_waits_for_it() -> None:
    cluster = abandoned(5, 1, 2, 3, 4)
    for site in (1, 2, 3, 4):
        cluster.turn(site, PeerDown(peer=0))
    (first,) = starters(cluster)
    cluster.pass_on(Recover)
    cluster.drop()
    cluster.wait(RETRY_US)
    assert set(starters(cluster)) <= {first}


def test_the_last_words_of_a_dead_coordinator_are_recovered_as_well() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    for site in (1, 2):
        cluster.turn(site, PeerDown(peer=0))
    cluster.sites[0].up = False
    cluster.pass_on(PreAccept)
    cluster.drop(PreAcceptOK)
    assert len(starters(cluster)) == 1


def test_a_coordinator_that_is_heard_of_finishes_its_own_though_the_link_to_it_is_down() -> None:
    cluster = ByHand(3)
    cluster.turn(1, PeerDown(peer=0))
    cluster.wait(2 * RETRY_US)
    cluster.submit(0, set_("k", "x"))
    cluster.pass_on(PreAccept)
    cluster.drop()
    cluster.wait(RETRY_US)
    assert starters(cluster) == []
