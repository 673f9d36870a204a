"""Random ways through worlds that are too large to visit: five or seven replicas, two to four commands.

A walk has two parts. First a bounded mischief: commands, up to three recoveries, up to one crash with a restart,
replicas that fall silent, messages lost, late and repeated, each kind of message with a rate of loss that the walk
drew. Few decisions reach anybody, and recoveries are many, since a bug in them shows only where several meet. Then the
reckoning: a quorum of survivors, of whom one recovers whatever is undecided until nothing is. It has to come to an end
(3.5), and what comes out has to agree with what anybody, silent replicas included, has decided before.

A walk is a function of (n, seed, number). Local states hardly recur here, so that every step is made.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from epaxos.ids import InstanceId
from epaxos.messages import Message
from epaxos.protocols.epaxos.state import Phase
from epaxos.testing.model.laws import Broken, Facts, Judge, check_restart
from epaxos.testing.model.scope import Scope
from epaxos.testing.model.site import Crash, Deliver, Event, Fire, Move, Recover, Resend, Site, Submit, What
from epaxos.testing.model.temper import draw
from epaxos.testing.workers import workers

COMMANDS_MAX: Final = 4
SUBMITS_MAX: Final = 2
"""Commands of one lane in a walk."""
_CHUNK: Final = 250
"""Walks that a process does before it reports."""
_MOVES_MAX: Final = 400
"""Of the mischief."""
_ROUNDS: Final = 6
"""Of recoveries in the reckoning, after which it has to be over."""
_SETTLING_MAX: Final = 1_000
_LATE_COMES: Final = 0.04
"""How often a late message is on its way at last, before each move."""


def walking_scope(n: int) -> Scope:
    """Every replica may submit: on the key that all share, or on one of its own."""
    commands = [(lane, key) for lane in range(n) for key in ("k",) * SUBMITS_MAX + (f"own{lane}",)]
    story = f"walks: {n} replicas, 2 to 4 commands, up to 3 recoveries and 1 restart"
    return Scope(name=f"walks-{n}", story=story, commands=tuple(commands), n=n, recoveries=3, restarts=1)


@dataclass(slots=True)
class Summary:
    """What some walks were and found."""

    n: int
    walks: int = 0
    moves: int = 0
    recoveries: int = 0
    restarts: int = 0
    decided: Counter[str] = field(default_factory=Counter)
    """"value" and "nop": what ids ended as."""
    wall_s: float = 0.0
    violation: Broken | None = None
    number: int | None = None
    """The walk that broke a law."""
    way: tuple[Move, ...] = ()

    def add(self, other: Summary) -> None:
        """Sum up, and keep the first violation."""
        self.walks += other.walks
        self.moves += other.moves
        self.recoveries += other.recoveries
        self.restarts += other.restarts
        self.decided += other.decided
        if other.violation is not None and self.violation is None:
            self.violation, self.number, self.way = other.violation, other.number, other.way


class Walker:
    """Walks of one scope, one after the other."""

    def __init__(self, n: int, seed: int, *, inside: bool = True) -> None:
        """Without `inside` a walk breaks only by what a user could notice: agreement, visibility, order, liveness."""
        self.scope = walking_scope(n)
        self.seed = seed
        self.inside = inside
        self.judge = Judge(self.scope, inside=inside)

    def run(self, first: int, count: int) -> Summary:
        """The walks first … first + count - 1, until one of them breaks a law."""
        begun, summary = time.perf_counter(), Summary(self.scope.n)
        for number in range(first, first + count):
            walk = Walk(self, number)
            try:
                walk.go(summary.decided)
            except AssertionError as error:
                broken = error if isinstance(error, Broken) else Broken("assertion", str(error))
                if self.inside or broken.law != "assertion":
                    summary.violation, summary.number, summary.way = broken, number, tuple(walk.way)
            summary.walks += 1
            summary.moves += len(walk.way)
            summary.recoveries += walk.recovered
            summary.restarts += walk.restarted
            if summary.violation is not None:
                break
        summary.wall_s = time.perf_counter() - begun
        return summary


def walk_many(n: int, seed: int, first: int, count: int, jobs: int) -> Iterator[Summary]:
    """The same walks in `jobs` processes, a few hundred at a time; ends behind a chunk that broke a law."""
    chunks = [(n, seed, at, min(_CHUNK, first + count - at)) for at in range(first, first + count, _CHUNK)]
    if jobs == 1:
        results: Iterator[Summary] = map(_chunk, chunks)
        yield from _until_broken(results)
        return
    with workers(jobs) as pool:
        yield from _until_broken(pool.imap_unordered(_chunk, chunks))


def _chunk(chunk: tuple[int, int, int, int]) -> Summary:
    n, seed, first, count = chunk
    return Walker(n, seed).run(first, count)


def _until_broken(results: Iterator[Summary]) -> Iterator[Summary]:
    for result in results:
        yield result
        if result.violation is not None:
            return


class Walk:
    """One walk."""

    def __init__(self, walker: Walker, number: int) -> None:
        self.scope = walker.scope
        self.judge = walker.judge
        self.inside = walker.inside
        self.n = self.scope.n
        self.rng = rng = random.Random(walker.seed << 40 | number)
        self.sites = [Site(i, self.n, slow_disk=False, mortal=True, asked=False) for i in range(self.n)]
        self.way: list[Move] = []
        self.under_way: list[tuple[int, int, Message]] = []
        """(source, target, message)"""
        self.said: list[list[What]] = [[] for _ in range(self.n)]
        self.silent: set[int] = set()
        self.temper = temper = draw(rng)
        self.recoveries = rng.choice(temper.recoveries)
        self.recovered = self.restarted = 0
        self.crashing = rng.randrange(self.n) if rng.random() < temper.crash else None
        self.submits = self._plan()
        self.coordinators = [lane for lane, _ in self.submits]
        self.victim = self.coordinators[0] if rng.random() < temper.one_victim else None
        """The lane whose ids are recovered, if it is always the same."""
        self.silences = {
            rng.randrange(2, 40): lane
            for lane in self.coordinators[: (self.n - 1) // 2]
            if rng.random() < temper.silence
        }
        """move -> who falls silent before it"""
        self.brisk = rng.random() < temper.brisk
        self.alone, self.eager = rng.choice(temper.alone), rng.choice(temper.eager)
        self.duplicate = rng.choice(temper.duplicate)
        self.recoverers = rng.sample(range(self.n), rng.choice((1, 2, 3, self.n)))
        self.fate: dict[tuple[type, object, int], tuple[float, float]] = {}
        """(kind, id, ballot) -> (rate of loss, how likely to come late)"""
        self.late: list[tuple[int, int, Message]] = []
        self.reckoning = False
        # What there is to choose from, until somebody moves: most looks find nothing new.
        self._due: list[tuple[int, Event]] | None = None
        self._recoverable: dict[int, list[InstanceId]] = {}

    def _plan(self) -> list[tuple[int, int]]:
        """(replica, which of its batches) of the commands, most of them in conflict."""
        rng, temper = self.rng, self.temper
        lanes = rng.sample(range(self.n), rng.choice(temper.commands))
        plan = [(lane, 0) for lane in lanes]
        if rng.random() < temper.more:
            plan.append((lanes[0], 1))
        if rng.random() < temper.more and len(plan) < COMMANDS_MAX:
            plan.append((lanes[-1], SUBMITS_MAX))
        return plan

    # -- the mischief

    def go(self, decided: Counter[str]) -> None:
        """The whole walk; counts what ids ended as. Raises Broken."""
        rng = self.rng
        for at in range(_MOVES_MAX):
            if at in self.silences:
                self.silent.add(self.silences[at])
                self._due = None
            if self.late and rng.random() < _LATE_COMES:
                self.under_way.append(self.late.pop(rng.randrange(len(self.late))))
            if self.under_way and rng.random() > self.alone:
                self._deliver(-1 if self.brisk else int(rng.random() * len(self.under_way)))
            elif not self._something() and not self.under_way and not self.late:
                break
        self._reckon()
        found = self.judge.judge([Facts.of(said) for said in self.said])
        decided.update("nop" if payload is None else "value" for payload, _ in found.values())

    def _something(self) -> bool:
        """A submission, a timer, a recovery, a crash; False when nothing of the kind is left."""
        rng = self.rng
        draw = rng.random()
        if self.submits and draw < self.eager:
            lane, which = self.submits.pop(0)
            if lane not in self.silent:
                self._take(lane, Submit(self.scope.lanes[lane][which]))
            return True
        draw = rng.random()
        if self._due is None:
            self._due = self._timers(i for i in range(self.n) if i not in self.silent)
        timers = self._due
        if timers and draw < 0.55:
            self._take(*rng.choice(timers))
        elif self.recoveries and draw < 0.9:
            self._recover()
        elif self.crashing is not None and draw < 0.95:
            self._crash(self.crashing)
        else:
            return bool(self.submits or timers or self.recoveries)
        return True

    def _timers(self, where: Iterable[int]) -> list[tuple[int, Event]]:
        return [(i, Fire(timer)) for i in where for timer in sorted(self.sites[i].timers)]  # type: ignore[type-var]

    def _recover(self) -> None:
        who = self.rng.choice(self.recoverers)
        choices = self._recoverable.get(who)
        if choices is None:
            all_ids = self.sites[who].protocol.recoverable()
            choices = self._recoverable[who] = [i for i in all_ids if self.victim is None or i.lane == self.victim]
        self.recoveries -= who in self.silent or bool(choices)
        if choices and who not in self.silent:
            self.recovered += 1
            self._take(who, Recover(self.rng.choice(choices)))

    def _crash(self, who: int) -> None:
        self.crashing = None
        self.restarted += 1
        self._take(who, Crash(self.rng.randint(0, len(self.sites[who].saves))))
        if self.inside:
            check_restart(self.sites[who], self.said[who])

    # -- moves

    def _deliver(self, at: int) -> None:
        """One of the messages under way arrives; now and then it will once more, later."""
        flights = self.under_way
        source, target, message = flight = flights[at]
        flights[at] = flights[-1]
        flights.pop()
        if self.rng.random() < self.duplicate:
            self.late.append(flight)
        if target not in self.silent:
            self._take(target, Deliver(source, message))

    def _take(self, who: int, event: Event) -> None:
        self._due = None
        self._recoverable.clear()
        self.way.append(Move(who, event))
        said = self.said[who]
        for target, what in self.sites[who].take(event):
            said.append(what)
            if isinstance(what, Message):
                self._send(who, target, what)

    def _send(self, source: int, target: int, message: Message) -> None:
        """Lost, late, or under way."""
        if self.reckoning:
            self.under_way.append((source, target, message))
            return
        rng, kind = self.rng, type(message)
        key = kind, getattr(message, "id", None), getattr(message, "ballot", 0)
        fate = self.fate.get(key)
        if fate is None:
            temper = self.temper
            lost, late = temper.losses.get(kind, (0.0,)), temper.lates.get(kind, temper.late)
            fate = self.fate[key] = rng.choice(lost), rng.choice(late)
        if rng.random() >= fate[0]:
            (self.late if rng.random() < fate[1] else self.under_way).append((source, target, message))

    # -- the reckoning

    def _reckon(self) -> None:
        """Survivors decide whatever is undecided among them. Raises Broken when they do not come to an end."""
        rng, n = self.rng, self.n
        living = [i for i in range(n) if i not in self.silent]
        rng.shuffle(living)
        if rng.random() < 0.6:
            living.sort(key=lambda i: i in self.coordinators)
        some = n - (n - 1) // 2
        survivors = living[: rng.choice((some, some, len(living)))]
        leader = self.sites[living[0]]
        self.reckoning = True
        self.under_way = self.under_way if rng.random() < 0.3 else []
        self._take(leader.me, Resend())
        for _ in range(_ROUNDS):
            self._settle(leader.me, survivors)
            choices = leader.protocol.recoverable()
            if not choices:
                break
            for id_ in choices:
                self._take(leader.me, Recover(id_))
            self._take(leader.me, Resend())
        undecided = [str(id_) for id_, one in leader.protocol.state.live.items() if one.phase is not Phase.COM]
        if undecided:
            raise Broken(
                "liveness", f"replica {leader.me} among {sorted(survivors)} cannot decide {', '.join(undecided)}"
            )

    def _settle(self, leader: int, survivors: list[int]) -> None:
        """Deliver everything between the survivors and the leader; its timers fire when nothing is under way."""
        for _ in range(_SETTLING_MAX):
            flights, self.under_way = self.under_way, []
            for source, target, message in flights:
                if target in survivors and source in survivors and leader in (source, target):
                    self._take(target, Deliver(source, message))
            if not self.under_way:
                timers = self._timers([leader])
                if not timers:
                    return
                self._take(*timers[0])
        raise Broken("liveness", "messages without end")
