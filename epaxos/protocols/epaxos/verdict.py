"""The verdicts of recovery, as functions of what was answered (protocol.md 3.2; the argument is 3.3).

Each gives (payload, dependencies) to propose, or None: the rules before it do not apply, or it must wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epaxos.command import NOP, Batch, Payload
from epaxos.ids import InstanceId, ReplicaId, Vector, covers
from epaxos.messages import RecoverOK
from epaxos.protocols.epaxos.state import Phase, State

if TYPE_CHECKING:
    from epaxos.protocols.epaxos.recover import Recovery

Verdict = tuple[Payload, Vector]


def from_evidence(state: State, id_: InstanceId, replies: dict[ReplicaId, RecoverOK]) -> Verdict | None:
    """R1 and R2. (C needs no rule: a replica that knows the decision answers with it.)"""
    voted = [reply for reply in replies.values() if reply.phase == Phase.ACC]
    if voted:  # R1: repeat the newest vote; `abal`, never the ballot just joined (S1)
        return _vote_of(max(voted, key=lambda reply: reply.abal))
    if id_.lane in replies:  # R2: the coordinator had not committed, so no fast decision exists or ever will
        return NOP, state.zero
    return None


def _vote_of(reply: RecoverOK) -> Verdict:
    payload = NOP if reply.nop else reply.payload
    assert payload is not None, f"{reply.id}: a vote without its payload"
    return payload, reply.dep


def candidate(state: State, replies: dict[ReplicaId, RecoverOK]) -> tuple[Batch, Vector, int] | None:
    """R3 (mode M): the value that may have been decided fast, and how many answers agree with it."""
    agree = [r for r in replies.values() if r.phase == Phase.PRE and r.dep == r.init_dep]
    if not agree or len(agree) < len(replies) - state.quorums.e:
        return None
    payload = agree[0].payload
    assert payload is not None, f"{agree[0].id}: pre-accepted without its payload"
    return payload, agree[0].init_dep, len(agree)


def from_competitors(state: State, id_: InstanceId, recovery: Recovery) -> Verdict | None:
    """V1 … V4 and W1 … W4: what the ids that stand against the candidate make of it."""
    assert recovery.batch is not None
    keep, give_up = (recovery.batch, recovery.dep), (NOP, state.zero)
    if not recovery.against:  # V1
        return keep
    if any(recovery.against.values()):  # V2
        return give_up
    minimal = recovery.k == len(recovery.quorum) - state.quorums.e
    if minimal and any(other.lane not in recovery.quorum for other in recovery.against):  # V3
        return give_up
    if any(_beats(state, id_, other) for other in recovery.against):  # W1, W3
        return give_up
    if all(_yields(state, id_, other) for other in recovery.against):  # W2
        return keep
    return _from_late_answers(state, id_, recovery)


def _beats(state: State, id_: InstanceId, other: InstanceId) -> bool:
    """W1: decided, not NOP, and without `id_` in its dependencies. W3: enough others pre-accepted it without `id_`."""
    instance = state.get(other)
    if instance is not None and instance.phase is Phase.COM:
        return not instance.nop and not covers(instance.dep, id_)
    fact = state.facts.get(other)
    if fact is None:
        return False
    k, dep = fact
    return not covers(dep, id_) and k > state.n - state.quorums.f - state.quorums.e


def _yields(state: State, id_: InstanceId, other: InstanceId) -> bool:
    """W2: decided as NOP, or with `id_` in its dependencies."""
    instance = state.get(other)
    return instance is not None and instance.phase is Phase.COM and (instance.nop or covers(instance.dep, id_))


def _from_late_answers(state: State, id_: InstanceId, recovery: Recovery) -> Verdict | None:
    """W4: somebody outside Q answered after all, at this ballot."""
    for peer, reply in recovery.replies.items():
        if peer in recovery.quorum:
            continue
        if reply.phase == Phase.ACC:
            return _vote_of(reply)
        if peer == id_.lane:
            return NOP, state.zero
    return None
