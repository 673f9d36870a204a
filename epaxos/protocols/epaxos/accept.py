"""The replica's side: pre-accepting, adopting decisions, joining ballots. (Votes are in `vote`.)

Guards and duplicate answers: protocol.md 1.5. A request about a decided instance is answered with the decision,
whatever its ballot.
"""

from __future__ import annotations

from typing import Final

from epaxos.command import NOP, Payload
from epaxos.ids import InstanceId, ReplicaId, ballot_owner
from epaxos.messages import Commit, Nack, PreAccept, PreAcceptOK, Recover, RecoverOK
from epaxos.protocols.epaxos.state import Instance, Phase, State

RECOVER_MAX: Final = 1024
"""Slots that one Recover may name; a recoverer splits longer ranges."""


def on_preaccept(state: State, peer: ReplicaId, message: PreAccept) -> None:
    """Register, add the own conflicts, log, answer; a duplicate gets the stored answer (S27, S44)."""
    instance = state.touch(message.id)
    if message.id.lane != peer:
        state.note("wrong_owner", instance, f"PreAccept from {peer}")
    elif instance.phase is Phase.COM:
        state.tell((peer,), instance)
    elif instance.ack_dep is not None:
        state.send((peer,), PreAcceptOK(id=instance.id, dep=instance.ack_dep))
    elif instance.bal == 0 and instance.phase is Phase.INIT:
        instance.phase = Phase.PRE
        instance.init_dep = message.init_dep
        state.know(instance, message.payload)
        instance.dep = instance.ack_dep = state.index.preaccept(instance.id, message.payload, message.init_dep)
        state.save(instance)
        state.send((peer,), PreAcceptOK(id=instance.id, dep=instance.ack_dep))
    else:
        # S28: too late to be a vote. The payload is what the id is bound to all the same.
        state.know(instance, message.payload)
        state.send((peer,), Nack(id=instance.id, ballot=instance.bal))


def on_commit(state: State, message: Commit) -> Instance | None:
    """A decision from anybody, at any ballot. Returns the instance when it can be adopted now.

    A short Commit for a payload that is not here can only come of a peer's mistake; the next query brings it whole.
    """
    instance = state.touch(message.id)
    payload = instance.batch if message.payload is None else message.payload
    if payload is None:
        return None
    if instance.phase is Phase.COM:
        check_agreement(instance, payload, message)
        return None
    return instance


def check_agreement(instance: Instance, payload: Payload, message: Commit) -> None:
    """I7. Two decisions of one instance mean that safety is lost: stopping is all that is left."""
    same_kind = (payload is NOP) == instance.nop or message.payload is None
    if not same_kind or message.dep != instance.dep:
        here, there = (instance.payload, instance.dep), (payload, message.dep)
        raise AssertionError(f"agreement violated at {instance.id}: {here!r} here, {there!r} there")


def on_recover(state: State, peer: ReplicaId, message: Recover) -> None:
    """Join the ballot for every slot of the range, and tell what is known of it."""
    if message.ballot == 0 or ballot_owner(message.ballot, state.n) != peer:
        return
    for slot in range(message.first, min(message.last, message.first + RECOVER_MAX - 1) + 1):
        _join(state, peer, state.touch(InstanceId(message.epoch, slot, message.lane)), message.ballot)


def _join(state: State, peer: ReplicaId, instance: Instance, ballot: int) -> None:
    if instance.phase is Phase.COM:
        state.tell((peer,), instance)
    elif ballot < instance.bal:
        state.send((peer,), Nack(id=instance.id, ballot=instance.bal))
    elif ballot > instance.bal:
        state.join(instance, ballot)
        state.save(instance)
        state.send((peer,), evidence(state, instance))
    elif instance.abal != ballot:
        # A duplicate whose answer may have been lost (S44); after a vote at this ballot the answer would lie.
        state.send((peer,), evidence(state, instance))


def evidence(state: State, instance: Instance) -> RecoverOK:
    """What this replica tells a recoverer: its vote, its registration, and the ballot it joined."""
    return RecoverOK(
        id=instance.id,
        ballot=instance.bal,
        abal=instance.abal,
        phase=int(instance.phase),
        nop=instance.nop,
        payload=instance.batch,
        dep=instance.dep or state.zero,
        registered=instance.init_dep is not None,
        init_dep=instance.init_dep or state.zero,
    )
