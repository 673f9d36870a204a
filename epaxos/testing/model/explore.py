"""Every state of a scope, breadth first.

**A world** is one number for each replica, packed into one integer: its *history*, which is a local state, the set of
everything it has ever sent, and how often it has submitted, begun a recovery and crashed. There is no network beside
that: what is under way is what was sent. So the set of visited worlds is exact, and holds one integer a world.

**Cost.** What a message of the history h' may do to the history h is looked up once for each pair (h, what h' sent).
A step that leaves the history as it was (a duplicate, say) is no transition. Laws of steps are checked when the step
is made, laws of worlds once for each combination of sent sets.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from epaxos.testing.model.laws import Broken, Facts, Judge, check_restart
from epaxos.testing.model.scope import Scope
from epaxos.testing.model.site import Crash, Deliver, Event, Move, Submit
from epaxos.testing.model.table import Table

BITS: Final = 20
"""Of one replica's history in a world: three of them fill two digits of an integer of CPython's, 32 bytes in all."""
_MASK: Final = (1 << BITS) - 1
HISTORIES_MAX: Final = 1 << BITS
"""Of one replica: an exploration that needs more stops there, and says so."""
_PROGRESS_STATES: Final = 1 << 14

World = int


class History(NamedTuple):
    """What a replica is, has said, and has been through."""

    local: int
    sent: int
    submitted: int = 0
    recovered: int = 0
    crashed: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What an exploration found out."""

    scope: Scope
    states: int
    depth: int
    """Events from the beginning to the farthest state."""
    bound: str
    """What stopped it: the "depth" of the scope, a bound of "states", the "histories" of one replica that a world has
    room for, or "": every state of the scope was visited."""
    real_steps: int
    local_states: int
    wall_s: float
    violation: Broken | None = None
    way: tuple[Move, ...] = ()
    """The shortest way to the violation."""

    @property
    def complete(self) -> bool:
        """Was every state of the scope visited?"""
        return not self.bound and self.violation is None


class _Replica:
    """The histories of one replica, by number."""

    def __init__(self) -> None:
        self.histories: list[History] = []
        self.numbers: dict[History, int] = {}
        self.sent_of: list[int] = []
        """history -> number of its sent set"""
        self.recovered: list[int] = []
        self.crashed: list[int] = []
        self.sets: list[int] = []
        """Each sent set as bits, one a message"""
        self.set_numbers: dict[int, int] = {}
        self.facts_of: list[int] = []
        """sent set -> number of what it says, in terms of the laws"""
        self.facts: list[Facts] = []
        self.facts_numbers: dict[frozenset[object], int] = {}

    def number(self, history: History) -> int:
        found = self.numbers.get(history)
        if found is None:
            if len(self.histories) >= HISTORIES_MAX:
                raise _Full
            found = self.numbers[history] = len(self.histories)
            self.histories.append(history)
            self.sent_of.append(history.sent)
            self.recovered.append(history.recovered)
            self.crashed.append(history.crashed)
        return found


class _Full(Exception):
    """There is no room in a world for one more history of a replica."""


class _Broke(Exception):
    """A law does not hold after this world (and this move, unless it is None)."""

    def __init__(self, world: World, move: Move | None, broken: Broken) -> None:
        super().__init__(str(broken))
        self.world, self.move, self.broken = world, move, broken


class Explorer:
    """One exploration of one scope."""

    def __init__(self, scope: Scope, *, states_max: int | None = None) -> None:
        self.scope = scope
        self.states_max = states_max
        self.table = Table(scope)
        self.judge = Judge(scope)
        self.seen: dict[World, World] | set[World] = set()
        self._replicas = [_Replica() for _ in range(scope.n)]
        self._reach: list[list[dict[int, tuple[int, ...]]]] = [[{} for _ in range(scope.n)] for _ in range(scope.n)]
        self._alone: list[dict[int, tuple[int, ...]]] = [{} for _ in range(scope.n)]
        self._recoveries: list[dict[int, tuple[int, ...]]] = [{} for _ in range(scope.n)]
        self._crashes: list[dict[int, tuple[int, ...]]] = [{} for _ in range(scope.n)]
        self._targets: list[list[list[tuple[int, ...]]]] = [[] for _ in range(scope.n)]
        self._immortals: list[dict[int, int]] = [{} for _ in range(scope.n)]
        self._judged: set[int] = set()

    # -- the search

    def run(self, progress: Callable[[str], None] = lambda _: None) -> Found:
        """Visit every state. A violation is found again with the way to it."""
        begun = time.perf_counter()
        gc.disable()  # millions of integers, and no cycles
        try:
            depth, bound = self._search(progress)
        except _Broke as broke:
            again = Explorer(self.scope, states_max=self.states_max)
            return again._explain(broke.broken, begun)
        finally:
            gc.enable()
        return self._found(begun, depth, bound)

    def _found(self, begun: float, depth: int, bound: str) -> Found:
        steps, locals_ = self.table.real_steps, len(self.table.sites)
        return Found(self.scope, len(self.seen), depth, bound, steps, locals_, time.perf_counter() - begun)

    def _explain(self, broken: Broken, begun: float) -> Found:
        parents: dict[World, World] = {}
        self.seen = parents
        try:
            depth, _ = self._search(lambda _: None)
        except _Broke as broke:
            worlds = [broke.world]
            while parents[worlds[-1]] != worlds[-1]:
                worlds.append(parents[worlds[-1]])
            worlds.reverse()
            way = [self._move_between(a, b) for a, b in pairwise(worlds)]
            if broke.move is not None:
                way.append(broke.move)
            found = self._found(begun, len(way), "")
            return replace(found, violation=broke.broken, way=tuple(way))
        raise AssertionError(f"the second search did not meet {broken} within depth {depth}")

    def _search(self, progress: Callable[[str], None]) -> tuple[int, str]:
        """(depth, what stopped it)"""
        first = self._first()
        seen = self.seen
        remember = self._with_parents if isinstance(seen, dict) else self._without_parents
        remember([first], first)
        level, depth = [first], 0
        while level:
            if depth == self.scope.depth:
                return depth, "depth"
            following: list[World] = []
            for done, world in enumerate(level):
                try:
                    following += remember(self._after(world), world)
                except _Full:
                    return depth, "histories"
                if done % _PROGRESS_STATES == 0:
                    progress(
                        f"{self.scope.name}: depth {depth}, {len(seen)} states, {self.table.real_steps} real steps"
                    )
                    if self.states_max is not None and len(seen) >= self.states_max:
                        return depth, "states"
            level = following
            depth += bool(level)
        return depth, ""

    def _without_parents(self, worlds: list[World], parent: World) -> list[World]:
        seen = self.seen
        assert isinstance(seen, set)
        fresh = []
        for world in worlds:
            if world not in seen:
                seen.add(world)
                fresh.append(world)
        return fresh

    def _with_parents(self, worlds: list[World], parent: World) -> list[World]:
        assert isinstance(self.seen, dict)
        fresh = []
        for world in worlds:
            if world not in self.seen:
                self.seen[world] = parent
                fresh.append(world)
        return fresh

    # -- one world

    def _first(self) -> World:
        self._set_number(0, 0)
        world = 0
        for me, replica in enumerate(self._replicas):
            self._set_number(me, 0)
            world |= replica.number(History(self.table.first(me), 0)) << BITS * me
        return world

    def _after(self, world: World) -> list[World]:
        """Every world one event later (this one not among them). Judges this one."""
        replicas, n = self._replicas, self.scope.n
        numbers = [world >> BITS * i & _MASK for i in range(n)]
        sents = [replicas[i].sent_of[numbers[i]] for i in range(n)]
        self._look(world, sents)
        recovered = crashed = 0
        for i in range(n):
            recovered += replicas[i].recovered[numbers[i]]
            crashed += replicas[i].crashed[numbers[i]]
        after: list[World] = []
        for i in range(n):
            mine = numbers[i]
            reach = self._reach[i]
            for j in range(n):
                if j != i:
                    deltas = reach[j].get(mine << 32 | sents[j])
                    if deltas is None:
                        deltas = self._deliveries(world, i, mine, j, sents[j])
                    after += [world + delta for delta in deltas]
            deltas = self._alone[i].get(mine)
            if deltas is None:
                deltas = self._spontaneous(world, i, mine)
            after += [world + delta for delta in deltas]
            if recovered < self.scope.recoveries:
                after += [world + delta for delta in self._recoveries[i][mine]]
            if crashed < self.scope.restarts:
                after += self._restarts(world, i, mine, last=crashed + 1 == self.scope.restarts)
        return after

    def _look(self, world: World, sents: list[int]) -> None:
        key = 0
        numbers = [replica.facts_of[sent] for replica, sent in zip(self._replicas, sents, strict=True)]
        for number in numbers:
            key = key << 24 | number
        if key not in self._judged:
            try:
                self.judge.judge([self._replicas[i].facts[number] for i, number in enumerate(numbers)])
            except Broken as broken:
                raise _Broke(world, None, broken) from None
            self._judged.add(key)

    # -- moves, each looked up once

    def _deliveries(self, world: World, i: int, mine: int, j: int, sent: int) -> tuple[int, ...]:
        history = self._replicas[i].histories[mine]
        found: dict[int, None] = {}
        for flight in self._targets[j][sent][i]:
            step = self.table.deliver(history.local, flight)
            if step.broken is not None:
                source, _, message = self.table.flights[flight]
                raise _Broke(world, Move(i, Deliver(source, message)), step.broken)  # type: ignore[arg-type]
            if step.after != history.local or step.flights:
                found[self._become(i, history, step.after, step.flights)] = None
        found.pop(mine, None)
        deltas = tuple((number - mine) << BITS * i for number in found)
        self._reach[i][j][mine << 32 | sent] = deltas
        return deltas

    def _spontaneous(self, world: World, i: int, mine: int) -> tuple[int, ...]:
        history = self._replicas[i].histories[mine]
        events, recoveries = self.table.choices(history.local)
        submits = self.scope.lanes[i][history.submitted : history.submitted + 1]
        alone = [(event, history) for event in events]
        alone += [(Submit(batch), history._replace(submitted=history.submitted + 1)) for batch in submits]
        begun = [(event, history._replace(recovered=history.recovered + 1)) for event in recoveries]
        self._alone[i][mine] = self._moved(world, i, mine, alone)
        self._recoveries[i][mine] = self._moved(world, i, mine, begun)
        return self._alone[i][mine]

    def _moved(self, world: World, i: int, mine: int, moves: Sequence[tuple[Event, History]]) -> tuple[int, ...]:
        found: dict[int, None] = {}
        for event, history in moves:
            step = self.table.step(history.local, event)
            if step.broken is not None:
                raise _Broke(world, Move(i, event), step.broken)
            found[self._become(i, history, step.after, step.flights)] = None
        found.pop(mine, None)
        return tuple((number - mine) << BITS * i for number in found)

    def _restarts(self, world: World, i: int, mine: int, *, last: bool) -> list[World]:
        """Crashes of `i`. After the last one there is nobody left who could crash, so nobody's disk matters."""
        deltas = self._crashes[i].get(mine)
        if deltas is None:
            history = self._replicas[i].histories[mine]
            crashed = history._replace(crashed=history.crashed + 1)
            found: dict[int, None] = {}
            for keep in range(len(self.table.sites[history.local].saves) + 1):
                moved = self._moved(world, i, mine, [(Crash(keep), crashed)])
                for delta in moved:
                    self._check_restart(world + delta, i, Move(i, Crash(keep)), world)
                found |= dict.fromkeys(moved)
            deltas = self._crashes[i][mine] = tuple(found)
        worlds = [world + delta for delta in deltas]
        return [self._bare(one) for one in worlds] if last else worlds

    def _check_restart(self, after: World, i: int, move: Move, world: World) -> None:
        history = self._replicas[i].histories[after >> BITS * i & _MASK]
        said = [self.table.flights[flight].what for flight in _bits(self._replicas[i].sets[history.sent])]
        try:
            check_restart(self.table.sites[history.local], said)
        except Broken as broken:
            raise _Broke(world, move, broken) from None

    def _bare(self, world: World) -> World:
        after = 0
        for i, replica in enumerate(self._replicas):
            mine = world >> BITS * i & _MASK
            number = self._immortals[i].get(mine)
            if number is None:
                history = replica.histories[mine]
                number = replica.number(history._replace(local=self.table.immortal(history.local)))
                self._immortals[i][mine] = number
            after |= number << BITS * i
        return after

    def _become(self, i: int, history: History, local: int, flights: tuple[int, ...]) -> int:
        replica = self._replicas[i]
        bits = replica.sets[history.sent]
        for flight in flights:
            bits |= 1 << flight
        sent = replica.set_numbers.get(bits)
        if sent is None:
            sent = self._set_number(i, bits)
        return replica.number(history._replace(local=local, sent=sent))

    def _set_number(self, i: int, bits: int) -> int:
        replica = self._replicas[i]
        if bits in replica.set_numbers:
            return replica.set_numbers[bits]
        number = replica.set_numbers[bits] = len(replica.sets)
        replica.sets.append(bits)
        flights = [(flight, self.table.flights[flight]) for flight in _bits(bits)]
        facts = Facts.of(flight.what for _, flight in flights)
        known = replica.facts_numbers.setdefault(facts.key, len(replica.facts))
        if known == len(replica.facts):
            replica.facts.append(facts)
        replica.facts_of.append(known)
        to = [tuple(k for k, flight in flights if flight.target == j) for j in range(self.scope.n)]
        self._targets[i].append(to)
        return number

    # -- the way to a violation

    def _move_between(self, before: World, after: World) -> Move:
        """The event that leads from one world to the next."""
        for i in range(self.scope.n):
            for event, number in self._moves(before, i):
                one = before + ((number - (before >> BITS * i & _MASK)) << BITS * i)
                if one == after or (isinstance(event, Crash) and self._bare(one) == after):
                    return Move(i, event)
        raise AssertionError("no event leads from the one world to the other")

    def _moves(self, world: World, i: int) -> list[tuple[Event, int]]:
        history = self._replicas[i].histories[world >> BITS * i & _MASK]
        found: list[tuple[Event, int]] = []
        for j in range(self.scope.n):
            sent = self._replicas[j].sent_of[world >> BITS * j & _MASK]
            for flight in self._targets[j][sent][i] if j != i else ():
                source, _, message = self.table.flights[flight]
                step = self.table.deliver(history.local, flight)
                number = self._become(i, history, step.after, step.flights)
                found.append((Deliver(source, message), number))  # type: ignore[arg-type]
        events, recoveries = self.table.choices(history.local)
        saves = len(self.table.sites[history.local].saves) if self.scope.restarts else -1
        moves: list[tuple[Event, History]] = [(event, history) for event in events]
        moves += [(event, history._replace(recovered=history.recovered + 1)) for event in recoveries]
        moves += [(Crash(keep), history._replace(crashed=history.crashed + 1)) for keep in range(saves + 1)]
        for batch in self.scope.lanes[i][history.submitted : history.submitted + 1]:
            moves.append((Submit(batch), history._replace(submitted=history.submitted + 1)))
        for event, become in moves:
            step = self.table.step(history.local, event)
            found.append((event, self._become(i, become, step.after, step.flights)))
        return found


def _bits(bits: int) -> list[int]:
    """The positions of the ones, lowest first."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
