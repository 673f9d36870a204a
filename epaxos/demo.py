"""`epaxos demo`: a cluster on emulated wide-area links on this machine, under an open load, judged by its matrix.

The measuring is `bench`'s and the bounds are `topology`'s: the demo is one cell of a comparison, and its report.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from bench import sites
from bench.cell import HOT_KEY, CellLoad, Progress, run_cell
from bench.cluster import ClusterSpec
from bench.provenance import machine_words
from bench.sites import SiteResult
from epaxos._version import VERSION
from epaxos.console import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Console
from epaxos.errors import ConfigError
from topology import bounds, load as load_matrix


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
    leader: str | None = None
    """The site that should lead; None leaves it to chance. Only for a protocol with a leader."""
    check: bool = False
    """Is a site that misses its bound a failure? For machines that are known to have nothing else to do."""

    def __post_init__(self) -> None:
        self.load()

    def load(self) -> CellLoad:
        """The load of each site."""
        return CellLoad(
            seconds=self.seconds,
            warmup_seconds=self.warmup_seconds,
            clients=self.clients,
            rate_per_s=self.rate_per_s,
            hot_share=self.hot_share,
            seed=self.seed,
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
    and CellError when the links are not those of the matrix or the leader changed meanwhile.
    """
    machine = machine_words()
    matrix = load_matrix(options.matrix)
    if options.leader is not None:
        matrix.index(options.leader)
        if options.protocol != "raft":
            raise ConfigError(f"{options.protocol} has no leader, so {options.leader} cannot be it")
    with tempfile.TemporaryDirectory(prefix="epaxos-demo-") as directory:
        spec = ClusterSpec(
            names=matrix.sites,
            directory=Path(directory),
            protocol=options.protocol,
            emulate=options.matrix,
            watched=[HOT_KEY],
            leader=options.leader,
        )
        cell = await run_cell(spec, matrix, options.load(), progress)
    return DemoResult(
        options=options,
        sites=cell.sites,
        leader=cell.leader,
        raft_leader=bounds.best_leader(matrix).site,
        machine=machine,
    )


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
