"""Identities: replicas, instances and ballots, as plain values.

Nothing here has behaviour beyond arithmetic and order, so every other module may import it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ReplicaId = int
"""A member's position in `cluster.toml`, 0 … n-1. It is kept for life and never given out twice."""

Lane = int
"""The lane of an instance is the replica that coordinates it: one dense lane a member, per epoch."""

Ballot = int
"""0 is the initial ballot, owned by the instance's coordinator; see `ballot_owner` for the others."""

Vector = tuple[int, ...]
"""One slot a lane, meaning "every (conflicting) instance of that lane up to and including here"."""


MAX_SLOT: Final = (1 << 62) - 1
"""Slots are 1 … MAX_SLOT. In a vector 0 means "nothing of that lane"; as the end of a range MAX_SLOT leaves it open."""


class InstanceId(NamedTuple):
    """The name of one instance: an id is bound to at most one payload for ever.

    The fields stand in the order in which ids execute inside one strongly connected component,
    so the natural order of the tuples *is* the execution order of protocol.md 4.1: `(slot, lane)`
    within an epoch.
    """

    epoch: int
    slot: int
    lane: Lane

    def __str__(self) -> str:
        return f"{self.lane}.{self.slot}" if self.epoch == 0 else f"{self.lane}.{self.slot}@{self.epoch}"


class BatchNumber(NamedTuple):
    """Who made a batch: unique for ever, whoever decides it and in whichever instance it ends."""

    origin: ReplicaId
    incarnation: int
    number: int


def ballot_owner(ballot: Ballot, n: int) -> ReplicaId:
    """The replica that may lead `ballot` (> 0) among `n` members."""
    if ballot <= 0:
        raise ValueError(f"ballot {ballot} belongs to the coordinator of its instance, not to a recoverer")
    return (ballot - 1) % n


def next_ballot(above: Ballot, me: ReplicaId, n: int) -> Ballot:
    """The smallest ballot owned by `me` that is greater than `above`."""
    ballot = above - above % n + me + 1
    return ballot if ballot > above else ballot + n


def covers(vector: Vector, id_: InstanceId) -> bool:
    """Is `id_` in the dependencies `vector` stands for? (rule D1: the "up to here" meaning, everywhere)"""
    return vector[id_.lane] >= id_.slot


def join(a: Vector, b: Vector) -> Vector:
    """The union of two dependency vectors."""
    return a if a == b else tuple(map(max, a, b))


def zero(n: int) -> Vector:
    """The empty dependency vector for `n` lanes."""
    return (0,) * n
