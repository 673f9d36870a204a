"""Whole states as values: a copy that goes its own way, and a digest of what decides the future.

Both are for explorations (the simulator's traces, the model): a state is copied before each of the events that may
come next, and two states with equal digests are one. So the digest leaves out what no rule looks at any more (the
ballots of a decided instance, the acks of a ballot-0 role that has ended, the answers a recovery has read), and what
only paces or shortens messages (times, counters, how often something was asked for, who holds a payload).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from epaxos.messages import RecoverOK
from epaxos.protocols.epaxos.lead import Lead, Leading
from epaxos.protocols.epaxos.query import Query
from epaxos.protocols.epaxos.recover import Recoverer, Recovery, Stage
from epaxos.protocols.epaxos.state import Instance, Phase, State
from epaxos.protocols.epaxos.trigger import Trigger

# ------------------------------------------------------------------------------------------------------------- copies


def copy_state(origin: State, twin: State) -> None:
    """Make the fresh `twin` the same as `origin`, between two steps."""
    twin.index, twin.unregistered = origin.index.copy(), origin.unregistered.copy()
    twin.live = {id_: _copy_instance(instance) for id_, instance in origin.live.items()}
    twin.decided, twin.executed = origin.decided.copy(), origin.executed.copy()
    twin.highest, twin.rtt_us, twin.rtts_us = origin.highest[:], origin.rtt_us[:], [s.copy() for s in origin.rtts_us]
    twin.suspected, twin.facts, twin.due = origin.suspected.copy(), origin.facts.copy(), origin.due.copy()
    twin.gone = origin.gone.copy()
    twin.mark, twin.durable, twin.now = origin.mark, origin.durable, origin.now
    twin.evictable = origin.evictable[:]


Roles = tuple[Lead, Query, Recoverer, Trigger]


def copy_roles(origins: Roles, twins: Roles) -> None:
    """The same for the roles; what they share with each other they already have."""
    for origin, twin in zip(origins, twins, strict=True):
        for name, value in vars(origin).items():
            if name not in ("state", "recoverer"):
                setattr(twin, name, value.copy() if hasattr(value, "copy") else value)


def _copy_instance(origin: Instance) -> Instance:
    twin = Instance(origin.id)
    for name in Instance.__slots__:
        setattr(twin, name, getattr(origin, name))
    twin.votes = {value: voters.copy() for value, voters in origin.votes.items()}
    leading: Leading | None = origin.lead
    if leading is not None:
        twin.lead = replace(leading, acks=leading.acks.copy(), holders=leading.holders.copy())
    recovery: Recovery | None = origin.recovery
    if recovery is not None:
        twin.recovery = replace(
            recovery,
            replies=recovery.replies.copy(),
            validated=recovery.validated.copy(),
            against=recovery.against.copy(),
        )
    return twin


# ------------------------------------------------------------------------------------------------------------ digests


def digest(state: State, lead: Lead, recovery: Recoverer) -> bytes:
    """A hash that is equal for states that answer every event alike, but for its times."""
    whole = (
        [_instance(state.live[id_]) for id_ in sorted(state.live)],
        state.executed.state(),
        state.highest,
        sorted(state.suspected),
        sorted(state.facts.items()),
        [(mark - state.durable, id_, own.name, ballot) for mark, id_, own, ballot in state.due],
        lead.next_slot,
        lead.proposed_again(),
        sorted(recovery.outbid.items()),
    )
    return hashlib.blake2b(repr(whole).encode(), digest_size=16).digest()


def _instance(instance: Instance) -> tuple[object, ...]:
    batch = None if instance.batch is None else instance.batch.data
    registered = instance.init_dep is not None
    if instance.phase is Phase.COM:
        return tuple(instance.id), instance.nop, instance.dep, batch, registered, instance.executed
    votes = sorted((value, sorted(voters)) for value, voters in instance.votes.items())
    roles = (_leading(instance.lead), _recovery(instance.recovery))
    return tuple(instance.id), *instance.durable_state(), batch, instance.learned, instance.stored_batch, votes, roles


def _leading(leading: Leading | None) -> tuple[object, ...] | None:
    if leading is None:
        return None
    return (sorted(leading.acks.items()), leading.hurry) if leading.lead0 else ()


def _recovery(recovery: Recovery | None) -> tuple[object, ...] | None:
    if recovery is None:
        return None
    read = recovery.quorum if recovery.stage is not Stage.EVIDENCE else frozenset()
    replies = sorted((peer, _reply(reply)) for peer, reply in recovery.replies.items() if peer not in read)
    seen = (recovery.ballot, recovery.stage.name)
    match recovery.stage:
        case Stage.EVIDENCE:
            return *seen, recovery.patient, replies
        case Stage.VALIDATION:
            validated = sorted((peer, answer.invalid) for peer, answer in recovery.validated.items())
            return *seen, sorted(read), recovery.k, recovery.dep, replies, validated
        case Stage.COMPETITORS:
            return *seen, sorted(read), recovery.k, recovery.dep, replies, sorted(recovery.against.items())
        case Stage.VOTES:
            return seen


def _reply(reply: RecoverOK) -> tuple[object, ...]:
    return reply.phase, reply.abal, reply.nop, reply.dep, reply.registered, reply.init_dep
