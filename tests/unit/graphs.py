"""Batches, vectors and whole graphs for the tests of executors, small and random or large and regular."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from epaxos.command import CONT, ENTRY, HEADER, NOP, READ, RUN_HEADER, WHOLE, Batch, Footprint, Payload
from epaxos.execution.graph import PyGraphExecutor
from epaxos.ids import BatchNumber, InstanceId, Vector, zero
from epaxos.packing import footprint

NAME = BatchNumber(0, 1, 1)
SLOTS = 4
Touches = tuple[tuple[int, int], ...]
"""(key hash, flags) of each entry of one command."""

Decision = tuple[InstanceId, Batch, Vector]

TWINS: dict[str, Any] = {"pure": PyGraphExecutor}
if importlib.util.find_spec("epaxos._ext.scc"):
    TWINS["compiled"] = importlib.import_module("epaxos._ext.scc").GraphExecutor
both = pytest.mark.parametrize("twin", [pytest.param(twin, id=name) for name, twin in TWINS.items()])


def run(*commands: Touches) -> bytes:
    """A run without keys and payloads: an executor sees hashes and flags only."""
    table = [
        ENTRY.pack(0 if flags & WHOLE else hash_, 0, 0, 1, flags | (CONT if at else 0))
        for command in commands
        for at, (hash_, flags) in enumerate(command)
    ]
    return RUN_HEADER.pack(len(table), 0) + b"".join(table)


def batch(*commands: Touches) -> Batch:
    """A batch of such commands."""
    return Batch.of(NAME, run(*commands))


def write(*keys: int) -> Batch:
    """A batch of one command that writes these keys."""
    return batch(tuple((key, 0) for key in keys))


def read(*keys: int) -> Batch:
    """A batch of one command that reads these keys."""
    return batch(tuple((key, READ) for key in keys))


def component(kind: str, size: int, n: int) -> list[Decision]:
    """Ids that all reach each other. "hot": each depends on all; "ring": each on its two neighbours."""
    full, decisions = (size // n,) * n, list[Decision]()
    for at in range(size):
        id_ = id_at(at % n, at // n + 1)
        deps = (*full[: id_.lane], id_.slot - 1, *full[id_.lane + 1 :])
        decisions.append((id_, write(7) if kind == "hot" else write(at, (at + 1) % size), deps))
    return decisions


def id_at(lane: int, slot: int) -> InstanceId:
    return InstanceId(0, slot, lane)


A1, B1, C1 = id_at(0, 1), id_at(1, 1), id_at(2, 1)
A2, B2, C2 = id_at(0, 2), id_at(1, 2), id_at(2, 2)


class Scenario(NamedTuple):
    """What is decided in the end, and the order in which it becomes known."""

    n: int
    payloads: dict[InstanceId, Payload]
    deps: dict[InstanceId, Vector]
    calls: list[list[tuple[str, InstanceId]]]
    """For each call of `decide`: ("learn" or "decide", id)."""
    keys: int

    def decision(self, id_: InstanceId) -> tuple[InstanceId, Payload, Vector]:
        return id_, self.payloads[id_], self.deps[id_]


def some_touches(rng: random.Random, keys: int) -> Touches:
    """One command over few keys; one in twenty touches the whole state."""
    flags = rng.choice([0, READ]) if rng.random() < 0.95 else rng.choice([WHOLE, WHOLE | READ])
    first = (rng.randrange(keys), flags)
    return (first,) if rng.random() < 0.7 else (first, (rng.randrange(keys), rng.choice([0, READ])))


def some_batch(rng: random.Random, keys: int) -> Batch:
    return batch(*(some_touches(rng, keys) for _ in range(rng.choice([1, 1, 2, 3]))))


def some_deps(
    rng: random.Random, n: int, touches: dict[InstanceId, Footprint], cycles: float
) -> dict[InstanceId, Vector]:
    """Dependencies of the batches, such that of two in conflict at least one has the other (Visibility).

    Both have it with probability 2 * `cycles`.
    """
    deps = {id_: [0] * n for id_ in touches}
    for a, b in itertools.combinations(sorted(touches), 2):
        if touches[a].conflicts(touches[b]):
            which = rng.random()
            if which < 0.5 + cycles:
                deps[b][a.lane] = max(deps[b][a.lane], a.slot)
            if which >= 0.5 - cycles:
                deps[a][b.lane] = max(deps[a][b.lane], b.slot)
    for vector in deps.values():
        for lane in range(n):
            if rng.random() < 0.05:
                vector[lane] = max(vector[lane], rng.randrange(SLOTS + 2))
    return {id_: tuple(vector) for id_, vector in deps.items()}


def scenario(seed: int, *, whole: bool = False) -> Scenario:
    """A scenario of that seed; when `whole`, everything gets decided and nothing depends on what never comes."""
    rng = random.Random(seed)
    n, slots, keys = rng.choice([1, 2, 3, 5]), rng.randint(1, SLOTS), rng.choice([1, 2, 4, 8])
    ids = [id_at(lane, slot) for lane in range(n) for slot in range(1, slots + 1)]
    batches = {id_: some_batch(rng, keys) for id_ in ids if rng.random() < 0.9}
    touches = {id_: footprint(payload.data, HEADER.size) for id_, payload in batches.items()}
    deps = some_deps(rng, n, touches, rng.choice([0.0, 0.05, 0.2]))
    if whole:
        deps = {id_: tuple(min(slot, slots) for slot in vector) for id_, vector in deps.items()}
    events: list[tuple[float, str, InstanceId]] = []
    for id_ in ids:
        if not whole and rng.random() < 0.04:
            continue
        at = rng.random()
        if id_ in batches and rng.random() < 0.6:
            events.append((at, "learn", id_))
            at += rng.random() * (1 - at)
        if whole or rng.random() < 0.95:
            events.append((at, "decide", id_))
    order = [(kind, id_) for _, kind, id_ in sorted(events)]
    calls: list[list[tuple[str, InstanceId]]] = []
    sizes = rng.choice([(1, 1, 2, 4), (len(order),)])
    while order:
        size = rng.choice(sizes)
        calls.append(order[:size])
        order = order[size:]
    payloads: dict[InstanceId, Payload] = {id_: batches.get(id_, NOP) for id_ in ids}
    return Scenario(n, payloads, {id_: deps.get(id_, zero(n)) for id_ in ids}, calls, keys)


def chain(kind: str, length: int, n: int) -> list[Decision]:
    """Ids in a row, each after all before it. "hot": on one key; "links": each shares one key with the next only."""
    decisions, seen = list[Decision](), [0] * n
    for at in range(length):
        id_ = id_at(at % n, at // n + 1)
        decisions.append((id_, write(7) if kind == "hot" else write(at, at + 1), tuple(seen)))
        seen[id_.lane] = id_.slot
    return decisions


def arranged(arrival: str, decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions "forward", "backward" or "shuffled"."""
    order = list(decisions)
    if arrival == "backward":
        order.reverse()
    elif arrival == "shuffled":
        random.Random(1).shuffle(order)
    return order
