"""The order of execution by its definition (protocol.md 2.5 and 4.1), slow and plain: what executors must equal.

Nothing here is incremental and nothing is shared with an executor but the format of batches.
"""

from __future__ import annotations

from collections.abc import Iterable

from epaxos.command import HEADER, Batch, Footprint, Nop, Payload
from epaxos.ids import InstanceId, Vector, covers
from epaxos.packing import count_commands, cut_run, footprint


class Oracle:
    """What is known and decided, and what follows from it. Ids are of epoch 0."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.known: dict[InstanceId, Footprint] = {}
        self.decided: dict[InstanceId, Vector | None] = {}
        """Dependencies; None for a NOP."""

    def learn(self, id_: InstanceId, batch: Batch) -> None:
        """Know what `id_` touches."""
        self.known[id_] = footprint(batch.data, HEADER.size)

    def decide(self, id_: InstanceId, payload: Payload, deps: Vector) -> None:
        """Take a decision."""
        if isinstance(payload, Nop):
            self.decided[id_] = None
        else:
            self.learn(id_, payload)
            self.decided[id_] = deps

    def conflict(self, a: InstanceId, b: InstanceId) -> bool:
        """Do two decided or known ids conflict? A NOP with nothing."""
        nops = {id_ for id_ in (a, b) if self.decided.get(id_, ()) is None}
        return not nops and self.known[a].conflicts(self.known[b])

    def edges(self, id_: InstanceId) -> set[InstanceId]:
        """The decided ids that must not come after `id_` (rule D4)."""
        deps = self.decided[id_]
        if deps is None:
            return set()
        return {other for other in self.decided if covers(deps, other) and self.conflict(id_, other)}

    def blockers(self, id_: InstanceId) -> set[InstanceId]:
        """What a decided id waits for itself."""
        deps = self.decided[id_]
        if deps is None:
            return set()
        found = set()
        for lane, last in enumerate(deps):
            for slot in range(1, last + 1):
                other = InstanceId(0, slot, lane)
                if other in self.decided:
                    continue
                if other not in self.known or self.conflict(id_, other):
                    found.add(other)
        return found

    def executable(self) -> set[InstanceId]:
        """All that may have executed: the largest set of decided ids, none blocked, that contains its edges."""
        inside = {id_ for id_ in self.decided if not self.blockers(id_)}
        edges = {id_: self.edges(id_) for id_ in inside}
        while out := {id_ for id_ in inside if not edges[id_] <= inside}:
            inside -= out
        return inside

    def groups(self) -> set[tuple[InstanceId, ...]]:
        """The strongly connected components of what may have executed, each in the order inside it."""
        inside = self.executable()
        edges = {id_: self.edges(id_) for id_ in inside}
        reach = {id_: _closure(id_, edges) for id_ in inside}
        return {tuple(sorted({id_} | {other for other in reach[id_] if id_ in reach[other]})) for id_ in inside}

    def missing(self) -> set[InstanceId]:
        """What decided ids wait for, directly."""
        return set().union(*(self.blockers(id_) for id_ in self.decided.keys() - self.executable()))

    def unexecuted(self) -> set[InstanceId]:
        """What is known and has not executed."""
        return self.known.keys() - self.executable()

    def reached(self, order: Vector, batch: Batch) -> bool:
        """Is nothing left under `order` that is unknown, or unexecuted and in conflict with `batch`?"""
        mine = footprint(batch.data, HEADER.size)
        ids = (InstanceId(0, slot, lane) for lane, last in enumerate(order) for slot in range(1, last + 1))
        left = [id_ for id_ in ids if id_ not in self.executable()]
        return all(id_ in self.known and not self.known[id_].conflicts(mine) for id_ in left)

    def entangled(self, run: bytes) -> bytes:
        """For each command of `run`: does it conflict with anything known and unexecuted?"""
        others = [self.known[id_] for id_ in self.unexecuted()]
        commands = (footprint(cut_run(run, at, 1)) for at in range(count_commands(run)))
        return bytes(any(mine.conflicts(other) for other in others) for mine in commands)

    def conflicting_pairs(self) -> Iterable[tuple[InstanceId, InstanceId]]:
        """Every two decided ids whose order matters."""
        ids = sorted(self.decided)
        return ((a, b) for at, a in enumerate(ids) for b in ids[at + 1 :] if self.conflict(a, b))


def _closure(start: InstanceId, edges: dict[InstanceId, set[InstanceId]]) -> set[InstanceId]:
    """All that can be reached from `start`, over at least one edge."""
    found: set[InstanceId] = set()
    new = edges[start]
    while new:
        found |= new
        new = set().union(*(edges[id_] for id_ in new)) - found
    return found


def order_of(groups: Iterable[list[InstanceId]]) -> dict[InstanceId, int]:
    """The place of every id in the order of execution; no id twice."""
    flat = [id_ for group in groups for id_ in group]
    places = {id_: place for place, id_ in enumerate(flat)}
    assert len(places) == len(flat), "an id was executed twice"
    return places
