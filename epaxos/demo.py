"""`epaxos demo`: a cluster on emulated wide-area links on this machine, under an open load, judged by its matrix.

The measuring is `bench`'s and the bounds are `topology`'s; here is the order of things: start the replicas, check the
links, warm up, load, ask every replica what it saw, stop, and report. Whatever ends it, no process stays behind.
"""

from __future__ import annotations

import os
import platform
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

import trio

from bench import load, sites
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.sites import Measured, SiteResult
from bench.tally import Tally
from epaxos._version import VERSION
from epaxos.console import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Console
from epaxos.errors import ConfigError, EpaxosError
from topology import bounds, load as load_matrix

if TYPE_CHECKING:
    from topology import Matrix

HOT_KEY: Final = "hot"

READY_WITHIN_S: Final = 30.0
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


class DemoError(EpaxosError):
    """The demo could not measure what it promises to; nothing is reported."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What to run. Raises ConfigError for a load that cannot be drawn."""

    matrix: str = "gryff5"
    """A built-in matrix by name, or a file by path."""
    protocol: str = "epaxos"
    seconds: float = 48.0
    """Of measured load."""
    warmup_seconds: float = 3.0
    """Of load before it, of which nothing is reported."""
    clients: int = 10
    """Open-loop clients at each site."""
    rate_per_s: float = 2.5
    """Commands a second of each client. The default is low enough that a machine of two cores measures the links and
    not itself; more shows queueing."""
    hot_share: float = 0.02
    """This share of the commands of each site, to the nearest command, writes one key that all sites share."""
    seed: int = 1
    check: bool = False
    """Is a site that misses its bound a failure? For machines that are known to have nothing else to do."""

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
        )


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """A whole run: enough to repeat it, and what it showed."""

    options: DemoOptions
    sites: tuple[SiteResult, ...]
    leader: str | None
    """Who led; None where the protocol has no leader. The bounds of the sites are those under this leader."""
    raft_leader: str
    """Where a Raft leader would serve these sites best; the Raft column is computed for it."""
    machine: str

    @property
    def verdict(self) -> bool:
        """Is the median commit near its bound at every site?"""
        return all(site.near_bound for site in self.sites)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; times in integer microseconds."""
        return {
            "options": asdict(self.options),
            "machine": self.machine,
            "release": VERSION,
            "leader": self.leader,
            "raft_leader": self.raft_leader,
            "sites": [site.to_json() for site in self.sites],
            "verdict": self.verdict,
        }


def main(options: DemoOptions, console: Console) -> int:
    """Runs the demo and prints its result; the exit code: done, failed (with `check`, a site missed its bound), or
    interrupted.

    Raises what `run_demo` raises, possibly inside an exception group.
    """
    result = trio.run(_until_signal, options, console.progress)
    console.progress_done()
    if result is None:
        return EXIT_INTERRUPTED
    console.result(result.to_json(), render(result))
    return EXIT_FAILED if options.check and not result.verdict else EXIT_DONE


def render(result: DemoResult) -> str:
    """The report for people: what ran, the table of the sites, and the verdict in the last line."""
    options = result.options
    led = f", led from {result.leader}," if result.leader else ""
    clients = f"{options.clients} open-loop clients at each, {options.rate_per_s:g} commands/s a client"
    return "\n".join(
        [
            f"{options.protocol}{led} on {options.matrix}: {len(result.sites)} sites, {clients} "
            f"for {options.seconds:g} s, seed {options.seed}",
            f"on one machine, links delayed inside the replicas: {result.machine}",
            "",
            sites.render(result.sites, options.protocol, result.raft_leader),
        ]
    )


async def run_demo(options: DemoOptions, progress: Progress) -> DemoResult:
    """Runs the whole demo; when this returns or raises, no process of it is left.

    Raises ConfigError for a matrix or protocol that there is not, ClusterError when a replica does not start or ends,
    and DemoError when the links are not those of the matrix or the leader changed meanwhile.
    """
    machine = _machine()
    matrix = load_matrix(options.matrix)
    bounds.protocol_us(options.protocol, matrix, matrix.sites[0])  # refuses an unknown protocol before anything runs
    with tempfile.TemporaryDirectory(prefix="epaxos-demo-") as directory:
        spec = ClusterSpec(
            names=matrix.sites,
            directory=Path(directory),
            protocol=options.protocol,
            emulate=options.matrix,
            watched=[HOT_KEY],
        )
        progress(f"starting {len(matrix.sites)} replicas")
        async with local_cluster(spec) as cluster:
            leader, measured = await _measure(cluster, matrix, options, progress)
            progress("stopping the replicas")
    judged = partial(sites.judge, matrix, options.protocol, hot_key=HOT_KEY, leader=leader)
    return DemoResult(
        options=options,
        sites=tuple(judged(site, measured[site]) for site in matrix.sites),
        leader=leader,
        raft_leader=bounds.best_leader(matrix).site,
        machine=machine,
    )


async def _measure(
    cluster: LocalCluster, matrix: Matrix, options: DemoOptions, progress: Progress
) -> tuple[str | None, dict[str, Measured]]:
    """From starting processes to who led, if anybody, and what each site yields."""
    await cluster.wait_ready(within_s=READY_WITHIN_S)
    progress("measuring the links")
    links_us = await _links(cluster, matrix)
    await _load(cluster, options.shape(options.warmup_seconds), f"{options.seed}/warm-up", progress)
    leader = await _leader(cluster, matrix)
    for site in matrix.sites:
        await cluster.ask(site, "EPAXOS", "RESETSTATS")
    tallies = await _load(cluster, options.shape(options.seconds), str(options.seed), progress)
    measured = {site: Measured(links_us[site], tallies[site], await cluster.status(site)) for site in matrix.sites}
    if await _leader(cluster, matrix) != leader:
        raise DemoError("the leader changed during the measurement: no one bound holds for all of it")
    return leader, measured


async def _leader(cluster: LocalCluster, matrix: Matrix) -> str | None:
    """Who leads, if anybody. Raises DemoError when the replicas do not agree."""
    try:
        return sites.leader_of(matrix, [await cluster.status(site) for site in matrix.sites])
    except ValueError as error:
        raise DemoError(str(error)) from error


async def _links(cluster: LocalCluster, matrix: Matrix) -> dict[str, dict[str, int]]:
    """site -> peer -> median round trip in microseconds as the replicas measure it, once all are those of the matrix.

    Raises DemoError naming the links that are not.
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
    raise DemoError(f"the links are not those of {matrix.name}: {'; '.join(off)}")


async def _load(cluster: LocalCluster, shape: load.Shape, seed: str, progress: Progress) -> dict[str, Tally]:
    """Loads every site at once; what became of each site's commands.

    Raises ClusterError when a replica ends meanwhile.
    """
    tallies = {site: Tally() for site in cluster.spec.names}
    planned = shape.commands * len(tallies)
    start_s = trio.current_time() + _START_IN_S
    async with trio.open_nursery() as nursery:
        for site, tally in tallies.items():
            plan = load.draw(shape, site, seed)
            connect = partial(cluster.connect, site)
            nursery.start_soon(partial(load.run, connect, plan, shape, tally, start_s=start_s))
        while cluster.running() and sum(tally.settled for tally in tallies.values()) < planned:
            answered = sum(tally.answered for tally in tallies.values())
            failed = sum(tally.failed for tally in tallies.values())
            done_s = min(max(0.0, trio.current_time() - start_s), shape.duration_s)
            progress(f"load: {done_s:.0f} of {shape.duration_s:g} s, {answered} commands answered, {failed} failed")
            await trio.sleep(_POLL_S)
        nursery.cancel_scope.cancel()
    cluster.check()
    return tallies


async def _until_signal(options: DemoOptions, progress: Progress) -> DemoResult | None:
    """The result, or None when a signal asked to stop; the processes have ended either way."""
    result = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            result = await run_demo(options, progress)
            nursery.cancel_scope.cancel()
    return result


def _machine() -> str:
    """What the figures were taken on, and how busy it was with other things: that is where milliseconds go."""
    cpus = f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start"
    return f"{platform.system()} {platform.machine()}, {cpus}, Python {platform.python_version()}, epaxos {VERSION}"
