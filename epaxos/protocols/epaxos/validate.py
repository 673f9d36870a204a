"""Validate: may a recovery's candidate still be decided? (protocol.md 3.2, R4 and step 3)

Validating registers the command at every member of the quorum: from then on whoever submits a conflicting command
through one of them learns of it (S8). It changes neither phase nor votes (B18, S37).
"""

from __future__ import annotations

from collections.abc import Iterator

from epaxos.command import HEADER, Batch
from epaxos.ids import InstanceId, ReplicaId, Vector, ballot_owner, covers, join
from epaxos.messages import MAX_INVALID, Invalidator, Nack, Validate, ValidateOK
from epaxos.packing import conflicting
from epaxos.protocols.epaxos.state import EPOCH, Instance, Phase, State


def on_validate(state: State, peer: ReplicaId, message: Validate) -> None:
    """Answer for the ballot this replica has joined and no other; a duplicate is answered again."""
    instance = state.touch(message.id)
    if not message.ballot or ballot_owner(message.ballot, state.n) != peer:
        state.note("wrong_owner", instance, f"Validate({message.ballot}) from {peer}")
    elif instance.phase is Phase.COM:
        state.tell((peer,), instance)
    elif instance.bal != message.ballot:
        state.send((peer,), Nack(id=instance.id, ballot=instance.bal))
    else:
        answer = validate(state, instance, message.payload, message.init_dep, message.dep)
        if answer is not None:
            state.send((peer,), answer)


def validate(state: State, instance: Instance, batch: Batch, init_dep: Vector, dep: Vector) -> ValidateOK | None:
    """Find what stands against the candidate here, then register it; both before the answer leaves.

    None when there is more than an answer can hold: silence is safe, half an answer is not.
    """
    invalid = _bounded(invalidators(state, instance.id, batch, dep))
    if invalid is None:
        return None
    if instance.init_dep is None:
        instance.init_dep = init_dep
        state.know(instance, batch)
        state.index.register(instance.id, batch)
        state.save(instance)
    return ValidateOK(id=instance.id, ballot=instance.bal, invalid=invalid)


def invalidators(state: State, id_: InstanceId, batch: Batch, dep: Vector) -> Iterator[Invalidator]:
    """Registered or committed ids that conflict with `id_`, are not in its `dep`, and do not have it in theirs.

    The indexes know the last slot of each lane that may: behind it nothing is looked at, since what has been executed
    would have to be read from the disk, all of it for a command that conflicts with nothing.
    """
    last = join(state.index.conflicts(batch), state.unregistered.conflicts(batch))
    for lane in range(state.n):
        # What is before it in its own lane is in its `dep` if it conflicts: the coordinator knew all of it (2.6).
        first = id_.slot if lane == id_.lane else dep[lane]
        for slot in range(first + 1, last[lane] + 1):
            other = state.get(InstanceId(EPOCH, slot, lane))
            if other is not None and other.id != id_ and _stands_against(other, id_, batch):
                yield Invalidator(other.id, other.phase is Phase.COM)


def _stands_against(other: Instance, id_: InstanceId, batch: Batch) -> bool:
    committed = None if other.nop else other.dep
    vector = committed if other.phase is Phase.COM else other.init_dep
    if vector is None or covers(vector, id_) or other.batch is None:
        return False
    return conflicting(other.batch.data, batch.data, HEADER.size, HEADER.size)


def _bounded(found: Iterator[Invalidator]) -> tuple[Invalidator, ...] | None:
    """A committed one decides by itself (V2), so it may stand for all the others."""
    invalid: list[Invalidator] = []
    for one in found:
        if one.committed:
            return (one,)
        invalid.append(one)
    return tuple(invalid) if len(invalid) <= MAX_INVALID else None
