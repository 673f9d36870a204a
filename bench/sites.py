"""What was measured at each site of a loaded cluster, beside what the matrix allows there, and the table of it.

The computed columns are functions of the protocol and the matrix (`topology.bounds`), never of the measurement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.tally import percentile, rank
from epaxos import tables
from epaxos.observe.metrics import fast_share
from epaxos.tables import Column
from topology import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.tally import Tally
    from topology import Matrix

VERDICT_TOLERANCE: Final = 0.05
VERDICT_SLACK_US: Final = 3_000
"""The median commit may exceed the bound by 5 % and 3 ms: the disk, the processing, and a turn of each event loop."""

LINK_TOLERANCE: Final = 0.05
LINK_SLACK_US: Final = 2_000
"""A link may be off by 5 % of its round trip and 2 ms, what scheduling costs on a busy machine; beyond that it is not
the link of the matrix, and nothing measured over it may be reported."""


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """One site. Latencies in microseconds; None where there are too few samples to claim a figure."""

    site: str
    edge: str
    """Whose answer a command here waits for: the farthest member of the nearest fast quorum, or Raft's leader."""
    edge_rtt_us: int
    """The round trip to `edge` in the matrix."""
    edge_measured_us: int
    """The same, the median of what the replica itself measured before the load."""
    optimum_us: int
    """Computed: one round trip to the nearest majority."""
    bound_us: int
    """Computed: the best the protocol can do here; Raft under the leader it had."""
    raft_us: int
    """Computed: what the same clients would see with the best-placed Raft leader."""
    commit_p50_us: int | None
    commit_p99_us: int | None
    execute_p50_us: int | None
    """Execution is what a client sees: from the intended send time to the reply with the result."""
    execute_p99_us: int | None
    cold_fast_share: float | None
    """The share of the commands on keys of their own that committed on the fast path."""
    hot_fast_share: float | None
    """The same of the commands on the hot key."""
    answered: int
    answered_hot: int
    rejected: int
    unknown: int
    other: int
    unsent: int
    lag_p99_us: int | None
    """How late the harness itself sent; the execution latencies include it."""
    reasons: dict[str, int]
    """Error text -> how often."""

    @property
    def ratio(self) -> float | None:
        """Execution p50 over the optimum."""
        return None if self.execute_p50_us is None or not self.optimum_us else self.execute_p50_us / self.optimum_us

    @property
    def allowed_us(self) -> float:
        """The median commit that still counts as near the bound."""
        return self.bound_us * (1 + VERDICT_TOLERANCE) + VERDICT_SLACK_US

    @property
    def near_bound(self) -> bool:
        """Is the median commit within 5 % and 3 ms of the bound? Not when there is no median to claim."""
        return self.commit_p50_us is not None and self.commit_p50_us <= self.allowed_us

    def to_json(self) -> dict[str, Any]:
        """All of it, with what is derived."""
        return asdict(self) | {"ratio": self.ratio, "near_bound": self.near_bound}


class Measured(NamedTuple):
    """What one site yields: the links its replica saw before the load, in microseconds by peer; what became of its
    clients' commands; and what `EPAXOS STATUS` said after the load."""

    links_us: dict[str, int]
    tally: Tally
    status: dict[str, Any]


def links_off(matrix: Matrix, links_us: dict[str, dict[str, int]]) -> list[str]:
    """In words, every link that was not measured yet or is farther from the matrix than is tolerated."""
    off = []
    for site in matrix.sites:
        for rtt_us, peer in matrix.nearest(site):
            seen_us = links_us[site].get(peer)
            if seen_us is None or abs(seen_us - rtt_us) > rtt_us * LINK_TOLERANCE + LINK_SLACK_US:
                off.append(f"{site} to {peer} {tables.ms(seen_us)} ms instead of {tables.ms(rtt_us)} ms")
    return off


def leader_of(matrix: Matrix, statuses: Iterable[dict[str, Any]]) -> str | None:
    """Who leads, by what `EPAXOS STATUS` says at every replica; None when the protocol has no leader.

    Raises ValueError when they name different ones, or none.
    """
    named: set[int | None] = {status["detail"]["leader"] for status in statuses if "leader" in status["detail"]}
    if not named:
        return None
    (leader, *others) = named
    if others or leader is None:
        raise ValueError("the replicas do not agree on a leader")
    return matrix.sites[leader]


def judge(
    matrix: Matrix, protocol: str, site: str, measured: Measured, *, hot_key: str, leader: str | None = None
) -> SiteResult:
    """The figures of one site, under `leader` where the protocol has one. Raises ConfigError for a protocol that has
    no bound."""
    edge_rtt_us, edge = bounds.waits_for(protocol, matrix, site, leader)
    tally, status = measured.tally, measured.status
    ascending_us = tally.ascending_us()
    hot = status["watched"].get(hot_key, {"fast": 0, "slow": 0})
    cold = {path: status["commands"][path] - hot[path] for path in ("fast", "slow")}
    return SiteResult(
        site=site,
        edge=edge,
        edge_rtt_us=edge_rtt_us,
        edge_measured_us=measured.links_us.get(edge, 0),
        optimum_us=bounds.optimum_us(matrix, site),
        bound_us=bounds.protocol_us(protocol, matrix, site, leader),
        raft_us=bounds.protocol_us("raft", matrix, site),
        commit_p50_us=_claimed(status["commit_us"], "p50", 0.50),
        commit_p99_us=_claimed(status["commit_us"], "p99", 0.99),
        execute_p50_us=percentile(ascending_us, 0.50),
        execute_p99_us=percentile(ascending_us, 0.99),
        cold_fast_share=fast_share(cold),
        hot_fast_share=fast_share(hot),
        answered=tally.answered,
        answered_hot=len(tally.hot_us),
        rejected=tally.rejected,
        unknown=tally.unknown,
        other=tally.other,
        unsent=tally.unsent,
        lag_p99_us=percentile(sorted(tally.lag_us), 0.99),
        reasons=dict(tally.reasons),
    )


def _claimed(histogram: dict[str, int], name: str, share: float) -> int | None:
    """A percentile of a replica's histogram, where it has the samples for it."""
    return None if rank(histogram["count"], share) is None else histogram[name]


class _Figure(NamedTuple):
    """One column of numbers: its title, its value at a site, and how a value is written."""

    title: str
    value: Callable[[SiteResult], float | None]
    shown: Callable[[float | None], str] = tables.ms


def render(sites: Sequence[SiteResult], protocol: str, raft_leader: str) -> str:
    """The table in milliseconds, a row a site, the mean over the sites at its foot, the verdict in the last line."""
    figures = _figures(sites, protocol, raft_leader)
    titles = [Column("site", right=False), Column("waits\nfor", right=False), *(Column(each.title) for each in figures)]
    rows = [[site.site, site.edge, *(each.shown(each.value(site)) for each in figures)] for site in sites]
    means = [each.shown(_mean([each.value(site) for site in sites])) for each in figures]
    table = tables.render(titles, rows, foot=[["mean", "", *means]])
    return "\n".join([table, "", *_notes(sites), "", _verdict(sites, protocol)])


def _figures(sites: Sequence[SiteResult], protocol: str, raft_leader: str) -> list[_Figure]:
    """The columns. The protocol's bound has one only where it is not the optimum."""
    figures = [
        _Figure("RTT\nmatrix", lambda site: site.edge_rtt_us),
        _Figure("RTT\nmeasured", lambda site: site.edge_measured_us),
        _Figure("optimum\ncomputed", lambda site: site.optimum_us),
        _Figure("commit\np50", lambda site: site.commit_p50_us),
        _Figure("commit\np99", lambda site: site.commit_p99_us),
        _Figure("execution\np50", lambda site: site.execute_p50_us),
        _Figure("execution\np99", lambda site: site.execute_p99_us),
        _Figure("ex. p50 /\noptimum", lambda site: site.ratio, tables.ratio),
        _Figure("cold on\nfast path", lambda site: site.cold_fast_share, tables.percent),
        _Figure(f"Raft from {raft_leader}\ncomputed", lambda site: site.raft_us),
    ]
    if not _bound_is_optimum(sites):
        figures.insert(3, _Figure(f"{protocol}\ncomputed", lambda site: site.bound_us))
    return figures


def _bound_is_optimum(sites: Sequence[SiteResult]) -> bool:
    return all(site.bound_us == site.optimum_us for site in sites)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None when one of the values may not be claimed."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _notes(sites: Sequence[SiteResult]) -> list[str]:
    answered, hot = sum(site.answered for site in sites), sum(site.answered_hot for site in sites)
    share = tables.percent(hot / answered if answered else None)
    failed = {name: sum(getattr(site, name) for site in sites) for name in ("rejected", "unknown", "other", "unsent")}
    counts = ", ".join(f"{count} {name}" for name, count in failed.items() if count) or "none failed"
    notes = [f"{answered} commands answered, {hot} of them on the one hot key ({share}); {counts}."]
    notes += [f"  {site.site}: {count} × {text}" for site in sites for text, count in site.reasons.items()]
    hot_share = _mean([site.hot_fast_share for site in sites])
    if hot_share is not None:
        notes.append(f"Hot commands on the fast path: {tables.percent(hot_share)} (mean over the sites).")
    lags = [site.lag_p99_us for site in sites if site.lag_p99_us is not None]
    lag = f"; of it, the load generator's own delay: p99 {tables.ms(max(lags))}" if lags else ""
    notes.append(f"Times in ms. Execution: what a client sees, from the intended send time to the reply{lag}.")
    if any(None in (site.commit_p99_us, site.execute_p99_us) for site in sites):
        notes.append(f"{tables.ABSENT}: too few commands to claim the figure.")
    return notes


def _verdict(sites: Sequence[SiteResult], protocol: str) -> str:
    bound = "the optimum" if _bound_is_optimum(sites) else f"the {protocol} bound"
    far = [
        f"{site.site} {tables.ms(site.commit_p50_us)} against {tables.ms(site.allowed_us)} allowed"
        for site in sites
        if not site.near_bound
    ]
    answer = f"NO ({'; '.join(far)})" if far else "yes"
    within = f"{VERDICT_TOLERANCE * 100:g} % + {VERDICT_SLACK_US / 1000:g} ms"
    return f"Commit p50 within {within} of {bound} at every site: {answer}"
