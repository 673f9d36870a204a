"""The commit path by hand: fast and slow path, quorums, guards, duplicates. Names give protocol.md's sections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epaxos.command import NOP
from epaxos.ids import InstanceId
from epaxos.messages import (
    Accept,
    AcceptOK,
    Commit,
    CommitQuery,
    Invalidator,
    Nack,
    PreAccept,
    PreAcceptOK,
    Recover,
    SlotRange,
    TimeoutNow,
    Validate,
    ValidateOK,
)
from epaxos.protocols.epaxos.state import Phase
from epaxos.protocols.interface import Receive
from epaxos.testing.byhand import ByHand, append, get, mset, set_

A1 = InstanceId(0, 1, 0)


def test_one_replica_is_a_cluster() -> None:
    cluster = ByHand(1)
    assert cluster.submit(0, set_("k", "v")).replies == [b"+OK\r\n"]
    assert cluster.submit(0, get("k")).replies == [b"$1\r\nv\r\n"]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 9])
def test_fast_path_needs_exactly_the_fast_quorum(n: int) -> None:
    cluster = ByHand(n)
    waiter = cluster.submit(0, set_("k", "v"))
    assert cluster.pass_on(PreAccept) == n - 1
    fast = cluster.sites[0].protocol.state.quorums.fast
    for answered, flight in enumerate(cluster.pick(PreAcceptOK), 2):
        assert not waiter.replies
        cluster.deliver(flight)
        if answered == fast:
            break
    assert waiter.replies == [b"+OK\r\n"]
    assert cluster.events(0) == ["fast_commit"]
    cluster.settle()
    assert len({tuple(state) for state in cluster.states()}) == 1


def test_2_2_a_conflict_takes_the_slow_path_as_soon_as_the_nearest_fast_quorum_disagrees() -> None:
    cluster = ByHand(3)
    first = cluster.submit(0, append("k", "a"))
    second = cluster.submit(1, append("k", "b"))
    cluster.pass_on(PreAccept, target=1)
    cluster.pass_on(PreAcceptOK, source=1, target=0)
    assert cluster.pick(Accept, source=0), "one mismatch in the fast quorum is enough"
    cluster.settle()
    assert first.replies and second.replies
    assert cluster.events(0) == ["slow_commit"]
    assert cluster.states()[0] == cluster.states()[1] == cluster.states()[2]


def test_2_2_commands_on_different_keys_do_not_see_each_other() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("a", "1"))
    cluster.submit(1, set_("b", "2"))
    cluster.submit(2, get("c"))
    cluster.settle()
    assert [cluster.events(i) for i in range(3)] == [["fast_commit"]] * 3


def test_reads_commute() -> None:
    cluster = ByHand(3)
    cluster.submit(0, get("k"))
    cluster.submit(1, get("k"))
    cluster.settle()
    assert [cluster.events(i) for i in range(2)] == [["fast_commit"]] * 2


def test_2_2_everybody_learns_a_slow_decision_from_the_votes() -> None:
    cluster = ByHand(3)
    cluster.submit(0, append("k", "a"))
    cluster.submit(1, append("k", "b"))
    cluster.pass_on(PreAccept)
    cluster.pass_on(PreAcceptOK, target=0)
    cluster.pass_on(Accept, source=0)
    cluster.pass_on(AcceptOK, source=1, target=2)
    instance = cluster.sites[2].protocol.state.live[A1]
    assert instance.phase is Phase.COM, "the proposer's Accept and one more vote are a quorum of three"


def test_2_2_seven_replicas_wait_for_the_fast_quorum_until_t_fast() -> None:
    cluster = ByHand(7)
    cluster.measure(0, *[50_000] * 7)
    waiter = cluster.submit(0, set_("k", "v"))
    for target in (1, 2, 3):
        cluster.pass_on(PreAccept, target=target)
    cluster.pass_on(PreAcceptOK)
    assert not cluster.pick(Accept), "four of seven are a slow quorum, not yet a reason to go slow"
    cluster.wait(50_000 + 12_500 + 1_000)
    assert len(cluster.pick(Accept)) == 6
    for target in (1, 2, 3):
        cluster.pass_on(Accept, target=target)
    cluster.pass_on(AcceptOK, target=0)
    assert waiter.replies == [b"+OK\r\n"] and cluster.events(0) == ["slow_commit"]


def test_2_2_t_fast_passes_also_when_the_own_record_is_the_last_of_a_slow_quorum_to_be_durable() -> None:
    """From eleven replicas on a fast quorum is larger by two: the count may step over the slow one."""
    cluster = ByHand(11)
    cluster.measure(0, *[50_000] * 11)
    cluster.hold_disk.add(0)
    cluster.submit(0, set_("k", "v"))
    for peer in range(1, 7):
        cluster.turn(0, Receive(peer=peer, message=PreAcceptOK(id=A1, dep=(0,) * 11)))
    cluster.hold_disk.remove(0)
    cluster.sync(0)
    assert not cluster.pick(Accept)
    cluster.wait(50_000 + 12_500 + 1_000)
    assert len(cluster.pick(Accept)) == 10


def test_2_2_seven_replicas_go_slow_at_once_when_fast_is_impossible() -> None:
    cluster = ByHand(7)
    cluster.submit(6, set_("k", "w"))
    for target in (1, 2, 3):
        cluster.pass_on(PreAccept, source=6, target=target)
    cluster.submit(0, set_("k", "v"))
    for target in (1, 2, 3):
        cluster.pass_on(PreAccept, source=0, target=target)
    cluster.pass_on(PreAcceptOK, target=0)
    assert len(cluster.pick(Accept, source=0)) == 6, "three mismatches are more than e = 2"


def test_1_6_a_fast_commit_is_durable_before_anyone_hears_it() -> None:
    cluster = ByHand(3)
    waiter = cluster.submit(0, set_("k", "v"))
    cluster.pass_on(PreAccept)
    cluster.hold_disk.add(0)
    cluster.pass_on(PreAcceptOK)
    cluster.turn(0, Receive(peer=1, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, 1),))))
    assert not cluster.pick(Commit) and not waiter.replies
    assert not list(cluster.sites[0].machine.save()) or cluster.sites[0].engine.applier.commands == 0
    cluster.sync(0)
    assert len(cluster.pick(Commit)) == 3 and waiter.replies == [b"+OK\r\n"]


def test_1_6_the_own_slow_vote_counts_only_once_it_is_durable() -> None:
    cluster = ByHand(3)
    cluster.submit(1, append("k", "b"))
    cluster.pass_on(PreAccept, target=2)
    waiter = cluster.submit(0, append("k", "a"))
    cluster.pass_on(PreAccept, source=0, target=2)
    cluster.hold_disk.add(0)
    cluster.pass_on(PreAcceptOK, target=0)
    assert not cluster.pick(Accept)
    cluster.sync(0)
    cluster.pass_on(Accept, source=0, target=2)
    cluster.pass_on(AcceptOK, source=2, target=0)
    assert cluster.sites[0].protocol.state.live[A1].phase is Phase.COM
    cluster.settle()
    assert waiter.replies


def test_1_5_s29_smaller_ballots_are_refused_and_decided_instances_answer_with_the_decision() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    (preaccept,) = cluster.pick(PreAccept, target=1)
    payload = preaccept.message.payload
    cluster.turn(1, Receive(peer=2, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=6)))
    cluster.turn(1, Receive(peer=0, message=Accept(id=A1, ballot=4, payload=payload, dep=(0, 0, 0))))
    assert [f.message for f in cluster.pick(Nack, source=1)] == [Nack(id=A1, ballot=6)]
    cluster.turn(1, Receive(peer=0, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=1)))
    assert len(cluster.pick(Nack, source=1)) == 2
    cluster.turn(1, Receive(peer=0, message=Commit(id=A1, payload=payload, dep=(0, 0, 0))))
    assert cluster.sites[1].engine.executor.executed().watermark == (1, 0, 0), "a Commit counts at any ballot"
    for message in (
        Accept(id=A1, ballot=7, payload=payload, dep=(0, 0, 0)),
        Recover(epoch=0, lane=0, first=1, last=1, ballot=10),
        preaccept.message,
    ):
        cluster.drop(Commit, source=1)
        cluster.turn(1, Receive(peer=0, message=message))
        assert [f.message for f in cluster.pick(Commit, source=1)] == [Commit(id=A1, payload=payload, dep=(0, 0, 0))]


def test_messages_from_whoever_may_not_send_them_are_noted_and_ignored() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    (preaccept,) = cluster.pick(PreAccept, target=1)
    cluster.turn(1, Receive(peer=2, message=preaccept.message))
    accept = Accept(id=A1, ballot=3, payload=preaccept.message.payload, dep=(0, 0, 0))
    cluster.turn(1, Receive(peer=0, message=accept))
    cluster.turn(1, Receive(peer=0, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=3)))
    cluster.turn(1, Receive(peer=0, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=0)))
    cluster.turn(1, Receive(peer=2, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=3)))
    cluster.drop()
    batch = preaccept.message.payload
    validate = Validate(id=A1, ballot=3, payload=batch, init_dep=(0, 0, 0), dep=(0, 0, 0))
    cluster.turn(1, Receive(peer=0, message=validate))
    assert cluster.events(1) == ["wrong_owner"] * 3
    assert not cluster.pick(source=1)
    cluster.turn(1, Receive(peer=0, message=TimeoutNow(term=1)))
    assert not cluster.pick(source=1), "messages of another protocol are ignored"


def test_a_message_of_another_epoch_is_noted_and_ignored() -> None:
    """Its slots have nothing to do with those of this one, which may have been executed and be in the log."""
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    (preaccept,) = cluster.pick(PreAccept, target=1)
    cluster.settle()
    later = InstanceId(1, 1, 0)
    messages = (
        replace(preaccept.message, id=later),
        CommitQuery(epoch=1, ranges=(SlotRange(0, 1, 1),)),
        ValidateOK(id=A1, ballot=3, invalid=(Invalidator(later, False),)),
    )
    for message in messages:
        cluster.turn(1, Receive(peer=0, message=message))
    assert cluster.events(1) == ["other_epoch"] * 3
    assert not cluster.pick(source=1)


def test_votes_count_per_value_not_per_ballot() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.pass_on(PreAccept, target=2)
    for peer, dep in ((0, (0, 0, 0)), (1, (0, 1, 0))):
        cluster.turn(2, Receive(peer=peer, message=AcceptOK(id=A1, ballot=0, nop=False, dep=dep)))
    assert cluster.sites[2].protocol.state.live[A1].phase is Phase.PRE


def test_votes_may_come_before_the_payload() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    for peer in (0, 1):
        cluster.turn(2, Receive(peer=peer, message=AcceptOK(id=A1, ballot=0, nop=False, dep=(0, 0, 0))))
    assert cluster.sites[2].engine.applier.commands == 0
    cluster.pass_on(PreAccept, target=2)
    assert cluster.sites[2].engine.applier.commands == 1


def test_a_short_commit_without_the_payload_waits_for_the_whole_one() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.turn(2, Receive(peer=0, message=Commit(id=A1, payload=None, dep=(0, 0, 0))))
    assert cluster.sites[2].engine.applier.commands == 0
    cluster.settle()
    assert cluster.sites[2].engine.applier.commands == 1


def test_i7_two_decisions_stop_the_replica() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.settle()
    for wrong in (Commit(id=A1, payload=NOP, dep=(0, 0, 0)), Commit(id=A1, payload=None, dep=(0, 1, 0))):
        with pytest.raises(AssertionError, match=r"agreement violated at 0\.1"):
            cluster.turn(1, Receive(peer=0, message=wrong))


def test_multi_key_commands_are_one_command() -> None:
    cluster = ByHand(3)
    first = cluster.submit(0, mset(a="1", b="1"))
    second = cluster.submit(1, mset(b="2", a="2"))
    cluster.settle()
    assert first.replies == second.replies == [b"+OK\r\n"]
    left, right = (cluster.submit(2, get(key)) for key in "ab")
    cluster.settle()
    assert left.replies == right.replies


def test_4_4_the_window_bounds_what_is_submitted_and_not_executed() -> None:
    cluster = ByHand(3, window=2)
    waiters = [cluster.submit(0, set_(f"k{i}", "v"), stream=i) for i in range(5)]
    assert len(cluster.pick(PreAccept, target=1)) == 2
    cluster.settle()
    cluster.turn(0)
    cluster.settle()
    assert all(waiter.replies for waiter in waiters)
    assert cluster.sites[0].engine.admission.credit == 2


def test_links_lose_so_everything_is_sent_again() -> None:
    cluster = ByHand(3)
    waiter = cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.wait(150_000)
    assert cluster.pass_on(PreAccept) == 2
    cluster.pass_on(PreAcceptOK, source=1)
    assert waiter.replies
    cluster.drop()
    cluster.heal()
    assert len({tuple(state) for state in cluster.states()}) == 1, "lost Commits are asked for"


def test_a_lost_accept_is_sent_again() -> None:
    cluster = ByHand(3)
    waiter = cluster.submit(0, append("k", "a"))
    cluster.submit(1, append("k", "b"))
    cluster.pass_on(PreAccept)
    cluster.pass_on(PreAcceptOK, target=0)
    assert cluster.drop(Accept, source=0) == 2
    cluster.heal()
    assert waiter.replies
    assert len({tuple(state) for state in cluster.states()}) == 1


def test_status_and_digest_tell_states_apart() -> None:
    cluster, twin = ByHand(3), ByHand(3)
    digests = [site.protocol.digest() for site in cluster.sites]
    assert digests == [site.protocol.digest() for site in twin.sites]
    cluster.submit(0, set_("k", "x"))
    assert cluster.sites[0].protocol.digest() != digests[0]
    twin.submit(0, set_("k", "x"))
    assert cluster.sites[0].protocol.digest() == twin.sites[0].protocol.digest()
    cluster.settle()
    status = cluster.sites[0].engine.status()
    assert status["executed"] == 1 and status["behind"] == 0 and status["in_flight"] == 0


def test_learning_that_an_id_does_not_conflict_sets_execution_free() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("a", "1"), stream=1)
    cluster.submit(0, set_("b", "2"), stream=2)
    cluster.wait(1_000)
    one, two = cluster.pick(PreAccept, target=2)
    vector = Commit(id=two.message.id, payload=two.message.payload, dep=(1, 0, 0))
    cluster.turn(2, Receive(peer=0, message=vector))
    assert cluster.sites[2].engine.applier.commands == 0, "nothing is known of 0.1"
    cluster.deliver(one)
    assert cluster.sites[2].engine.applier.commands == 1, "it touches another key: no need to wait for its decision"
