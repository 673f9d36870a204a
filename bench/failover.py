"""Replicas die under load and come back, with EPaxos and with Raft: what clients elsewhere notice, over time.

Two questions. Do the clients at other sites keep getting answers, on keys that the dead replica had nothing to do with,
and on the key that it was writing when it died? And for how long does nobody get any when the dead one led?
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
import trio

from bench import elections, outage, places, virtual_outage
from bench.cell import HOT_KEY
from bench.cluster import ClusterSpec
from bench.options import BACKEND, JSON, MATRIX, OUT
from bench.outage import Progress, Record, Script
from bench.provenance import provenance
from bench.timeline import KINDS, OTHER, SHARED, Bucket, Gap, Outage, buckets, gaps
from epaxos.amount import PERCENT, Amount
from epaxos.config import PROTOCOLS
from epaxos.console import Console
from epaxos.errors import ConfigError
from epaxos.tables import Column, ms, render, sparks
from topology import Matrix, bounds, load as load_matrix

if TYPE_CHECKING:
    from topology.lab import Lab

FORMAT: Final = 1
LATE_US: Final = 50_000
"""When the load itself is so late, the processors have no time left."""
VIRTUAL_RATE: Final = 100.0
"""Commands a second at each site in virtual time, where there is no capacity to take half of."""


_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class FailoverOptions:
    """What to run."""

    matrix: str = "gryff5"
    backend: str = "auto"
    phase_s: float = 5.0
    """Of each of the five phases: quiet, a site dead, back, the leader dead, back."""
    rate_per_s: float | None = None
    """Commands a second at each site; None: half of what this machine takes, measured before."""
    shared: float = 0.1
    """The share of them that write one key from all sites."""
    leader: str | None = None
    """Where Raft is led from, and the second site to die; None: the best-placed one."""
    victim: str | None = None
    """The first site to die; None: the one nearest to the leader, whose answers most commands wait for."""
    bucket_ms: int = 250
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What one protocol showed. Times in microseconds from the end of the warm-up."""

    protocol: str
    leader: str | None
    capacity_per_s: float | None
    """Commands a second at each site that this machine takes before they queue; None where that was not measured."""
    outages: list[Outage]
    gaps: list[list[Gap]]
    """For each outage, what the surviving sites noticed."""
    series: dict[str, dict[str, list[Bucket]]]
    """Site -> kind of key -> its buckets; `all` stands for all sites."""
    answered: int
    unanswered: int
    reasons: dict[str, dict[str, int]]
    lag_p99_us: int | None
    """How late the load generator itself sent; None in virtual time."""
    longest_sync_us: int | None
    """Of any disk; None in virtual time."""

    def longest(self, number: int, kind: str) -> Gap:
        """The longest gap in one outage on one kind of key."""
        return max((gap for gap in self.gaps[number] if gap.kind == kind), key=lambda gap: gap.down_us)


@dataclass(frozen=True, kw_only=True)
class FailoverResult:
    """A whole run."""

    matrix: str
    backend: str
    load: dict[str, Any]
    provenance: dict[str, Any]
    sites: tuple[str, ...]
    bucket_us: int
    timelines: list[Timeline] = field(default_factory=list)

    @property
    def kept_answering(self) -> bool:
        """Did EPaxos answer commands on other keys at every surviving site without a gap longer than one round trip?"""
        found = [gap for each in self.timelines if each.protocol == "epaxos" for gaps_ in each.gaps for gap in gaps_]
        return all(gap.within_rtt for gap in found if gap.kind == OTHER)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"format": FORMAT, "what": "failover"} | asdict(self) | {"kept_answering": self.kept_answering}


def run_failover(options: FailoverOptions, progress: Progress = lambda words: None) -> FailoverResult:
    """Both protocols, one after the other, on the same links.

    Raises LabError, ClusterError, CellError, and ConfigError for sites that are not in the matrix.
    """
    matrix = load_matrix(options.matrix)
    leader, victim = who_dies(options, matrix)
    backend = places.chosen(options.backend)
    with places.place(matrix, backend) as lab:
        runs = _Runs(options, matrix, lab, leader, backend == "virtual")
        capacities, rate_per_s = runs.rate(progress)
        script = Script(
            victims=(victim, leader),
            phase_us=round(options.phase_s * 1e6),
            rate_per_s=rate_per_s,
            shared=options.shared,
            seed=options.seed,
        )
        result = FailoverResult(
            matrix=options.matrix,
            backend=backend,
            load={"rate_per_s": rate_per_s, "half_of_capacity": options.rate_per_s is None and bool(capacities)}
            | {name: getattr(options, name) for name in ("phase_s", "shared", "seed")},
            provenance=provenance(),
            sites=matrix.sites,
            bucket_us=options.bucket_ms * 1_000,
        )
        for protocol in PROTOCOLS:
            record = runs.run(protocol, script, partial(_prefixed, progress, protocol))
            result.timelines.append(
                _timeline(matrix, protocol, script, record, capacities.get(protocol), result.bucket_us)
            )
    return result


def who_dies(options: FailoverOptions, matrix: Matrix) -> tuple[str, str]:
    """Who leads, and who dies first. Raises ConfigError."""
    if len(matrix.sites) < 3:
        raise ConfigError(f"matrix {matrix.name}: fewer than three sites have no majority without one of them")
    leader = options.leader or bounds.best_leader(matrix).site
    victim = options.victim or matrix.nearest(leader)[0][1]
    for site in (leader, victim):
        matrix.index(site)
    if leader == victim:
        raise ConfigError(f"{leader} leads and dies second: choose another one to die first")
    return leader, victim


class _Runs:
    """The same place for all runs."""

    def __init__(self, options: FailoverOptions, matrix: Matrix, lab: Lab | None, leader: str, virtual: bool) -> None:
        self.options, self.matrix, self.lab, self.leader, self.virtual = options, matrix, lab, leader, virtual

    def rate(self, progress: Progress) -> tuple[dict[str, float], float]:
        """Each protocol's capacity where it was asked for, and the load of a site: half of the smaller one."""
        if self.options.rate_per_s is not None:
            return {}, self.options.rate_per_s
        if self.virtual:
            return {}, VIRTUAL_RATE
        capacities = {}
        for protocol in PROTOCOLS:
            told = partial(_prefixed, progress, protocol)
            ask = partial(outage.capacity, shared=self.options.shared, progress=told)
            capacities[protocol] = self._on_cluster(protocol, ask)
        return capacities, round(min(capacities.values()) / 2)

    def run(self, protocol: str, script: Script, progress: Progress) -> Record:
        """The script with one protocol."""
        leader = self._leader(protocol)
        if self.virtual:
            return virtual_outage.run(self.matrix, protocol, leader, script, progress)
        return self._on_cluster(protocol, lambda spec: outage.run(spec, self.matrix, script, progress))

    def _leader(self, protocol: str) -> str | None:
        return self.leader if protocol == "raft" else None

    def _on_cluster(self, protocol: str, what: Callable[[ClusterSpec], Awaitable[_T]]) -> _T:
        with TemporaryDirectory(prefix="epaxos-failover-") as directory:
            spec = places.spec(
                self.matrix,
                self.options.matrix,
                self.lab,
                Path(directory),
                protocol=protocol,
                leader=self._leader(protocol),
                hot_key=HOT_KEY,
            )
            return trio.run(what, spec)


def _prefixed(progress: Progress, head: str, words: str) -> None:
    progress(f"{head}: {words}")


def _timeline(
    matrix: Matrix, protocol: str, script: Script, record: Record, capacity: float | None, bucket_us: int
) -> Timeline:
    measured = {key: [each for each in answers if each.due_us >= 0] for key, answers in record.answers.items()}
    cut = partial(buckets, bucket_us=bucket_us, until_us=script.until_us)
    series = {site: {kind: list(cut(record.answers.get((site, kind), ()))) for kind in KINDS} for site in matrix.sites}
    series["all"] = {
        kind: list(cut([each for site in matrix.sites for each in record.answers.get((site, kind), ())]))
        for kind in KINDS
    }
    answered = sum(map(len, measured.values()))
    quiet_us = min(each.killed_us for each in record.outages)
    return Timeline(
        protocol=protocol,
        leader=record.leader,
        capacity_per_s=capacity,
        outages=record.outages,
        gaps=[gaps(matrix, each, record.answers, record.due, quiet_us=quiet_us) for each in record.outages],
        series=series,
        answered=answered,
        unanswered=sum(due_us >= 0 for due in record.due.values() for due_us in due) - answered,
        reasons=record.reasons,
        lag_p99_us=record.lag_p99_us,
        longest_sync_us=record.longest_sync_us,
    )


# --------------------------------------------------------------------------------------------------------------- tables


def as_table(result: FailoverResult) -> str:
    """For people."""
    load = result.load
    half = capacity_words(result.to_json())
    lines = [
        f"{result.matrix}: {load['rate_per_s']:g} commands/s at each of {len(result.sites)} sites{half};"
        f" open loop at equal intervals, {100 * load['shared']:g} % write one key from all sites; seed {load['seed']}",
        f"{places.in_words(result.backend)}; {result.provenance['machine']}, commit {result.provenance['commit']}",
        "",
        *(line for timeline in result.timelines for line in _spark_lines(timeline, result.bucket_us)),
        "",
        render(_COLUMNS, [row for timeline in result.timelines for row in _rows(timeline)]),
        "",
        "Milliseconds. A gap is the longest time without an answer at a site: before anybody died, while the replica",
        "was dead, and from its restart on. RTT: computed, to the nearest majority of those alive, without which",
        "nothing is decided there. Wait: the longest of the commands due then, from the intended send time; lost: how",
        "many of them were refused or never answered.",
        "",
        *_late(result),
        f"epaxos, other keys: no gap at a surviving site longer than one RTT, dead or back: {_verdict(result)}",
    ]
    return "\n".join(lines)


def capacity_words(result: dict[str, Any]) -> str:
    """Of a result: what the load is half of, if it is that."""
    if not result["load"]["half_of_capacity"]:
        return ""
    slower = min(result["timelines"], key=lambda each: each["capacity_per_s"])
    return f", half of the {slower['capacity_per_s']:.0f} that {slower['protocol']} takes here before commands queue"


def _late(result: FailoverResult) -> list[str]:
    """Who was not back when the next phase should have begun, since the gaps of that one are then of two outages at
    once; and whose load was late itself."""
    return [
        f"{timeline.protocol}: {dead.site} did not serve within its phase: take longer ones (--seconds)"
        for timeline in result.timelines
        for dead in timeline.outages
        if dead.serving_us > dead.until_us
    ] + [
        f"{timeline.protocol}: one command in a hundred left {ms(lag_us)} ms late: this machine has no time for"
        " so many, and its gaps are those of a queue: take fewer (--rate)"
        for timeline in result.timelines
        if (lag_us := timeline.lag_p99_us or 0) > LATE_US
    ]


def _verdict(result: FailoverResult) -> str:
    far = [
        f"{gap.site} {ms(max(gap.down_us, gap.back_us))}, before {ms(gap.before_us)},"
        f" none due for {ms(gap.spacing_us)}, RTT {ms(gap.rtt_us)}"
        for timeline in result.timelines
        if timeline.protocol == "epaxos"
        for found in timeline.gaps
        for gap in found
        if gap.kind == OTHER and not gap.within_rtt
    ]
    return f"NO ({'; '.join(far)})" if far else "yes"


_COLUMNS: Final = [
    *(Column("protocol", right=False), Column("dead", right=False), Column("site", right=False), Column("RTT")),
    *(Column("other keys\ngap before"), Column("dead"), Column("back"), Column("wait before"), Column("dead")),
    *(Column("lost"), Column("shared key\ngap dead"), Column("wait before"), Column("dead"), Column("lost")),
]


def _rows(timeline: Timeline) -> list[list[str]]:
    rows = []
    for dead, found in zip(timeline.outages, timeline.gaps, strict=True):
        by_site: dict[str, dict[str, Gap]] = {}
        for gap in found:
            by_site.setdefault(gap.site, {})[gap.kind] = gap
        who = f"{dead.site}, leader" if dead.site == timeline.leader else dead.site
        for site, kinds in by_site.items():
            other, shared = kinds[OTHER], kinds[SHARED]
            rows.append(
                [
                    *(timeline.protocol, who, site, ms(other.rtt_us)),
                    *map(ms, (other.before_us, other.down_us, other.back_us, other.wait_before_us, other.wait_us)),
                    str(other.unanswered),
                    *map(ms, (shared.down_us, shared.wait_before_us, shared.wait_us)),
                    str(shared.unanswered),
                ]
            )
    return rows


def _spark_lines(timeline: Timeline, bucket_us: int) -> list[str]:
    """Answers over time as a line of blocks, a block a bucket; what happened under it; and the longest gaps."""
    all_ = timeline.series["all"]
    answered = [other.answered + shared.answered for other, shared in zip(all_[OTHER], all_[SHARED], strict=True)]
    marks = [" "] * (len(answered) + 1)
    for dead in timeline.outages:
        for at_us, mark in ((dead.killed_us, "x"), (dead.restarted_us, "^")):
            marks[min(len(answered), at_us // bucket_us)] = mark
    per_s = max(answered, default=0) * 1_000_000 // bucket_us
    other, shared = (
        " and ".join(ms(timeline.longest(number, kind).down_us) for number in range(len(timeline.gaps)))
        for kind in KINDS
    )
    again = " and ".join(f"{ms(dead.serving_us - dead.restarted_us)}" for dead in timeline.outages)
    return [
        f"{timeline.protocol:>7} {sparks(answered)} up to {per_s} answers/s",
        f"        {''.join(marks).rstrip()}  x dies, ^ is started again",
        f"        longest gap while dead: other keys {other} ms, the shared key {shared} ms; serves after {again} ms",
        f"        the load's own delay: p99 {ms(timeline.lag_p99_us)} ms; longest sync of a disk:"
        f" {ms(timeline.longest_sync_us)} ms",
    ]


@click.command()
@MATRIX
@BACKEND
@click.option("--seconds", "phase_s", default=5.0, show_default=True, type=Amount(1, 600), help="A phase.")
@click.option("--rate", "rate_per_s", type=Amount(1), help="Commands a second at each site; else half of capacity.")
@click.option("--shared", default=10.0, show_default=True, type=PERCENT, help="% on a key that all sites write.")
@click.option("--leader", metavar="SITE", help="Where Raft is led from, and who dies second; else the best-placed.")
@click.option("--victim", metavar="SITE", help="Who dies first; else the leader's nearest.")
@click.option("--bucket-ms", default=250, show_default=True, type=click.IntRange(10, 10_000), help="Of the timeline.")
@click.option("--seed", default=1, show_default=True, help="Of the arrivals.")
@OUT
@click.option("--virtual", is_flag=True, help="Instead: many crashes of a leader in virtual time.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="raft",
    show_default=True,
    help="With --virtual: one with a leader.",
)
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1, 10_000), help="With --virtual: crashes.")
@click.option("--detect-ms", type=click.IntRange(0, 60_000), help="With --virtual: when links break; else silence.")
@JSON
def failover(
    virtual: bool,
    protocol: str,
    runs: int,
    detect_ms: int | None,
    shared: float,
    out: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Replicas die under load and come back, with EPaxos and with Raft: what clients elsewhere notice.

    The phases, equally long: quiet; a site dead; back; another one dead, which leads Raft; back. With --virtual, many
    clusters in virtual time lose their leader for ever: how long until another one is able to commit.

    \b
    Examples: python -m bench failover --matrix gryff5
              python -m bench failover --backend virtual --rate 100
              python -m bench failover --virtual --runs 200
    """
    console = Console(as_json)
    if virtual:
        _elections(console, protocol, runs, detect_ms, chosen)
    options = FailoverOptions(shared=shared / 100, **chosen)
    result = run_failover(options, console.progress)
    console.progress_done()
    if out is not None:
        out.write_text(json.dumps(result.to_json()), encoding="utf-8")
    console.result(result.to_json(), as_table(result))


def _elections(console: Console, protocol: str, runs: int, detect_ms: int | None, chosen: dict[str, Any]) -> NoReturn:
    options = elections.ElectionOptions(
        matrix=chosen["matrix"],
        protocol=protocol,
        runs=runs,
        detect_ms=detect_ms,
        leader=chosen["leader"],
        seed=chosen["seed"],
    )
    result = elections.run_elections(options, console.progress)
    console.progress_done()
    console.result(elections.to_json(result), elections.as_table(result))
    raise SystemExit(bool(result.wrong))
