"""The result of a comparison: what every cell showed, as plain values for reports, and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.places import in_words
from bench.tally import percentile
from epaxos.tables import ABSENT, Column, count, ms, percent, ratio, render

FORMAT: Final = 2
"""Of a result as JSON; it grows when a field changes its meaning."""

SHARES: Final = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}
CDF_STEPS: Final = 200

Percentiles = dict[str, int | None]
"""Name of a percentile -> microseconds; None where there are too few samples to claim it."""


def percentiles(ascending_us: Sequence[int]) -> Percentiles:
    """Those of samples in ascending order."""
    return {name: percentile(ascending_us, share) for name, share in SHARES.items()}


def steps(ascending_us: Sequence[int]) -> list[int]:
    """The distribution at equal steps, from the fastest to the slowest."""
    if not ascending_us:
        return []
    last = len(ascending_us) - 1
    return [ascending_us[round(step * last / CDF_STEPS)] for step in range(CDF_STEPS + 1)]


@dataclass(frozen=True, kw_only=True)
class SiteFigures:
    """One site of one cell. Times in microseconds."""

    optimum_us: int
    """Computed: one round trip to the nearest majority."""
    bound_us: int
    """Computed: the best the protocol can do here, under the leader it had."""
    commit_us: Percentiles
    """From the submission to the decision, as the replica saw it; empty where that was not measured."""
    execute_us: Percentiles
    """What a client sees: from the intended send time to the reply."""
    cdf_us: list[int]
    fast_share: float | None
    """The share of the commands on keys of their own that committed on the fast path."""
    answered: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One protocol under one leader at one share of conflicting commands."""

    protocol: str
    leader: str | None
    conflict: float
    """The share of the commands on the one hot key."""
    zipf: float | None
    """The exponent of the distribution that the other keys were drawn from; None: each client has its own."""
    sites: dict[str, SiteFigures]
    pooled_us: Percentiles
    pooled_cdf_us: list[int]
    recoveries: int
    groups: dict[str, int | None]
    """Batches that executed together, because they depend on one another: p50 and max, over all groups everywhere."""
    syncs_a_command: float | None
    """Syncs of disks, of all replicas together."""
    bytes_a_command: float | None
    """Between replicas, all links together."""
    busy_share: float | None
    """Of the processors of the machine that all of it ran on, under the load; None where no time passes."""

    @property
    def workload(self) -> str:
        """Which keys were written, in a word or two."""
        return percent(self.conflict) if self.zipf is None else f"Zipf {self.zipf:g}"

    @property
    def label(self) -> str:
        """What it is called."""
        return self.protocol if self.leader is None else f"{self.protocol}, leader {self.leader}"

    @property
    def mean_p50_us(self) -> float | None:
        """The mean over the sites of the median execution."""
        return _mean([site.execute_us["p50"] for site in self.sites.values()])

    @property
    def mean_bound_us(self) -> float:
        """The mean over the sites of the computed bound."""
        return sum(site.bound_us for site in self.sites.values()) / len(self.sites)

    @property
    def mean_fast_share(self) -> float | None:
        """The mean over the sites of the fast-path share; None where the protocol has none."""
        return _mean([site.fast_share for site in self.sites.values()])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A whole run."""

    matrix: str
    backend: str
    """How links were made as long as they are; `virtual`: the engines ran in virtual time."""
    load: dict[str, Any]
    """The load of every site but for the share of conflicts, and the seed."""
    provenance: dict[str, Any]
    sites: tuple[str, ...]
    rtt_us: tuple[tuple[int, ...], ...]
    cells: list[Cell] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        derived = ("label", "workload", "mean_p50_us", "mean_bound_us", "mean_fast_share")
        return {"format": FORMAT, "what": "compare"} | {
            **asdict(self),
            "cells": [asdict(cell) | {name: getattr(cell, name) for name in derived} for cell in self.cells],
        }


# ------------------------------------------------------------------------------------------------------------ tables


def as_table(result: Comparison) -> str:
    """For people: the mean of each cell, then the median at every site."""
    where, load = result.provenance, result.load
    return "\n".join(
        [
            f"{result.matrix}: {len(result.sites)} sites, {load['clients']} open-loop clients at each,"
            f" {load['rate_per_s']:g} commands/s a client, {load['seconds']:g} s a cell, seed {load['seed']}",
            f"{in_words(result.backend)}; {where['machine']}, commit {where['commit']}",
            "",
            _cells(result),
            "",
            "Milliseconds of execution: what a client sees, from the intended send time to the reply. Percentiles are",
            f"of all sites together; {ABSENT}: too few commands to claim the figure. Bounds are computed. A group:",
            "so many batches as executed together. Syncs, and bytes between replicas: of all replicas together.",
            "Busy: the processors of this machine; near 100 % what is measured is the wait for them (lower --rate).",
            "",
            _sites(result),
        ]
    )


def _cells(result: Comparison) -> str:
    rows = []
    for cell in result.cells:
        raft_us, mean_us = _best_raft_us(result, cell.workload), cell.mean_p50_us
        rows.append(
            [
                cell.workload,
                cell.label,
                ms(cell.mean_bound_us),
                ms(mean_us),
                *(ms(cell.pooled_us[name]) for name in ("p90", "p99", "p99.9")),
                percent(cell.mean_fast_share),
                ratio(raft_us / mean_us if raft_us is not None and mean_us else None),
                "/".join(count(cell.groups[name]) for name in ("p50", "max")),
                ratio(cell.syncs_a_command),
                count(cell.bytes_a_command),
                percent(cell.busy_share),
            ]
        )
    columns = [
        *(Column("conflict"), Column("protocol", right=False), Column("bound\nmean"), Column("execution\nmean p50")),
        *(Column("p90"), Column("p99"), Column("p99.9"), Column("fast\npath"), Column("best Raft\n/ this")),
        *(Column("group\np50/max"), Column("a command\nsyncs"), Column("bytes"), Column("CPU\nbusy")),
    ]
    return render(columns, rows)


def _best_raft_us(result: Comparison, workload: str) -> float | None:
    cells = [cell for cell in result.cells if cell.protocol == "raft" and cell.workload == workload]
    return min((cell.mean_p50_us for cell in cells if cell.mean_p50_us is not None), default=None)


def _sites(result: Comparison) -> str:
    if not result.cells:
        return ""
    rows = [["", "optimum, computed", *(ms(site.optimum_us) for site in result.cells[0].sites.values())]]
    rows += [
        [cell.workload, cell.label, *(ms(site.execute_us["p50"]) for site in cell.sites.values())]
        for cell in result.cells
    ]
    return render([Column("conflict"), Column("execution p50", right=False), *map(Column, result.sites)], rows)
