"""A coordinator dies for ever: how soon do the others finish what it left, in virtual time?

One site of a matrix loses its power under load. What it had asked for and nobody had decided at that moment must be
decided by the others, as it was asked or as a Nop, and executed at every one of them, within three round trips after
its peers have noticed. The round trip is the longest of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

import click

from bench.options import JSON, MATRIX
from bench.tally import percentile
from bench.virtual import LINKS_UP_US, SECOND_US, Lab
from epaxos.command import NOP, Payload
from epaxos.console import Console
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message, PreAccept
from epaxos.protocols.interface import Order
from epaxos.tables import Column, ms, percent, render
from epaxos.testing.record import Life
from topology import load as load_matrix

ROUND_TRIPS: Final = 3
HOT_KEYS: Final = 2
LOADED_US: Final = 1_000_000
"""Before the crash, at least; and behind it."""
WAIT_US: Final = 30_000_000
"""For what is not finished by then nobody waits any longer."""


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """What to run."""

    matrix: str = "gryff5"
    runs: int = 100
    """Crashes, each in a cluster of its own; the sites take turns."""
    detect_ms: int = 500
    """From the crash until the others notice."""
    rate_per_s: float = 20.0
    """At each site."""
    hot_share: float = 0.3
    """Of the commands, on two keys that all sites share; the others have keys of their own."""
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An instance that the dead coordinator left undecided. Times count from the moment its peers noticed."""

    victim: str
    decided_us: int | None
    """By the first."""
    finished_us: int | None
    """Executed by the last."""
    nop: bool


@dataclass(frozen=True, kw_only=True)
class RecoveryResult:
    """All orphans of all runs."""

    options: RecoveryOptions
    bound_us: int
    orphans: list[Orphan]
    unanswered: int
    """Commands of clients of the other sites that were never answered."""

    @property
    def wrong(self) -> list[str]:
        """What was promised and does not hold."""
        left = len(self.orphans) - len(_finished_us(self.orphans))
        late = [us for us in _finished_us(self.orphans) if us > self.bound_us]
        found = [f"{left} instances were never finished"] * bool(left)
        found += [f"{len(late)} instances took longer than the bound, up to {ms(max(late))} ms"] if late else []
        return found + [f"{self.unanswered} commands of live sites were never answered"] * bool(self.unanswered)


def run_recovery(options: RecoveryOptions, progress: Callable[[str], None] = lambda text: None) -> RecoveryResult:
    """All runs. Raises Violation when safety is lost, and ConfigError for an unknown matrix."""
    matrix = load_matrix(options.matrix)
    orphans: list[Orphan] = []
    unanswered = 0
    for number in range(options.runs):
        run = _Run(options, number)
        found, open_ = run.outcome()
        orphans += found
        unanswered += open_
        progress(f"run {number + 1} of {options.runs}: {len(orphans)} instances left undecided so far")
    bound_us = ROUND_TRIPS * max(map(max, matrix.rtt_us))
    return RecoveryResult(options=options, bound_us=bound_us, orphans=orphans, unanswered=unanswered)


class _Run:
    """One cluster, one crash."""

    def __init__(self, options: RecoveryOptions, number: int) -> None:
        self.options = options
        self.lab = Lab(load_matrix(options.matrix), detect_us=options.detect_ms * 1_000, seed=options.seed + number)
        self.victim = number % self.lab.n
        self.begun: dict[InstanceId, None] = {}
        """Instances of the victim that it asked others for."""
        self.decided: dict[InstanceId, tuple[int, Payload]] = {}
        self.lab.watch.sent.append(self._sent)
        self.lab.watch.decided.append(self._decided)

    def _sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, PreAccept) and life.replica == self.victim == message.id.lane:
            self.begun[message.id] = None

    def _decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        self.decided.setdefault(id_, (self.lab.now_us, payload))

    def outcome(self) -> tuple[list[Orphan], int]:
        """The orphans, and how many commands of live sites were never answered."""
        lab, options = self.lab, self.options
        crash_us = LINKS_UP_US + LOADED_US + lab.forks["crash"].randrange(SECOND_US)
        for site in range(lab.n):
            key = _keys(options, site, lab.forks[f"keys.{site}"])
            until_us = crash_us + LOADED_US
            lab.open_loop(site, rate_per_s=options.rate_per_s, from_us=LINKS_UP_US, until_us=until_us, key=key)
        lab.run_until(crash_us)
        lab.cut_power(self.victim)
        left = [id_ for id_ in self.begun if id_ not in self.decided]
        noticed_us = crash_us + options.detect_ms * 1_000
        lab.run_until(noticed_us + WAIT_US)
        live = [each for each in lab.asked if each.site != self.victim]
        return [self._orphan(id_, noticed_us) for id_ in left], sum(each.answered_us is None for each in live)

    def _orphan(self, id_: InstanceId, noticed_us: int) -> Orphan:
        lab = self.lab
        ran = [lab.ran[site].get(id_) for site in range(lab.n) if site != self.victim]
        times_us = [each.at_us for each in ran if each is not None]
        decided_us, payload = self.decided.get(id_, (None, None))
        return Orphan(
            victim=lab.matrix.sites[self.victim],
            decided_us=None if decided_us is None else decided_us - noticed_us,
            finished_us=max(times_us) - noticed_us if len(times_us) == len(ran) else None,
            nop=payload is NOP,
        )


def _keys(options: RecoveryOptions, site: ReplicaId, rng: Random) -> Callable[[int], bytes]:
    def key(number: int) -> bytes:
        if rng.random() < options.hot_share:
            return b"hot:%d" % rng.randrange(HOT_KEYS)
        return b"own:%d:%d" % (site, number)

    return key


def as_table(result: RecoveryResult) -> str:
    """For people."""
    options, orphans = result.options, result.orphans
    columns = [Column("dead", right=False), *map(Column, ("left\nundecided", "Nop", "p50", "p90", "p99", "max"))]
    victims = list(load_matrix(options.matrix).sites)
    rows = [_row(victim, [each for each in orphans if each.victim == victim]) for victim in victims]
    lines = [
        f"a coordinator dies on {options.matrix}: {options.runs} runs, {options.rate_per_s:g} commands/s at each site,"
        f" {percent(options.hot_share)} on {HOT_KEYS} shared keys, seed {options.seed}",
        f"virtual time, modelled links and disks; noticed after {options.detect_ms} ms, and from then on, in ms, until"
        " executed at every other site",
        "",
        render(columns, rows, foot=[_row("all", orphans)]),
        "",
        f"bound: {ROUND_TRIPS} of the longest round trips, {ms(result.bound_us)} ms after it was noticed",
        *result.wrong,
        "everything left undecided was finished within the bound: " + ("NO" if result.wrong else "yes"),
    ]
    return "\n".join(lines)


def _finished_us(orphans: list[Orphan]) -> list[int]:
    return sorted(each.finished_us for each in orphans if each.finished_us is not None)


def _row(name: str, orphans: list[Orphan]) -> list[str]:
    finished_us = _finished_us(orphans)
    nops = sum(each.nop for each in orphans)
    shares = (percentile(finished_us, share) for share in (0.5, 0.9, 0.99))
    return [name, str(len(orphans)), str(nops), *map(ms, shares), ms(finished_us[-1] if finished_us else None)]


def to_json(result: RecoveryResult) -> dict[str, Any]:
    """For machines: every orphan as well."""
    finished_us = _finished_us(result.orphans)
    return {
        "options": asdict(result.options),
        "bound_us": result.bound_us,
        "left": len(result.orphans),
        "nops": sum(each.nop for each in result.orphans),
        "finished": {
            "p50_us": percentile(finished_us, 0.5),
            "p90_us": percentile(finished_us, 0.9),
            "p99_us": percentile(finished_us, 0.99),
            "max_us": finished_us[-1] if finished_us else None,
        },
        "orphans": [asdict(each) for each in result.orphans],
        "wrong": result.wrong,
    }


@click.command()
@MATRIX
@click.option("--runs", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Crashes, one a cluster.")
@click.option(
    "--detect-ms",
    type=click.IntRange(0, 60_000),
    default=500,
    show_default=True,
    help="From the crash until the others notice.",
)
@click.option("--seed", default=1, show_default=True, help="Of the first run; the next one has the next.")
@JSON
def recovery(matrix: str, runs: int, detect_ms: int, seed: int, as_json: bool) -> None:
    """A coordinator dies for ever, in virtual time: how soon the others finish what it left.

    \b
    Example: python -m bench recovery --matrix gryff5 --runs 200
    """
    console = Console(as_json)
    options = RecoveryOptions(matrix=matrix, runs=runs, detect_ms=detect_ms, seed=seed)
    result = run_recovery(options, console.progress)
    console.progress_done()
    console.result(to_json(result), as_table(result))
    raise SystemExit(bool(result.wrong))
