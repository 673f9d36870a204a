"""Run seeds: one, many with a summary, or one again and again with fewer faults.

`epaxos sim` is the command; `python -m epaxos.testing.seeds` is the same.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from epaxos.protocols.registry import PROTOCOLS, Factory
from epaxos.testing import faults
from epaxos.testing.loop import KV, Play, World
from epaxos.testing.record import Outcome, Violation
from epaxos.testing.trace import Sink, Trace
from epaxos.testing.workload import COMMANDS_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What became of one seed."""

    seed: int
    trace_hash: str
    commands: int
    """Submitted by clients while faults struck and until they were all gone."""
    outcomes: dict[str, int]
    """Commands by outcome: done, rejected, unknown, open."""
    faults: tuple[str, ...]
    """The kinds drawn."""
    struck: dict[str, int]
    """How often each kind struck, for those that strike."""
    lives: int
    """Of all replicas together."""
    steps: int
    """Turns of all engines."""
    messages: int
    """Delivered."""
    notes: dict[str, int]
    """What the protocol found worth noting, by event."""
    sim_us: int
    wall_s: float
    undecided: int
    """Keys whose history was too entangled for the linearizability checker."""
    violations: tuple[str, ...] = ()
    """At most one: the first stops the run. Each says how to replay it."""

    @property
    def recoveries(self) -> int:
        """Instances decided by a recovery, as the protocol notes them."""
        return sum(count for event, count in self.notes.items() if event.startswith("recover"))

    @property
    def counts(self) -> bool:
        """Was it hostile enough to be worth counting?"""
        return self.commands >= COMMANDS_MIN and len(self.faults) >= faults.KINDS_MIN


def run_seed(
    seed: int,
    *,
    protocol: str | Factory = "epaxos",
    n: int = 5,
    play: Play = KV,
    without: Iterable[str] = (),
    commands: int | None = None,
    sink: Sink | None = None,
) -> SeedResult:
    """Run one seed to its end, or to the first violation, which is in the result.

    `protocol` is a name of the registry or a factory of one's own; `play` is what is performed; `without` leaves out
    kinds of faults, `commands` all but so many of the clients' commands; `sink` gets the trace, line by line.
    """
    without = tuple(without)
    begun = time.perf_counter()
    trace = Trace(sink)
    build = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    world = World(seed, build, n=n, play=play, without=frozenset(without), trace=trace)
    if commands is not None:
        world.clients.limit(commands)
    violations: tuple[str, ...] = ()
    try:
        _run(world)
    except Violation as violation:
        replay = replay_with(seed, protocol, n, without=without, commands=commands)
        violations = (f"{violation}\nreplay with: {replay} --trace",)
        trace.line(f"{world.now_us} {violation.invariant}")
    outcomes = Counter(call.outcome.value for call in world.record.calls)
    return SeedResult(
        seed=seed,
        trace_hash=trace.digest(),
        commands=world.clients.total - world.clients.left,
        outcomes={outcome.value: outcomes[outcome.value] for outcome in Outcome},
        faults=world.swarm.kinds,
        struck=dict(sorted(world.struck.items())),
        lives=sum(node.life.number for node in world.nodes),
        steps=sum(node.turns for node in world.nodes),
        messages=sum(world.delivered.values()),
        notes=dict(sorted(sum((node.notes for node in world.nodes), Counter[str]()).items())),
        sim_us=world.now_us,
        wall_s=time.perf_counter() - begun,
        undecided=len(world.record.undecided),
        violations=violations,
    )


def _run(world: World) -> None:
    """Run it; whatever an engine raises is a violation as well, unless it only passes one on."""
    try:
        world.run()
    except Violation:
        raise
    except Exception as error:
        if isinstance(error.__cause__, Violation):
            raise error.__cause__ from None
        where = "".join(traceback.format_exception(error))
        raise Violation("exception", f"{error!r} at {world.now_us} us\n{where}") from error


def replay_with(
    seed: int, protocol: str | Factory, n: int, *, without: Iterable[str] = (), commands: int | None = None
) -> str:
    """The command line that runs it."""
    named = f" --protocol {protocol}" if isinstance(protocol, str) and protocol != "epaxos" else ""
    sized = f" --replicas {n}" if n != 5 else ""
    less = "".join(f" --without {kind}" for kind in without) + ("" if commands is None else f" --commands {commands}")
    return f"epaxos sim --seed {seed}{named}{sized}{less}"


# ------------------------------------------------------------------------------------------------------- many seeds


def run_seeds(seeds: Iterable[int], *, protocol: str = "epaxos", n: int = 5, jobs: int = 1) -> Iterator[SeedResult]:
    """Run them all, in `jobs` processes. With more than one, results come in the order in which they are ready."""
    run = partial(run_seed, protocol=protocol, n=n)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=4)


@dataclass(slots=True)
class Summary:
    """What many seeds amount to."""

    seeds: int = 0
    counted: int = 0
    """Seeds with at least 50 commands and three kinds of fault."""
    commands: int = 0
    steps: int = 0
    messages: int = 0
    lives: int = 0
    recoveries: int = 0
    undecided: int = 0
    sim_us: int = 0
    wall_s: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)
    """(seed, what)"""

    def add(self, result: SeedResult) -> None:
        """Count one more seed."""
        self.seeds += 1
        self.counted += result.counts
        self.commands += result.commands
        self.steps += result.steps
        self.messages += result.messages
        self.lives += result.lives
        self.recoveries += result.recoveries
        self.undecided += result.undecided
        self.sim_us += result.sim_us
        self.wall_s += result.wall_s
        self.struck.update(result.struck)
        self.violations += [(result.seed, what) for what in result.violations]

    def __str__(self) -> str:
        speed = self.sim_us / 1e6 / self.wall_s if self.wall_s else 0.0
        each = 1000 * self.wall_s / self.seeds if self.seeds else 0.0
        lines = [
            f"{self.seeds} seeds, {self.counted} of them with {COMMANDS_MIN} commands and {faults.KINDS_MIN} kinds of"
            f" fault; {each:.0f} ms a seed",
            f"{self.commands} commands, {self.steps} turns, {self.messages} messages, {self.lives} lives,"
            f" {self.recoveries} recoveries",
            f"{self.sim_us / 3.6e9:.2f} simulated hours, {speed:.0f} for each hour of computing",
            "struck: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.struck.items())),
        ]
        if self.undecided:
            lines.append(f"{self.undecided} histories too entangled to be judged from outside")
        lines.append(f"{len(self.violations)} violations")
        return "\n".join(lines)


if __name__ == "__main__":
    from epaxos.cli import run

    sys.exit(run(["sim", *sys.argv[1:]]))
