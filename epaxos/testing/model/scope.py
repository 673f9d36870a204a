"""Scopes: small worlds, by name. What each bounds is all that bounds the exploration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Final

from epaxos.command import HEADER, Batch, Entry
from epaxos.ids import BatchNumber, InstanceId, ReplicaId
from epaxos.machines.kv import Op
from epaxos.packing import conflicting, encode_run

_SECRET: Final = bytes(16)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How many replicas, which commands where, and how much may happen to them."""

    name: str
    story: str
    commands: tuple[tuple[ReplicaId, str], ...]
    """(coordinator, the key it writes), each submitted once and in this order on a lane."""
    n: int = 3
    recoveries: int = 0
    """Recoveries begun by a timing, in all; those that a restart begins are not counted."""
    restarts: int = 0
    """Crashes with a restart, in all. A crash without one is a replica to which nothing happens any more."""
    slow_disk: bool = False
    """Each save reaches the disk by an event of its own; otherwise urgent ones do within the step."""
    depth: int | None = None
    """Look no further than this many events from the beginning."""

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """The payload of each command."""
        return tuple(
            Batch.of(
                BatchNumber(lane, 1, number),
                encode_run(_SECRET, [(Entry(Op.APPEND, 0, key.encode(), b"%d" % number),)]),
            )
            for number, (lane, key) in enumerate(self.commands, 1)
        )

    @cached_property
    def lanes(self) -> tuple[tuple[Batch, ...], ...]:
        """What each replica submits, in order."""
        submits: list[list[Batch]] = [[] for _ in range(self.n)]
        for (lane, _), batch in zip(self.commands, self.batches, strict=True):
            submits[lane].append(batch)
        return tuple(map(tuple, submits))

    @cached_property
    def conflicts(self) -> frozenset[tuple[bytes, bytes]]:
        """The payloads that conflict, in both orders."""
        pairs = [(a.data, b.data) for a, b in combinations(self.batches, 2)]
        found = {(a, b) for a, b in pairs if conflicting(a, b, HEADER.size, HEADER.size)}
        return frozenset(found | {(b, a) for a, b in found})


def slots(lane: ReplicaId, count: int) -> list[InstanceId]:
    """The first ids of a lane."""
    return [InstanceId(0, slot, lane) for slot in range(1, count + 1)]


_TWO: Final = ((0, "k"), (1, "k"))
_SAME: Final = ((0, "k"), (0, "k"))
_PAIR: Final = ((0, "k"), (1, "k"), (2, "other"))

_ALL: Final = (
    Scope(name="commit", story="two conflicting commands in two lanes, nothing fails", commands=_TWO),
    Scope(name="one", story="one command, two recoveries", commands=((0, "k"),), recoveries=2),
    Scope(name="recovery", story="two conflicting commands in two lanes, one recovery", commands=_TWO, recoveries=1),
    Scope(name="same-lane", story="two conflicting commands in one lane, one recovery", commands=_SAME, recoveries=1),
    Scope(
        name="restart",
        story="two conflicting commands in two lanes, one crash with a restart",
        commands=_TWO,
        restarts=1,
    ),
    Scope(
        name="same-lane-restart",
        story="two conflicting commands in one lane, one crash with a restart",
        commands=_SAME,
        restarts=1,
    ),
    Scope(
        name="recovery-restart",
        story="two conflicting commands in two lanes, one recovery and one crash with a restart",
        commands=_TWO,
        recoveries=1,
        restarts=1,
    ),
    Scope(name="three", story="three commands in three lanes, one pair of them conflicting", commands=_PAIR),
    Scope(
        name="three-recovery",
        story="three commands in three lanes, one pair of them conflicting, one recovery",
        commands=_PAIR,
        recoveries=1,
    ),
    Scope(
        name="slow-disk",
        story="two conflicting commands in two lanes, one crash with a restart, and a disk that takes its time",
        commands=_TWO,
        restarts=1,
        slow_disk=True,
        depth=14,
    ),
    Scope(name="deep", story="two conflicting commands in two lanes, two recoveries", commands=_TWO, recoveries=2),
)

SCOPES: Final[Mapping[str, Scope]] = {scope.name: scope for scope in _ALL}
"""By name, the smaller ones first."""
