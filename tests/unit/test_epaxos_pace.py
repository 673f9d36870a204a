"""How often a replica repeats itself: until it is answered, ever more rarely, and never in step with the others."""

from __future__ import annotations

from epaxos.ids import InstanceId
from epaxos.messages import CommitQuery, Nack, PreAccept, Recover, RecoverOK
from epaxos.protocols.epaxos.query import SWEEPS_TO_OPEN_END
from epaxos.protocols.epaxos.state import RESEND_DOUBLINGS_MAX, RTT_SAMPLES
from epaxos.protocols.interface import Receive
from epaxos.testing.byhand import RETRY_US, ByHand, set_

A1 = InstanceId(0, 1, 0)


def recover(cluster: ByHand, i: int, *quorum: int) -> None:
    """`i` starts to recover A1; Recover and its answers pass between it and `quorum` only."""
    cluster.poke(i, lambda protocol: protocol.recovery.start([protocol.state.touch(A1)]))
    for target in quorum:
        cluster.pass_on(Recover, source=i, target=target)
        cluster.pass_on(RecoverOK, source=target, target=i)
    cluster.drop(Recover, source=i)


def test_copies_do_not_gather_behind_a_disk_that_is_stuck() -> None:
    cluster = ByHand(3)
    cluster.hold_disk.add(0)
    cluster.submit(0, set_("k", "x"))
    cluster.wait(20 * RETRY_US)
    cluster.sync(0)
    assert len(cluster.pick(PreAccept, target=1)) == 1

    cluster = ByHand(3)
    cluster.hold_disk.add(1)
    cluster.poke(1, lambda protocol: protocol.recovery.start([protocol.state.touch(A1)]))
    cluster.wait(20 * RETRY_US)
    cluster.sync(1)
    assert len(cluster.pick(Recover, target=2)) == 1


def test_a_copy_does_not_wait_for_what_was_saved_after_the_first_sending() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.hold_disk.add(0)
    cluster.submit(0, set_("other", "y"), stream=2)
    cluster.wait(2 * RETRY_US)
    assert [flight.message.id for flight in cluster.pick(PreAccept, target=1)] == [A1]


def test_what_is_not_answered_is_sent_again_ever_more_rarely_and_for_ever() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    first = cluster.drop(PreAccept, target=1)
    cluster.wait(10 * RETRY_US)
    soon = cluster.drop(PreAccept, target=1)
    cluster.wait(RETRY_US << RESEND_DOUBLINGS_MAX)
    late = cluster.drop(PreAccept, target=1)
    assert (first, late) == (1, 1) and 3 <= soon <= 4


def test_a_recover_is_sent_again_to_those_who_have_not_answered() -> None:
    cluster = ByHand(5)
    recover(cluster, 1, 2)
    cluster.wait(2 * RETRY_US)
    assert {flight.target for flight in cluster.pick(Recover, source=1)} == {0, 3, 4}


def test_whoever_joins_a_ballot_gives_its_leader_time() -> None:
    cluster = ByHand(3)
    protocol = cluster.sites[2].protocol
    instance = protocol.state.touch(A1)
    protocol.trigger.needed([(A1, 99)])
    due_us = protocol.trigger._due[A1][1]
    recover(cluster, 1)
    protocol.state.join(instance, 2)
    protocol.trigger.needed([(A1, 99)])
    assert protocol.trigger._due[A1][0] == 2
    assert protocol.trigger._due[A1][1] >= due_us + RETRY_US


def test_every_round_of_ballots_makes_a_replica_more_patient() -> None:
    cluster = ByHand(3)
    protocol = cluster.sites[2].protocol
    instance = protocol.state.touch(A1)
    waits = []
    for round_ in range(4):
        instance.bal = 3 * round_ + 2
        waits.append(protocol.recovery.back_off_us(A1))
    assert waits == [RETRY_US, 2 * RETRY_US, 4 * RETRY_US, 8 * RETRY_US]


def test_a_gap_that_nobody_can_fill_is_asked_about_ever_more_rarely() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.pass_on(PreAccept, target=1)
    cluster.drop()
    cluster.crash(0)
    asked = []
    for _ in range(2 * SWEEPS_TO_OPEN_END):
        cluster.wait(RETRY_US)
        ranges = [r for f in cluster.pick(CommitQuery, source=1) for r in f.message.ranges if r[:3] == (0, 1, 1)]
        asked.append(len(ranges))
        cluster.drop()
    assert 3 <= sum(asked) <= SWEEPS_TO_OPEN_END


def test_a_round_trip_that_waited_behind_a_queue_slows_nobody() -> None:
    cluster = ByHand(3)
    cluster.measure(0, *[20_000] * 3)
    cluster.measure(0, *[3_400_000] * 3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.wait(2 * RETRY_US)
    assert cluster.pick(PreAccept, source=0)


def test_a_link_that_has_become_longer_is_believed_after_a_few_measurements() -> None:
    cluster = ByHand(3)
    cluster.measure(0, *[20_000] * 3)
    for _ in range(RTT_SAMPLES):
        cluster.measure(0, *[400_000] * 3)
    cluster.wait(RETRY_US)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.wait(7 * RETRY_US)
    assert cluster.pick(PreAccept, source=0) == []


def test_what_was_put_off_for_a_long_round_trip_is_done_when_it_turns_out_to_be_short() -> None:
    cluster = ByHand(3)
    cluster.measure(0, *[3_400_000] * 3)
    cluster.wait(RETRY_US)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.wait(10 * RETRY_US)
    assert cluster.pick(PreAccept, source=0) == []
    cluster.measure(0, *[20_000] * 3)
    cluster.wait(RETRY_US)
    assert {flight.target for flight in cluster.pick(PreAccept, source=0)} == {1, 2}


def test_a_recovery_that_was_outbid_falls_silent() -> None:
    cluster = ByHand(5)
    recover(cluster, 1)
    for peer in (2, 3, 4):
        cluster.turn(1, Receive(peer=peer, message=Nack(id=A1, ballot=9)))
    cluster.wait(4 * RETRY_US)
    assert cluster.pick(Recover, source=1) == []


def test_a_coordinator_that_is_refused_waits_for_the_decision_and_asks_for_it() -> None:
    """Whoever led the higher ballot may keep the command; outbidding him would make a Nop of it (R2)."""
    cluster = ByHand(5)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.turn(0, Receive(peer=2, message=Nack(id=A1, ballot=5)))
    cluster.wait(2 * RETRY_US)
    assert cluster.pick(Recover, source=0) == []
    asked = [r for f in cluster.pick(CommitQuery, source=0) for r in f.message.ranges]
    assert any(lane == 0 and first == 1 for lane, first, _ in asked)
    cluster.wait(8 * RETRY_US)
    assert {flight.message.ballot for flight in cluster.pick(Recover, source=0)} == {6}
