"""Accept and its votes: one Paxos instance, learned by everybody (protocol.md 2.2, and 1.5 for the guards).

Used by the coordinator's slow path (ballot 0) and by recoveries (ballots above), which differ only in how they came
by the value.
"""

from __future__ import annotations

from epaxos.command import NOP, Batch, Payload
from epaxos.ids import Ballot, ReplicaId, Vector, ballot_owner
from epaxos.messages import Accept, AcceptOK, Nack
from epaxos.protocols.epaxos.state import Instance, Own, Phase, State


def owner(instance: Instance, ballot: Ballot, n: int) -> ReplicaId:
    """Who may propose at `ballot`: the coordinator at 0."""
    return ballot_owner(ballot, n) if ballot else instance.id.lane


def propose(state: State, instance: Instance, ballot: Ballot, payload: Payload, dep: Vector) -> None:
    """Vote for the own proposal and ask everybody to; Accept leaves once the own vote is durable."""
    _vote(state, instance, ballot, payload, dep)
    state.send(state.others, Accept(id=instance.id, ballot=ballot, payload=payload, dep=dep))


def ask_again(state: State, instance: Instance, peers: tuple[ReplicaId, ...]) -> None:
    """Send the own proposal again to those of `peers` whose vote for it is not known."""
    voted: set[ReplicaId] = instance.votes.get((instance.abal, instance.nop, instance.dep), set())
    payload = instance.payload
    assert payload is not None
    message = Accept(id=instance.id, ballot=instance.abal, payload=payload, dep=instance.dep)
    state.send(tuple(p for p in peers if p not in voted), message, after=instance.mark)


def _vote(state: State, instance: Instance, ballot: Ballot, payload: Payload, dep: Vector) -> None:
    state.join(instance, ballot)
    instance.phase = Phase.ACC
    instance.abal = ballot
    instance.nop = payload is NOP
    instance.dep = dep
    if isinstance(payload, Batch):
        state.know(instance, payload)
    mark = state.save(instance)
    state.due.append((mark, instance.id, Own.VOTE, ballot))


def on_accept(state: State, peer: ReplicaId, message: Accept) -> Instance | None:
    """Guards of 1.5. Returns the instance when there may be something to decide."""
    instance = state.touch(message.id)
    if owner(instance, message.ballot, state.n) != peer:
        state.note("wrong_owner", instance, f"Accept({message.ballot}) from {peer}")
        return None
    if instance.phase is Phase.COM:
        state.tell((peer,), instance)
        return None
    if message.ballot < instance.bal:
        state.send((peer,), Nack(id=instance.id, ballot=instance.bal))
        return None
    if instance.phase is Phase.ACC and instance.abal == message.ballot:
        state.send(state.others, _vote_message(instance))
    else:
        _vote(state, instance, message.ballot, message.payload, message.dep)
        state.send(state.others, _vote_message(instance))
    # The proposer logged its own vote before the Accept left, so the Accept is that vote.
    _count(instance, message.ballot, message.payload is NOP, message.dep, peer)
    return instance


def _vote_message(instance: Instance) -> AcceptOK:
    return AcceptOK(id=instance.id, ballot=instance.abal, nop=instance.nop, dep=instance.dep)


def on_accept_ok(state: State, peer: ReplicaId, message: AcceptOK) -> Instance | None:
    """A vote of somebody else's, counted here as well: everybody learns the decision one hop earlier."""
    if message.id in state.decided:
        return None
    instance = state.touch(message.id)
    if instance.lead is not None and not message.nop:
        instance.lead.holders.add(peer)  # a vote for a NOP says nothing of the payload
    _count(instance, message.ballot, message.nop, message.dep, peer)
    return instance


def _count(instance: Instance, ballot: Ballot, nop: bool, dep: Vector, voter: ReplicaId) -> None:
    """Per (ballot, value), never per ballot alone."""
    instance.votes.setdefault((ballot, nop, dep), set()).add(voter)


def own_vote_durable(state: State, instance: Instance, ballot: Ballot) -> None:
    """The own vote counts from now on, if it is still the latest (an older one was superseded, not withdrawn)."""
    if instance.phase is Phase.ACC and instance.abal == ballot:
        _count(instance, ballot, instance.nop, instance.dep, state.me)


def chosen(state: State, instance: Instance) -> tuple[Payload, Vector] | None:
    """The value that a slow quorum voted for, when its payload is at hand."""
    if instance.phase is Phase.COM:
        return None
    for (_, nop, dep), voters in instance.votes.items():
        if len(voters) >= state.quorums.slow:
            payload = NOP if nop else instance.batch
            return None if payload is None else (payload, dep)
    return None
