"""One cell of a comparison: a cluster on the links of a matrix, an open load at every site, and what came of it.

The order of things: start the replicas, check the links, warm up, load, ask every replica what it saw, stop. The demo
is one cell; `compare` is many. Whatever ends it, no process stays behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

import trio

from bench import load, open_loop, processors, sites
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.sites import Measured, SiteResult
from bench.tally import Tally
from epaxos.errors import ConfigError, EpaxosError
from topology import bounds

if TYPE_CHECKING:
    from topology import Matrix
    from topology.lab import Lab

HOT_KEY: Final = "hot"

READY_WITHIN_S: Final = 120.0
"""A few interpreters start on one machine and find each other."""

LINKS_FOR_S: Final = 3.0
LINKS_WITHIN_S: Final = 15.0
"""The links are watched for three seconds, and as long as their medians are not those of the matrix, up to fifteen:
other work on the machine may disturb the first pings, and a link that is truly wrong stays wrong."""

_START_IN_S: Final = 0.5
"""The connections of a load open before its first command is due."""

_POLL_S: Final = 0.2

Progress = Callable[[str], None]
"""Told in one line where a run stands."""


class CellError(EpaxosError):
    """The cell could not measure what it promises to; nothing is reported."""


@dataclass(frozen=True, kw_only=True)
class CellLoad:
    """The load of every site. Raises ConfigError for one that cannot be drawn."""

    seconds: float
    """Of measured load."""
    warmup_seconds: float = 3.0
    """Of load before it, of which nothing is reported."""
    clients: int = 10
    """Open-loop clients at each site."""
    rate_per_s: float = 2.5
    """Commands a second of each client."""
    hot_share: float = 0.02
    """This share of the commands of each site, to the nearest command, writes one key that all sites share."""
    zipf: float | None = None
    """Draws all other keys from `zipf_keys` shared ones: see `load.Shape`."""
    zipf_keys: int = 10_000
    seed: int = 1

    def __post_init__(self) -> None:
        try:
            self.shape(self.seconds)
            self.shape(self.warmup_seconds)
        except ValueError as error:
            raise ConfigError(f"this load cannot be drawn: {error}") from error

    def shape(self, seconds: float) -> load.Shape:
        """The load of each site for so long."""
        return load.Shape(
            clients=self.clients,
            rate_per_s=self.rate_per_s,
            duration_s=seconds,
            hot_share=self.hot_share,
            hot_key=HOT_KEY.encode(),
            zipf=self.zipf,
            zipf_keys=self.zipf_keys,
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell showed."""

    sites: tuple[SiteResult, ...]
    leader: str | None
    """Who led; None where the protocol has no leader. The bounds of the sites are those under this leader."""
    tallies: dict[str, Tally]
    """Every site's commands, for distributions."""
    statuses: dict[str, dict[str, Any]]
    """What `EPAXOS STATUS` said at every site after the load."""
    before: dict[str, dict[str, Any]]
    """And after the warm-up."""
    busy_share: float | None
    """Of the processors of this machine, under the load."""


async def run_cell(spec: ClusterSpec, matrix: Matrix, load_: CellLoad, progress: Progress) -> Cell:
    """Start the cluster, load it, stop it; when this returns or raises, no process of it is left.

    Raises ConfigError for a protocol that there is not, ClusterError when a replica does not start or ends, and
    CellError when the links are not those of the matrix or the leader changed meanwhile.
    """
    bounds.protocol_us(spec.protocol, matrix, matrix.sites[0])  # refuses an unknown protocol before anything runs
    progress(f"starting {len(matrix.sites)} replicas")
    async with local_cluster(spec) as cluster:
        leader, measured, before, busy_share = await _measure(cluster, matrix, load_, progress)
        progress("stopping the replicas")
    judged = partial(sites.judge, matrix, spec.protocol, hot_key=HOT_KEY, leader=leader)
    return Cell(
        sites=tuple(judged(site, measured[site]) for site in matrix.sites),
        leader=leader,
        tallies={site: each.tally for site, each in measured.items()},
        statuses={site: each.status for site, each in measured.items()},
        before=before,
        busy_share=busy_share,
    )


async def _measure(
    cluster: LocalCluster, matrix: Matrix, load_: CellLoad, progress: Progress
) -> tuple[str | None, dict[str, Measured], dict[str, dict[str, Any]], float | None]:
    """From starting processes to who led, if anybody, what each site yields, its status after the warm-up, and how busy
    the processors were."""
    await cluster.wait_ready(within_s=READY_WITHIN_S)
    progress("measuring the links")
    links_us = await check_links(cluster, matrix)
    await _load(cluster, load_.shape(load_.warmup_seconds), f"{load_.seed}/warm-up", progress)
    leader = await _leader(cluster, matrix)
    for site in matrix.sites:
        await cluster.ask(site, "EPAXOS", "RESETSTATS")
    before = {site: await cluster.status(site) for site in matrix.sites}
    spent = processors.spent()
    tallies = await _load(cluster, load_.shape(load_.seconds), str(load_.seed), progress)
    busy_share = processors.busy_share(spent, processors.spent())
    measured = {site: Measured(links_us[site], tallies[site], await cluster.status(site)) for site in matrix.sites}
    if await _leader(cluster, matrix) != leader:
        raise CellError("the leader changed during the measurement: no one bound holds for all of it")
    return leader, measured, before, busy_share


async def _leader(cluster: LocalCluster, matrix: Matrix) -> str | None:
    """Who leads, if anybody. Raises CellError when the replicas do not agree."""
    try:
        return sites.leader_of(matrix, [await cluster.status(site) for site in matrix.sites])
    except ValueError as error:
        raise CellError(str(error)) from error


async def check_links(cluster: LocalCluster, matrix: Matrix) -> dict[str, dict[str, int]]:
    """site -> peer -> median round trip in microseconds, before any load.

    Raises CellError naming the links that are not those of the matrix.
    """
    lab = cluster.spec.lab
    return await _links(cluster, matrix) if lab is None else await trio.to_thread.run_sync(_lab_links, lab)


async def _links(cluster: LocalCluster, matrix: Matrix) -> dict[str, dict[str, int]]:
    """site -> peer -> median round trip in microseconds as the replicas measure it, once all are those of the matrix.

    Raises CellError naming the links that are not.
    """
    seen: dict[str, dict[str, list[int]]] = {site: {} for site in matrix.sites}
    off = ["the replicas do not answer"]
    enough_s = trio.current_time() + LINKS_FOR_S
    with trio.move_on_after(LINKS_WITHIN_S):
        while True:
            cluster.check()
            for site in matrix.sites:
                for peer, link in (await cluster.status(site))["peers"].items():
                    if link["rtt_us"] is not None:
                        seen[site].setdefault(peer, []).append(link["rtt_us"])
            links_us = {site: {peer: median_low(all_us) for peer, all_us in seen[site].items()} for site in seen}
            off = sites.links_off(matrix, links_us)
            if not off and trio.current_time() >= enough_s:
                return links_us
            await trio.sleep(_POLL_S)
    raise CellError(f"the links are not those of {matrix.name}: {'; '.join(off)}")


def _lab_links(lab: Lab) -> dict[str, dict[str, int]]:
    """site -> peer -> round trip in microseconds, of packets between the regions.

    Raises CellError naming the pairs whose links are not those of the lab.
    """
    measured = lab.measure()
    if off := lab.off_matrix(measured):
        raise CellError(f"the links of lab {lab.state.name} are not what they should be: {'; '.join(off)}")
    links_us: dict[str, dict[str, int]] = {site: {} for site in lab.sites}
    for (a, b), rtt_us in measured.items():
        assert rtt_us is not None
        links_us[a][b] = links_us[b][a] = rtt_us
    return links_us


async def _load(cluster: LocalCluster, shape: load.Shape, seed: str, progress: Progress) -> dict[str, Tally]:
    """Loads every site at once; what became of each site's commands.

    Raises ClusterError when a replica ends meanwhile.
    """
    tallies = {site: Tally() for site in cluster.spec.names}
    planned = shape.commands * len(tallies)
    start_s = trio.current_time() + _START_IN_S
    places = [
        open_loop.Site(partial(cluster.socket_to, site), load.draw(shape, site, seed), tally)
        for site, tally in tallies.items()
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(open_loop.run, places, shape, start_s=start_s))
        while cluster.running() and sum(tally.settled for tally in tallies.values()) < planned:
            answered = sum(tally.answered for tally in tallies.values())
            failed = sum(tally.failed for tally in tallies.values())
            done_s = min(max(0.0, trio.current_time() - start_s), shape.duration_s)
            progress(f"load: {done_s:.0f} of {shape.duration_s:g} s, {answered} commands answered, {failed} failed")
            await trio.sleep(_POLL_S)
        nursery.cancel_scope.cancel()
    cluster.check()
    return tallies
