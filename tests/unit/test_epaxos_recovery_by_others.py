"""Recovery by somebody else: when it begins by itself, and what ends it.

Letters are replicas in lane order: A is 0. The adversarial sequences are scenario files (`tests/scenarios/epaxos`).
"""

from __future__ import annotations

from epaxos.command import NOP, Batch
from epaxos.ids import InstanceId
from epaxos.messages import (
    Commit,
    Invalidator,
    PreAccept,
    PreAcceptOK,
    Recover,
    RecoverOK,
    Validate,
    ValidateOK,
    Waiting,
)
from epaxos.protocols.epaxos.recover import Stage
from epaxos.protocols.epaxos.state import Instance
from epaxos.protocols.epaxos.validate import invalidators
from epaxos.protocols.interface import PeerDown, Receive
from epaxos.testing.byhand import RETRY_US, ByHand, append

A, B, C, D, E = range(5)
X = InstanceId(0, 1, A)
Y = InstanceId(0, 1, B)


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


def recover(cluster: ByHand, i: int, id_: InstanceId, *quorum: int) -> None:
    """`i` starts to recover `id_`; Recover and its answers pass between it and `quorum` only; the others' are lost."""
    cluster.poke(i, lambda protocol: protocol.recovery.start([protocol.state.touch(id_)]))
    for target in quorum:
        cluster.pass_on(Recover, source=i, target=target)
        cluster.pass_on(RecoverOK, source=target, target=i)
    cluster.drop(Recover, source=i)
    cluster.wait(RETRY_US // 2)


def decision(cluster: ByHand, i: int, id_: InstanceId) -> tuple[object, object] | None:
    found = cluster.sites[i].protocol.recall(id_)
    return None if found is None else ("nop" if found[0] is NOP else "value", found[1])


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


def test_s7_a_stale_quorum_is_given_up_by_itself() -> None:
    """Each of two recoveries waits for the other, with a quorum of which a member has crashed since."""
    cluster = ByHand(5)
    for i, target, value in ((A, C, "x"), (B, E, "y")):
        lead(cluster, i, value, target)
    for i, id_, quorum in ((C, X, (B, E)), (E, Y, (A, C))):
        recover(cluster, i, id_, *quorum)
        for target in quorum:
            cluster.pass_on(Validate, source=i, target=target)
            cluster.pass_on(ValidateOK, source=target, target=i)
        cluster.drop(Validate, source=i)
    waits = [cluster.sites[i].protocol.state.live[id_].recovery.stage for i, id_ in ((C, X), (E, Y))]
    assert waits == [Stage.COMPETITORS, Stage.COMPETITORS]
    cluster.crash(A)
    cluster.crash(B)
    for site in (C, D, E):
        cluster.turn(site, PeerDown(peer=A), PeerDown(peer=B))
    cluster.heal(20_000_000)
    for id_ in (X, Y):
        assert decision(cluster, C, id_) == decision(cluster, D, id_) == decision(cluster, E, id_) is not None


def test_who_falls_silent_before_validating_is_not_waited_for_for_ever() -> None:
    cluster = ByHand(5)
    lead(cluster, A, "x", C, D)
    cluster.crash(A)
    recover(cluster, D, X, C, E)
    assert cluster.pick(Validate, source=D, target=C)
    ballot = cluster.sites[D].protocol.state.live[X].bal
    cluster.crash(C)
    for _ in range(8):
        cluster.pass_on(Validate)
        cluster.pass_on(ValidateOK)
        cluster.wait(RETRY_US)
    assert cluster.sites[D].protocol.state.live[X].bal > ballot, "W5: still waiting for C"
    cluster.heal()
    assert decision(cluster, D, X) == decision(cluster, B, X) == ("value", (0,) * 5)


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


def test_validating_reads_nothing_of_what_was_executed_long_ago_and_conflicts_with_nothing_of_it() -> None:
    cluster = ByHand(5)
    for number in range(20):
        for site in range(5):
            cluster.submit(site, append(f"{site}:{number}", "x"))
    cluster.heal()
    assert cluster.sites[B].protocol.state.live == {}
    lead(cluster, A, "x", C, D)
    cluster.crash(A)
    read = [_count_loads(cluster, site) for site in (C, D, E)]
    recover(cluster, D, InstanceId(0, 21, A), C, E)
    cluster.pass_on(Validate)
    cluster.pass_on(ValidateOK)
    assert [len(ids) for ids in read] == [0, 0, 0]
    cluster.heal()
    assert decision(cluster, D, InstanceId(0, 21, A)) is not None


def test_what_was_only_ever_committed_here_is_still_found() -> None:
    """C hears nothing of the command but its decision; who validates a conflicting one there must learn of it."""
    cluster = ByHand(5)
    lead(cluster, A, "x", B, D, answers=(B, D))
    cluster.pass_on(Commit, source=A, target=C)
    cluster.drop()
    state = cluster.sites[C].protocol.state
    batch = state.get(X).batch
    assert batch is not None and state.index.conflicts(batch) == (0,) * 5
    assert list(invalidators(state, Y, batch, (0,) * 5)) == [Invalidator(X, True)]
    cluster.wait(1_000_000)
    cluster.crash(C)
    cluster.restart(C)
    again = cluster.sites[C].protocol.state
    assert list(invalidators(again, Y, batch, (0,) * 5)) == [Invalidator(X, True)]


def _count_loads(cluster: ByHand, site: int) -> list[InstanceId]:
    """Which instances a site reads from its log from now on."""
    state = cluster.sites[site].protocol.state
    ids: list[InstanceId] = []
    load = state.load

    def counted(id_: InstanceId) -> Instance | None:
        ids.append(id_)
        return load(id_)

    state.load = counted
    return ids
