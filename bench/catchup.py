"""A replica comes back after it has missed thousands of instances, in virtual time: how soon has it learned them, at
what rate, and what do the clients of the others notice meanwhile?

What is modelled is the protocol: that it asks at a bounded rate, and that nobody's commands wait for it. What a read of
an old decision costs the disk of whoever answers is not; the rate is what bounds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from bench.options import JSON, MATRIX
from bench.tally import percentile
from bench.virtual import LINKS_UP_US, SECOND_US, Lab
from epaxos.console import Console
from epaxos.ids import Lane, ReplicaId, Vector
from epaxos.messages import Commit, Message
from epaxos.protocols.epaxos.catchup import STEP_IDS, STEP_US
from epaxos.tables import Column, ms, render
from epaxos.testing.record import Life
from topology import load as load_matrix

BEFORE_US: Final = 5_000_000
"""Of load, with everybody there."""
DETECT_US: Final = 500_000
LOOK_US: Final = 20_000
SHOWN_EVERY_US: Final = 200_000
GIVE_UP_US: Final = 120_000_000
TOLERANCE: Final = 1.05
SLACK_US: Final = 5_000
"""While one catches up, a percentile of the others may be 5 % and 5 ms above what it was with everybody there."""
RATE_MAX: Final = STEP_IDS * SECOND_US // STEP_US
"""Instances a second of each lane that are asked for, at most."""


@dataclass(frozen=True, kw_only=True)
class CatchupOptions:
    """What to run."""

    matrix: str = "gryff5"
    away: int = 20_000
    """Instances to miss."""
    rate_per_s: float = 100.0
    """At each site; every command has a key of its own."""
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class CatchupResult:
    """What happened. Times in microseconds."""

    options: CatchupOptions
    site: str
    missed: int
    """Beyond what it had executed when it went."""
    took_us: int | None
    """From its start until it had executed them all; None: it never had."""
    per_lane_s: int
    """Decisions it was sent in the busiest second, of the lane with most."""
    shown: list[dict[str, int]]
    """What its status said meanwhile, five times a second."""
    others_us: dict[str, dict[str, list[int]]]
    """Period -> site -> latencies of the commands asked in it, ascending: `before`, `away`, `catching up`."""

    @property
    def wrong(self) -> list[str]:
        """What was promised and does not hold."""
        found = ["it never caught up"] if self.took_us is None else []
        if self.per_lane_s > 1.1 * RATE_MAX:
            found.append(f"{self.per_lane_s} decisions of one lane in a second; {RATE_MAX} are asked for at most")
        for site, before_us in self.others_us["before"].items():
            for share in (0.5, 0.9):
                usual = percentile(before_us, share)
                found_us = percentile(self.others_us["catching up"][site], share)
                if usual is not None and found_us is not None and found_us > usual * TOLERANCE + SLACK_US:
                    found.append(f"p{100 * share:.0f} at {site} was {ms(usual)} ms and is {ms(found_us)} ms")
        return found


def run_catchup(options: CatchupOptions, progress: Callable[[str], None] = lambda text: None) -> CatchupResult:
    """The whole run. Raises Violation when safety is lost, and ConfigError for an unknown matrix."""
    return _Run(options, progress).outcome()


class _Run:
    """One cluster. The last site of the matrix goes away."""

    def __init__(self, options: CatchupOptions, progress: Callable[[str], None]) -> None:
        self.options = options
        self.progress = progress
        self.lab = lab = Lab(load_matrix(options.matrix), detect_us=DETECT_US, seed=options.seed)
        self.away = lab.n - 1
        self.down_us = LINKS_UP_US + BEFORE_US
        self.back_us = self.down_us
        self.sent: Counter[tuple[int, Lane]] = Counter()
        """(second, lane) -> decisions sent to it, of those that it missed."""
        self.missed = [0] * lab.n
        """For each lane, the highest slot of them."""
        lab.watch.sent.append(self._sent)

    def _sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if self.away in peers and isinstance(message, Commit) and message.id.slot <= self.missed[message.id.lane]:
            self.sent[self.lab.now_us // SECOND_US, message.id.lane] += 1

    def outcome(self) -> CatchupResult:
        """Load, crash, load, restart, and wait."""
        lab, options = self.lab, self.options
        away_us = int(2 * options.away / options.rate_per_s / (lab.n - 1) * SECOND_US)
        for site in range(lab.n):
            end_us = self.down_us if site == self.away else self.down_us + away_us + GIVE_UP_US
            lab.open_loop(
                site, rate_per_s=options.rate_per_s, from_us=LINKS_UP_US, until_us=end_us, key=_own_keys(site)
            )
        lab.run_until(self.down_us)
        had = self._executed(self.away)
        lab.cut_power(self.away)
        while sum(self._executed(0)) - sum(had) < options.away:
            lab.run_until(lab.now_us + SHOWN_EVERY_US)
            self.progress(f"away: {sum(self._executed(0)) - sum(had)} of {options.away} missed")
        self.back_us = lab.now_us
        return self._come_back(had)

    def _executed(self, site: ReplicaId) -> Vector:
        return self.lab.nodes[site].engine.executor.executed().watermark

    def _come_back(self, had: Vector) -> CatchupResult:
        lab = self.lab
        witness = self._executed(0)
        self.missed = list(witness)
        lab.restart(lab.nodes[self.away])
        engine = lab.nodes[self.away].engine
        shown: list[dict[str, int]] = []
        took_us = None
        while took_us is None and lab.now_us < self.back_us + GIVE_UP_US:
            lab.run_until(lab.now_us + LOOK_US)
            done = self._executed(self.away)
            if (lab.now_us - self.back_us) % SHOWN_EVERY_US == 0:
                status: Any = engine.protocol.status()["catching_up"]
                shown.append(dict(status))
                self.progress(f"catching up: {status['missing']} missing, {status['per_s']}/s")
            if all(have >= goal for have, goal in zip(done, witness, strict=True)):
                took_us = lab.now_us - self.back_us
        return CatchupResult(
            options=self.options,
            site=lab.matrix.sites[self.away],
            missed=sum(witness) - sum(had),
            took_us=took_us,
            per_lane_s=max(self.sent.values(), default=0),
            shown=shown,
            others_us=self._others(),
        )

    def _others(self) -> dict[str, dict[str, list[int]]]:
        periods = {
            "before": (LINKS_UP_US, self.down_us - SECOND_US),
            "away": (self.down_us, self.back_us),
            "catching up": (self.back_us, self.lab.now_us),
        }
        names = [name for site, name in enumerate(self.lab.matrix.sites) if site != self.away]
        found: dict[str, dict[str, list[int]]] = {period: {name: [] for name in names} for period in periods}
        for each in self.lab.asked:
            for period, (first_us, last_us) in periods.items():
                if each.site != self.away and first_us <= each.asked_us < last_us and each.took_us is not None:
                    found[period][self.lab.matrix.sites[each.site]].append(each.took_us)
        for by_site in found.values():
            for took_us in by_site.values():
                took_us.sort()
        return found


def _own_keys(site: int) -> Callable[[int], bytes]:
    return lambda number: b"%d:%d" % (site, number)


def as_table(result: CatchupResult) -> str:
    """For people."""
    options, periods = result.options, result.others_us
    columns = [Column("site", right=False)]
    for period in periods:
        columns += [Column(f"{period}\np50"), Column("\np90"), Column("\np99")]
    rows = [_row(site, [by_site[site] for by_site in periods.values()]) for site in periods["before"]]
    pooled = _row("all", [sorted(us for each in by_site.values() for us in each) for by_site in periods.values()])
    took = "never" if result.took_us is None else f"{result.took_us / SECOND_US:.1f} s"
    lines = [
        f"{result.site} was away on {options.matrix} while the others took {options.rate_per_s:g} commands/s each,"
        f" seed {options.seed}",
        "virtual time, modelled links and disks; what the clients of the others waited, in ms",
        "",
        render(columns, rows, foot=[pooled]),
        "",
        f"{result.missed} instances missed; learned and executed after {took}; at most {result.per_lane_s} a second of"
        f" one lane ({RATE_MAX} are asked for at most)",
        *result.wrong,
        f"learned, and within {100 * (TOLERANCE - 1):.0f} % and {SLACK_US // 1_000} ms for the others:"
        f" {'NO' if result.wrong else 'yes'}",
    ]
    return "\n".join(lines)


def _row(name: str, periods_us: list[list[int]]) -> list[str]:
    return [name, *(ms(percentile(us, share)) for us in periods_us for share in (0.5, 0.9, 0.99))]


def to_json(result: CatchupResult) -> dict[str, Any]:
    """For machines; of the samples, the percentiles."""
    others = {
        period: {
            site: {"p50_us": percentile(us, 0.5), "p90_us": percentile(us, 0.9), "p99_us": percentile(us, 0.99)}
            for site, us in by_site.items()
        }
        for period, by_site in result.others_us.items()
    }
    return {
        "options": asdict(result.options),
        "site": result.site,
        "missed": result.missed,
        "took_us": result.took_us,
        "per_lane_s": result.per_lane_s,
        "rate_max": RATE_MAX,
        "shown": result.shown,
        "others": others,
        "wrong": result.wrong,
    }


@click.command()
@MATRIX
@click.option(
    "--away", default=20_000, show_default=True, type=click.IntRange(100, 1_000_000), help="Instances missed."
)
@click.option("--seed", default=1, show_default=True, help="Another seed, other moments of arrival.")
@JSON
def catchup(matrix: str, away: int, seed: int, as_json: bool) -> None:
    """A replica comes back after a while, in virtual time: how soon it has caught up, and what the others notice.

    \b
    Example: python -m bench catchup --away 20000
    """
    console = Console(as_json)
    result = run_catchup(CatchupOptions(matrix=matrix, away=away, seed=seed), console.progress)
    console.progress_done()
    console.result(to_json(result), as_table(result))
    raise SystemExit(bool(result.wrong))
