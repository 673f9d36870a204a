"""EPaxos and Raft on the same links under the same load, cell by cell: `python -m bench compare`.

A cell is one protocol, with its leader at one site where it has one, at one share of conflicting commands. Everything
else is the same: engine, disk, links, clients, arrival times. Every Raft leader is a cell of its own, since where the
leader stands is the operator's choice and changes the result more than anything else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import trio

from bench import cell as real, places, virtual_cell
from bench.cell import HOT_KEY, CellError, CellLoad, Progress
from bench.comparison import Cell, Comparison, SiteFigures, as_table, percentiles, steps
from bench.options import BACKEND, JSON, MATRIX, OUT
from bench.provenance import provenance
from epaxos.amount import POSITIVE, Amount
from epaxos.console import Console
from epaxos.tables import percent
from topology import Matrix, bounds, load as load_matrix
from topology.lab import Lab


class Keys(NamedTuple):
    """Which keys are written: that share on the one hot key; of the others, each client has its own without Zipf."""

    conflict: float
    zipf: float | None

    def __str__(self) -> str:
        return f"{percent(self.conflict)} conflicts" if self.zipf is None else f"Zipf {self.zipf:g}"


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare. Raises ConfigError for what cannot be."""

    matrix: str = "gryff5"
    backend: str = "auto"
    """How to make links as long as the matrix says: see `options.BACKENDS`."""
    conflicts: tuple[float, ...] = (0.0, 0.02, 0.25)
    """Shares of the commands that write one key, for which there is a cell each."""
    zipf: tuple[float, ...] = ()
    """Exponents, for which there is a cell each in which all keys are drawn from `zipf_keys` that all sites share."""
    zipf_keys: int = 10_000
    leaders: tuple[str, ...] = ("best", "worst")
    """Raft's leaders: sites, or best, worst, all; none leaves Raft out."""
    seconds: float = 15.0
    """Of measured load, in each cell."""
    clients: int = 10
    rate_per_s: float = 2.5
    seed: int = 1

    def __post_init__(self) -> None:
        for keys in self.all_keys():
            self.load(keys)

    def all_keys(self) -> list[Keys]:
        """Which keys are written, for each row of cells."""
        return [Keys(share, None) for share in self.conflicts] + [Keys(0.0, exponent) for exponent in self.zipf]

    def load(self, keys: Keys) -> CellLoad:
        """The load of the cells that write those keys."""
        return CellLoad(
            seconds=self.seconds,
            clients=self.clients,
            rate_per_s=self.rate_per_s,
            hot_share=keys.conflict,
            zipf=keys.zipf,
            zipf_keys=self.zipf_keys,
            seed=self.seed,
        )

    def common(self) -> dict[str, Any]:
        """What the loads of all cells have in common."""
        return {name: getattr(self, name) for name in ("seconds", "clients", "rate_per_s", "zipf_keys", "seed")}


class Plan(NamedTuple):
    """One cell to come."""

    protocol: str
    leader: str | None
    keys: Keys

    def __str__(self) -> str:
        led = f" from {self.leader}" if self.leader else ""
        return f"{self.protocol}{led} at {self.keys}"


Measure = Callable[[Plan, Progress], Cell]


def run_compare(options: CompareOptions, progress: Progress) -> Comparison:
    """Every cell, one after the other. Raises what `run_cell` raises, and LabError."""
    matrix = load_matrix(options.matrix)
    plans = [Plan(*who, keys) for keys in options.all_keys() for who in _contenders(options, matrix)]
    result = Comparison(
        matrix=options.matrix,
        backend=places.chosen(options.backend),
        load=options.common(),
        provenance=provenance(),
        sites=matrix.sites,
        rtt_us=matrix.rtt_us,
    )
    with places.place(matrix, result.backend) as lab:
        real_ = partial(_real, options, matrix, lab)
        _run_all(plans, result, partial(_virtual, options, matrix) if result.backend == "virtual" else real_, progress)
    return result


def _run_all(plans: list[Plan], result: Comparison, measure: Measure, progress: Progress) -> None:
    for number, plan in enumerate(plans, 1):
        head = f"cell {number} of {len(plans)}, {plan}"
        result.cells.append(measure(plan, partial(_prefixed, progress, head)))


def _prefixed(progress: Progress, head: str, words: str) -> None:
    progress(f"{head}: {words}")


def _contenders(options: CompareOptions, matrix: Matrix) -> Iterator[tuple[str, str | None]]:
    """(protocol, leader), each once."""
    yield "epaxos", None
    ranked = [placed.site for placed in bounds.leaders(matrix)]
    named = {"best": ranked[:1], "worst": ranked[-1:], "all": ranked, "none": []}
    for leader in dict.fromkeys(site for word in options.leaders for site in named.get(word, [word])):
        matrix.index(leader)  # refuses an unknown one before anything runs
        yield "raft", leader


def _virtual(options: CompareOptions, matrix: Matrix, plan: Plan, progress: Progress) -> Cell:
    return virtual_cell.run(matrix, plan.protocol, plan.leader, options.load(plan.keys), progress)


def _real(options: CompareOptions, matrix: Matrix, lab: Lab | None, plan: Plan, progress: Progress) -> Cell:
    with TemporaryDirectory(prefix="epaxos-compare-") as directory:
        spec = places.spec(
            matrix, options.matrix, lab, Path(directory), protocol=plan.protocol, leader=plan.leader, hot_key=HOT_KEY
        )
        measured = trio.run(real.run_cell, spec, matrix, options.load(plan.keys), progress)
    if measured.leader != plan.leader:
        raise CellError(f"{measured.leader} led, and not {plan.leader}, which was to be measured")
    return _summed(measured, plan)


def _summed(measured: real.Cell, plan: Plan) -> Cell:
    samples = {site: tally.ascending_us() for site, tally in measured.tallies.items()}
    pooled = sorted(us for each in samples.values() for us in each)
    commands = sum(tally.answered for tally in measured.tallies.values())
    sites = {
        site.site: SiteFigures(
            optimum_us=site.optimum_us,
            bound_us=site.bound_us,
            commit_us={"p50": site.commit_p50_us, "p99": site.commit_p99_us},
            execute_us=percentiles(samples[site.site]),
            cdf_us=steps(samples[site.site]),
            fast_share=site.cold_fast_share,
            answered=site.answered,
            failed=site.rejected + site.unknown + site.other + site.unsent,
        )
        for site in measured.sites
    }
    return Cell(
        protocol=plan.protocol,
        leader=plan.leader,
        conflict=plan.keys.conflict,
        zipf=plan.keys.zipf,
        sites=sites,
        pooled_us=percentiles(pooled),
        pooled_cdf_us=steps(pooled),
        recoveries=_during(measured, lambda status: status["detail"].get("recoveries", 0)),
        groups=_groups([status["groups"] for status in measured.statuses.values()]),
        syncs_a_command=_during(measured, lambda status: status["disk"]["syncs"]) / commands if commands else None,
        bytes_a_command=_during(measured, _sent_bytes) / commands if commands else None,
        busy_share=measured.busy_share,
    )


def _during(measured: real.Cell, counted: Callable[[dict[str, Any]], int]) -> int:
    """By how much a counter of all replicas together grew under the measured load."""
    return sum(counted(measured.statuses[site]) - counted(measured.before[site]) for site in measured.statuses)


def _sent_bytes(status: dict[str, Any]) -> int:
    return sum(link["sent_bytes"] for link in status["peers"].values())


def _groups(seen: list[dict[str, int]]) -> dict[str, int | None]:
    """Of the replicas, which execute the same groups, the median one's p50; and the largest group of all."""
    return {"p50": median_low(each["p50"] for each in seen), "max": max(each["max"] for each in seen)}


@click.command()
@MATRIX
@BACKEND
@click.option(
    "--conflicts", default="0,2,25", show_default=True, metavar="%,%,…", help="Shares on the one hot key; or none."
)
@click.option("--zipf", default="", metavar="θ,θ,…", help="Exponents: keys that all sites share, drawn by Zipf.")
@click.option("--zipf-keys", default=10_000, show_default=True, type=click.IntRange(1, 1_000_000), help="So many.")
@click.option("--leaders", default="best,worst", show_default=True, help="Raft's: sites, or best, worst, all, none.")
@click.option("--seconds", default=15.0, show_default=True, type=Amount(1, 3600), help="Of load, a cell.")
@click.option("--clients", default=10, show_default=True, type=click.IntRange(1, 1000), help="Open-loop, at each site.")
@click.option(
    "--rate", "rate_per_s", type=POSITIVE, default=2.5, show_default=True, help="Commands a second of each client."
)
@click.option("--seed", default=1, show_default=True, help="Of the arrivals.")
@OUT
@JSON
def compare(conflicts: str, zipf: str, leaders: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """EPaxos against Raft led from each of several sites, on the same links under the same load.

    \b
    Example: python -m bench compare --matrix gryff5 --conflicts 0,2,50 --leaders all
             python -m bench compare --conflicts none --zipf 0.9,0.99 --zipf-keys 1000
             python -m bench compare --backend virtual --seconds 120
    """
    console = Console(as_json)
    options = CompareOptions(
        conflicts=tuple(share / 100 for share in _numbers("--conflicts", conflicts)),
        zipf=tuple(_numbers("--zipf", zipf)),
        leaders=tuple(word.strip() for word in leaders.split(",")),
        **chosen,
    )
    result = run_compare(options, console.progress)
    console.progress_done()
    if out is not None:
        out.write_text(json.dumps(result.to_json()), encoding="utf-8")
    console.result(result.to_json(), as_table(result))


def _numbers(option: str, words: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",") if word.strip() not in ("", "none")]
    except ValueError:
        raise click.UsageError(f"{option} {words}: numbers with commas between them") from None
