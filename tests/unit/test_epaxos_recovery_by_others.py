"""The adversarial sequences of protocol.md 7.3 that end in a recovery by somebody else, step by step.

Letters are replicas in lane order: A is 0. All commands conflict unless said otherwise.
"""

from __future__ import annotations

from epaxos.command import NOP, Batch
from epaxos.ids import InstanceId
from epaxos.messages import (
    Accept,
    AcceptOK,
    Commit,
    PreAccept,
    PreAcceptOK,
    Recover,
    RecoverOK,
    Validate,
    ValidateOK,
    Waiting,
)
from epaxos.protocols.epaxos.recover import Stage
from epaxos.protocols.epaxos.state import Phase
from epaxos.protocols.interface import PeerDown, Receive
from epaxos.testing.byhand import RETRY_US, ByHand, append, set_

A, B, C, D, E, F, G = range(7)
X = InstanceId(0, 1, A)
Y = InstanceId(0, 1, B)
NONE = (0, 0, 0, 0, 0)


def lead(cluster: ByHand, i: int, value: str, *reach: int, answers: tuple[int, ...] = ()) -> None:
    """`i` submits; its PreAccept reaches some replicas, and the answers of some of these reach it."""
    cluster.submit(i, append("k", value))
    cluster.wait(1_000)
    for target in reach:
        cluster.pass_on(PreAccept, source=i, target=target)
        if target in answers:
            cluster.pass_on(PreAcceptOK, source=target, target=i)
    cluster.drop(PreAccept, source=i)
    cluster.drop(PreAcceptOK, target=i)


def recover(cluster: ByHand, i: int, id_: InstanceId, *quorum: int, lose: bool = True) -> None:
    """`i` starts to recover `id_`; Recover and its answers pass between it and `quorum` only. The others' are lost,
    or still under way."""
    cluster.poke(i, lambda protocol: protocol.recovery.start([protocol.state.touch(id_)]))
    for target in quorum:
        cluster.pass_on(Recover, source=i, target=target)
        cluster.pass_on(RecoverOK, source=target, target=i)
    if lose:
        cluster.drop(Recover, source=i)
    cluster.wait(RETRY_US // 2)


def validate(cluster: ByHand, i: int, *quorum: int) -> None:
    for target in quorum:
        cluster.pass_on(Validate, source=i, target=target)
        cluster.pass_on(ValidateOK, source=target, target=i)
    cluster.drop(Validate, source=i)


def vote(cluster: ByHand, i: int, *voters: int) -> None:
    for target in voters:
        cluster.pass_on(Accept, source=i, target=target)
        cluster.pass_on(AcceptOK, source=target, target=i)
    cluster.drop(Accept, source=i)
    cluster.drop(AcceptOK)


def decision(cluster: ByHand, i: int, id_: InstanceId) -> tuple[object, object] | None:
    found = cluster.sites[i].protocol.recall(id_)
    return None if found is None else ("nop" if found[0] is NOP else "value", found[1])


def stage(cluster: ByHand, i: int, id_: InstanceId) -> Stage:
    recovery = cluster.sites[i].protocol.state.live[id_].recovery
    assert recovery is not None
    found = recovery.stage
    assert isinstance(found, Stage)
    return found


def test_s1_the_newest_vote_counts_not_the_newest_ballot() -> None:
    cluster = ByHand(5)
    cluster.submit(B, append("k", "w"))
    for target in (C, D, E):
        cluster.pass_on(PreAccept, source=B, target=target)
    cluster.submit(A, append("k", "x"))
    cluster.wait(1_000)
    cluster.pass_on(PreAccept, source=A, target=B)
    cluster.pass_on(PreAccept, source=A, target=C)
    for source in (B, C):
        cluster.pass_on(PreAcceptOK, source=source, target=A)
    cluster.pass_on(Accept, source=A, target=C)
    w = (0, 1, 0, 0, 0)
    cluster.drop()
    recover(cluster, D, X, B, E)
    vote(cluster, D)
    assert cluster.sites[D].protocol.state.live[X].nop, "no candidate: D proposes Nop, and only D accepts it"
    recover(cluster, E, X, B, C)
    accepted = [f.message for f in cluster.pick(Accept, source=E)]
    assert {(m.ballot, m.dep) for m in accepted} == {(5, w)}
    vote(cluster, E, B, C)
    assert decision(cluster, E, X) == ("value", w)
    cluster.drop()
    recover(cluster, D, X, B, C)
    assert {m.message.dep for m in cluster.pick(Accept, source=D)} == {w}


def test_s2_a_fast_commit_survives_its_coordinator_and_one_more() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", B, C, answers=(B, C))
    assert cluster.events(A) == ["fast_commit"]
    cluster.drop()
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    vote(cluster, D, C, E)
    assert decision(cluster, D, X) == ("value", NONE)


def test_s3_mutual_recovery_does_not_wait_for_ever() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C)
    lead(cluster, B, "y", E)
    cluster.crash(A)
    cluster.crash(B)
    cluster.drop()
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    vote(cluster, D, C, E)
    assert decision(cluster, D, X) == ("nop", NONE), "V3: B, outside Q, may have ordered y first"
    recover(cluster, C, Y, D, E)
    validate(cluster, C, D, E)
    vote(cluster, C, D, E)
    assert decision(cluster, C, Y) is not None


def test_s4_the_same_with_seven() -> None:
    cluster = ByHand(7)
    lead(cluster, A, "x", D, E)
    lead(cluster, B, "y", F, G)
    cluster.drop()
    for id_, recoverer in ((X, D), (Y, F)):
        others = [i for i in (D, E, F, G) if i != recoverer]
        recover(cluster, recoverer, id_, *others)
        validate(cluster, recoverer, *others)
        vote(cluster, recoverer, *others)
        assert decision(cluster, recoverer, id_) == ("nop", (0,) * 7)


def two_waiting(cluster: ByHand) -> None:
    """S5: x at C and D, y at E; E waits on x with k = 1."""
    lead(cluster, A, "x", C, D)
    lead(cluster, B, "y", E)
    cluster.drop()
    recover(cluster, E, Y, A, C)
    validate(cluster, E, A, C)
    assert stage(cluster, E, Y) is Stage.COMPETITORS


def test_s5_w3_ends_a_wait_on_somebody_who_has_more_evidence() -> None:
    cluster = ByHand(5)
    two_waiting(cluster)
    cluster.drop(Waiting)
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    assert stage(cluster, D, X) is Stage.COMPETITORS
    assert [f.message.k for f in cluster.pick(Waiting, source=D, target=E)] == [2]
    cluster.pass_on(Waiting, source=D, target=E)
    vote(cluster, E, C, D)
    assert decision(cluster, E, Y) == ("nop", NONE)
    cluster.pass_on(Commit, source=E, target=D)
    vote(cluster, D, C, E)
    assert decision(cluster, D, X) == ("value", NONE)


def test_s6_w3_needs_more_than_the_threshold() -> None:
    cluster = ByHand(5)
    two_waiting(cluster)
    waiting = cluster.pick(Waiting, source=E, target=D)
    assert [f.message.k for f in waiting] == [1]
    cluster.drop()
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    for flight in waiting:
        cluster.turn(D, Receive(peer=E, message=flight.message))
    assert stage(cluster, D, X) is Stage.COMPETITORS, "one is not more than n - f - e = 1"


def test_s7_a_stale_quorum_is_given_up_after_a_while() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C)
    lead(cluster, B, "y", E)
    cluster.drop()
    recover(cluster, C, X, B, E)
    validate(cluster, C, B, E)
    recover(cluster, E, Y, A, C)
    validate(cluster, E, A, C)
    assert stage(cluster, C, X) is stage(cluster, E, Y) is Stage.COMPETITORS
    cluster.crash(A)
    cluster.crash(B)
    ballot = cluster.sites[C].protocol.state.live[X].bal
    for site in (C, D, E):
        cluster.turn(site, PeerDown(peer=A), PeerDown(peer=B))
    for _ in range(200):
        cluster.settle()
        cluster.wait(RETRY_US)
    assert cluster.sites[C].protocol.state.executed.low[:2] == [1, 1]
    assert decision(cluster, C, X) == decision(cluster, D, X) == decision(cluster, E, X)
    assert ballot > 0


def test_s8_validate_registers() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", E)
    cluster.drop()
    recover(cluster, E, X, B, C)
    validate(cluster, E, B, C)
    assert cluster.sites[B].protocol.state.live[X].phase is Phase.INIT
    lead(cluster, B, "y", C, D)
    assert cluster.sites[B].protocol.state.live[Y].init_dep == (1, 0, 0, 0, 0)
    vote(cluster, E, B, C)
    assert decision(cluster, E, X) == ("value", NONE)


def test_s10_late_answers_of_the_coordinator_end_a_wait() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C, D)
    lead(cluster, B, "y", E)
    cluster.drop()
    recover(cluster, D, X, C, E, lose=False)
    late = cluster.pick(Recover, source=D, target=A)
    validate(cluster, D, C, E)
    assert stage(cluster, D, X) is Stage.COMPETITORS
    cluster.deliver(late[0])
    cluster.pass_on(RecoverOK, source=A, target=D)
    assert cluster.sites[D].protocol.state.live[X].nop, "W4: it had not committed, so it never will"


def test_s10_variant_the_coordinator_had_committed() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C, D, answers=(C, D))
    cluster.drop()
    lead(cluster, B, "y", E)
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    cluster.turn(A, Receive(peer=D, message=Recover(epoch=0, lane=A, first=1, last=1, ballot=4)))
    cluster.pass_on(Commit, source=A, target=D)
    assert decision(cluster, D, X) == ("value", NONE)


def test_s11_a_competitor_that_yields_ends_the_wait() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C, D)
    cluster.submit(B, append("k", "y"))
    for target in (E, A):
        cluster.pass_on(PreAccept, source=B, target=target)
    recover(cluster, D, X, C, E)
    validate(cluster, D, C, E)
    assert stage(cluster, D, X) is Stage.COMPETITORS
    for source in (A, E):
        cluster.pass_on(PreAcceptOK, source=source, target=B)
    vote(cluster, B, C, E)
    assert decision(cluster, B, Y) == ("value", (1, 0, 0, 0, 0))
    cluster.pass_on(Commit, source=B, target=D)
    vote(cluster, D, C, E)
    assert decision(cluster, D, X) == ("value", NONE)


def test_s14_evidence_is_not_hidden_by_an_earlier_recovery() -> None:
    cluster = ByHand(7)
    lead(cluster, A, "x", B, C, D, E, answers=(B, C, D, E))
    assert cluster.events(A) == ["fast_commit"]
    cluster.drop()
    recover(cluster, F, X, D, E, G)
    validate(cluster, F, D, E)
    cluster.drop()
    recover(cluster, G, X, D, E, F)
    validate(cluster, G, D, E, F)
    vote(cluster, G, D, E, F)
    assert decision(cluster, G, X) == ("value", (0,) * 7)


def test_s37_a_duplicate_validate_does_not_touch_a_vote() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C)
    lead(cluster, B, "y", E)
    cluster.drop()
    recover(cluster, D, X, C, E)
    (duplicate,) = cluster.pick(Validate, target=C)
    validate(cluster, D, C, E)
    vote(cluster, D, C)
    cluster.turn(C, Receive(peer=D, message=duplicate.message))
    cluster.drop()
    recover(cluster, E, X, B, C)
    votes = [f.message for f in cluster.pick(Accept, source=E)]
    assert votes and all(m.payload is NOP for m in votes)


def test_s44_a_duplicate_validate_is_answered_again() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C)
    cluster.drop()
    recover(cluster, D, X, C, E)
    (flight,) = cluster.pick(Validate, target=E)
    cluster.deliver(flight, again=True)
    cluster.deliver(flight)
    first, second = (f.message for f in cluster.pick(ValidateOK, source=E))
    assert first == second
    cluster.wait(2 * RETRY_US)
    assert cluster.pick(Validate, target=C), "what was not answered is asked again"


def test_s45_a_nop_stays_in_every_later_answer() -> None:
    cluster = ByHand(5)
    lead(cluster, B, "y", E)
    cluster.crash(B)
    cluster.restart(B)
    cluster.drop(Recover, target=E)
    for peer in (A, C, D):
        cluster.pass_on(Recover, source=B, target=peer)
        cluster.pass_on(RecoverOK, source=peer, target=B)
        cluster.pass_on(Accept, source=B, target=peer)
        cluster.pass_on(AcceptOK, source=peer, target=B)
    cluster.drop()
    assert decision(cluster, B, Y) == ("nop", NONE)
    cluster.submit(A, append("k", "x"))
    cluster.pass_on(PreAccept, source=A, target=B)
    (answer,) = cluster.pick(PreAcceptOK, source=B)
    assert answer.message.dep == (0, 1, 0, 0, 0)


def test_a_never_seen_slot_becomes_a_nop() -> None:
    """S19: nothing is known of an id under a committed vector, and its coordinator is gone."""
    cluster = ByHand(3)
    cluster.submit(B, set_("k", "lost"))
    (lost,) = cluster.pick(PreAccept, source=B, target=A)
    cluster.drop()
    cluster.submit(B, set_("other", "v"), stream=2)
    cluster.pass_on(PreAccept, source=B, target=A)
    cluster.pass_on(PreAcceptOK, source=A, target=B)
    cluster.drop(target=C)
    cluster.pass_on(Commit, source=B, target=A)
    cluster.crash(B)
    for site in (A, C):
        cluster.turn(site, PeerDown(peer=B))
    waiter = cluster.submit(A, set_("other", "w"))
    cluster.heal(10_000_000)
    assert waiter.replies
    assert decision(cluster, A, Y) == ("nop", (0, 0, 0))
    cluster.turn(A, Receive(peer=B, message=lost.message))
    (answer,) = cluster.pick(Commit, source=A, target=B)
    assert answer.message.payload is NOP


def test_an_unfinished_command_of_a_dead_coordinator_is_finished_by_others() -> None:
    cluster = ByHand(5)
    cluster.submit(A, append("k", "x"))
    cluster.pass_on(PreAccept)
    cluster.crash(A)
    cluster.drop(target=A)
    for site in (B, C, D, E):
        cluster.turn(site, PeerDown(peer=A))
    waiter = cluster.submit(B, append("k", "y"))
    cluster.heal(5_000_000)
    assert waiter.replies
    assert len({tuple(state) for state in cluster.states()[1:]}) == 1
    assert isinstance((cluster.sites[B].protocol.recall(X) or (None,))[0], Batch), "everybody had pre-accepted it"
    cluster.restart(A)
    cluster.heal()
    assert len({tuple(state) for state in cluster.states()}) == 1


def test_a_live_coordinator_is_asked_before_its_command_is_given_up() -> None:
    cluster = ByHand(3)
    cluster.submit(A, append("k", "x"))
    cluster.pass_on(PreAccept, target=B)
    cluster.pass_on(PreAcceptOK, target=A)
    cluster.drop()
    waiter = cluster.submit(B, append("k", "y"))
    cluster.heal()
    assert waiter.replies
    assert all(site.protocol.recovery.started == 0 for site in cluster.sites)


def test_a_member_of_the_quorum_that_has_committed_ends_the_recovery() -> None:
    cluster = ByHand(3)
    lead(cluster, A, "x", B, answers=(B,))
    cluster.pass_on(Commit, target=B)
    cluster.drop()
    recover(cluster, C, X, B)
    cluster.pass_on(Commit, source=B, target=C)
    assert decision(cluster, C, X) == ("value", (0, 0, 0))
    late = RecoverOK(
        id=X, ballot=3, abal=0, phase=0, nop=False, payload=None, dep=(0, 0, 0), registered=False, init_dep=(0, 0, 0)
    )
    cluster.turn(C, Receive(peer=B, message=late))
    cluster.turn(C, Receive(peer=B, message=ValidateOK(id=X, ballot=3, invalid=())))
    cluster.turn(C, Receive(peer=A, message=Waiting(id=X, k=1, dep=(0, 0, 0))))
    assert not cluster.sites[C].protocol.state.facts
