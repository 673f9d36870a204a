"""Run seeds: one, many with a summary, or one again and again with fewer faults.

`epaxos sim` is the command; `python -m epaxos.testing.seeds` is the same.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from epaxos._version import VERSION
from epaxos.command import NOP
from epaxos.protocols.registry import PROTOCOLS, VIEWS, Factory
from epaxos.protocols.view import Cell
from epaxos.testing import faults
from epaxos.testing.loop import KV, Play, World
from epaxos.testing.record import Outcome, Violation, as_violation
from epaxos.testing.tape import Tape
from epaxos.testing.trace import Sink, Trace
from epaxos.testing.workers import workers
from epaxos.testing.workload import COMMANDS_MIN

SEEDS_A_JOB: Final = 4
"""A process takes so many at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What became of one seed."""

    seed: int
    protocol: str
    """Its name in the registry, or that of the factory."""
    n: int
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
    turns: int
    """Of all engines."""
    steps: int
    """Events that the protocols of all engines took."""
    messages: int
    """Delivered."""
    notes: dict[str, int]
    """What the protocol found worth noting, by event."""
    instances: int
    """Decided, by whomever."""
    nops: int
    """Those of them that were given up."""
    cells: dict[Cell, int]
    """How often a message found a replica in which phase; empty for a protocol that is not in the registry."""
    sim_us: int
    cpu_s: float
    """Of this process."""
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
    tape: Tape | None = None,
) -> SeedResult:
    """Run one seed to its end, or to the first violation, which is in the result.

    `protocol` is a name of the registry or a factory of one's own; `play` is what is performed; `without` leaves out
    kinds of faults, `commands` all but so many of the clients' commands; `sink` gets the trace, line by line; `tape`
    gets what each engine took.
    """
    without = tuple(without)
    begun = time.process_time()
    trace = Trace(sink)
    build, view = (PROTOCOLS[protocol], VIEWS[protocol]) if isinstance(protocol, str) else (protocol, None)
    world = World(seed, build, n=n, play=play, without=frozenset(without), trace=trace, view=view, tape=tape)
    if commands is not None:
        world.clients.limit(commands)
    violations: tuple[str, ...] = ()
    try:
        with as_violation(lambda: f" at {world.now_us} us"):
            world.run()
    except Violation as violation:
        replay = replay_with(seed, protocol, n, without=without, commands=commands)
        violations = (f"{violation}\nreplay with: {replay} --trace (epaxos {VERSION})",)
        trace.line(f"{world.now_us} {violation.invariant}")
    outcomes = Counter(call.outcome.value for call in world.record.calls)
    return SeedResult(
        seed=seed,
        protocol=protocol if isinstance(protocol, str) else getattr(protocol, "__name__", "your own"),
        n=n,
        trace_hash=trace.digest(),
        commands=world.clients.total - world.clients.left,
        outcomes={outcome.value: outcomes[outcome.value] for outcome in Outcome},
        faults=world.swarm.kinds,
        struck=dict(sorted(world.struck.items())),
        lives=sum(node.life.number for node in world.nodes),
        turns=sum(node.turns for node in world.nodes),
        steps=sum(node.steps + (node.protocol.steps if node.up else 0) for node in world.nodes),
        messages=world.delivered,
        notes=dict(sorted(sum((node.notes for node in world.nodes), Counter[str]()).items())),
        instances=len(world.decided),
        nops=sum(payload is NOP for payload in world.decided.values()),
        cells={Cell(*cell): count for cell, count in world.cells.items()},
        sim_us=world.now_us,
        cpu_s=time.process_time() - begun,
        undecided=len(world.record.undecided),
        violations=violations,
    )


def replay_with(
    seed: int, protocol: str | Factory, n: int, *, without: Iterable[str] = (), commands: int | None = None
) -> str:
    """The command line that runs it."""
    named = f" --protocol {protocol}" if isinstance(protocol, str) else ""
    less = "".join(f" --without {kind}" for kind in without) + ("" if commands is None else f" --commands {commands}")
    return f"epaxos sim --seed {seed}{named} --replicas {n}{less}"


# ------------------------------------------------------------------------------------------------------- many seeds


class Setting(NamedTuple):
    """Which clusters a seed runs."""

    protocol: str
    n: int


MIX: Final = (
    *10 * (Setting("epaxos", 5),),
    *4 * (Setting("epaxos", 3),),
    Setting("epaxos", 7),
    *4 * (Setting("raft", 5),),
    Setting("raft", 3),
)
"""What twenty seeds in a row run, unless somebody says otherwise."""


def setting(seed: int, protocol: str | None = None, n: int | None = None) -> Setting:
    """What this seed runs: the protocol and the size that are given, and otherwise what the mix has for it."""
    usual = MIX[seed % len(MIX)]
    return Setting(protocol or usual.protocol, n or usual.n)


def run_seeds(
    seeds: Iterable[int], *, protocol: str | None = None, n: int | None = None, jobs: int = 1
) -> Iterator[SeedResult]:
    """Run them all, in `jobs` processes. With more than one, results come in the order in which they are ready."""
    run = partial(_run_setting, protocol=protocol, n=n)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with workers(jobs, spare_collector) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=SEEDS_A_JOB)


def spare_collector() -> None:
    """For a process that does nothing but run seeds: look for garbage more rarely, and not among what was imported.

    A world is one big cycle, garbage as a whole when its seed is over, and next to nothing is before.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _run_setting(seed: int, *, protocol: str | None, n: int | None) -> SeedResult:
    chosen = setting(seed, protocol, n)
    return run_seed(seed, protocol=chosen.protocol, n=chosen.n)
