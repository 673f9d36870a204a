"""How many commands a second durable replicas on bare loopback take, and what each waits, as clients grow in number.

Closed loop, one command out a client, clients at every replica. Replicas and load share one machine, so the rates are
those of the machine; the processor time a command costs the replicas says more.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import trio

from bench.cell import READY_WITHIN_S, Progress
from bench.closed_loop import Closed, ClosedLoad, run
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.comparison import Percentiles, percentiles
from bench.options import JSON, OUT
from bench.provenance import provenance
from epaxos.amount import PERCENT, Amount
from epaxos.config import PROTOCOLS
from epaxos.console import Console
from epaxos.errors import ConfigError
from epaxos.tables import ABSENT, Column, ms, percent, render

FORMAT: Final = 1
WARMUP_S: Final = 0.5
REPLICAS_MAX: Final = 13


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions:
    """What to run. Raises ConfigError for what cannot be."""

    replicas: int = 3
    clients: tuple[int, ...] = (1, 8, 64, 256, 1024)
    """In all, spread over the replicas: a step for each number."""
    seconds: float = 2.0
    """Counted, a step."""
    conflict: float = 0.0
    """The share of the commands on one key for all clients."""
    protocols: tuple[str, ...] = PROTOCOLS
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise ConfigError(f"{self.replicas} replicas: 1 to {REPLICAS_MAX} make a cluster")
        if not self.clients or min(self.clients) < 1:
            raise ConfigError("every step needs at least one client")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One number of clients."""

    clients: int
    per_s: float
    """Commands answered a second."""
    took_us: Percentiles
    cpu_us: float | None
    """Processor time of all replicas for a command; None where the system does not say."""
    errors: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One protocol."""

    protocol: str
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ThroughputResult:
    """A whole run."""

    options: ThroughputOptions
    provenance: dict[str, Any]
    curves: list[Curve] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"format": FORMAT, "what": "throughput"} | asdict(self)


async def run_throughput(options: ThroughputOptions, progress: Progress = lambda words: None) -> ThroughputResult:
    """Every protocol in a cluster of its own, every step in it. Raises ClusterError when a replica ends."""
    result = ThroughputResult(options=options, provenance=provenance())
    for protocol in options.protocols:
        curve = Curve(protocol=protocol)
        result.curves.append(curve)
        with TemporaryDirectory(prefix="epaxos-throughput-") as directory:
            names = [f"r{number}" for number in range(1, options.replicas + 1)]
            leader = names[0] if protocol == "raft" else None
            spec = ClusterSpec(names=names, directory=Path(directory), protocol=protocol, leader=leader)
            progress(f"{protocol}: starting {options.replicas} replicas")
            async with local_cluster(spec) as cluster:
                await cluster.wait_ready(within_s=READY_WITHIN_S)
                for clients in options.clients:
                    progress(f"{protocol}: {clients} clients")
                    curve.steps.append(await _step(cluster, options, clients))
    return result


async def _step(cluster: LocalCluster, options: ThroughputOptions, clients: int) -> Step:
    load = ClosedLoad(
        clients=clients,
        seconds=options.seconds,
        warmup_s=WARMUP_S,
        hot_share=options.conflict,
        seed=options.seed,
    )
    connects = [partial(cluster.socket_to, name) for name in cluster.spec.names]
    before_s = _cpu_s(cluster)
    closed: Closed = await trio.to_thread.run_sync(partial(run, connects, load))
    after_s = _cpu_s(cluster)
    cluster.check()
    return Step(
        clients=clients,
        per_s=closed.per_s,
        took_us=percentiles(sorted(closed.took_us)),
        cpu_us=_cpu_us(closed, before_s, after_s),
        errors=dict(closed.errors),
    )


def _cpu_us(closed: Closed, before_s: float | None, after_s: float | None) -> float | None:
    """A command's share. The processor time runs over the warm-up too, which is taken to be as busy as the rest."""
    commands = closed.per_s * (closed.seconds + WARMUP_S)
    if before_s is None or after_s is None or not commands:
        return None
    return 1e6 * (after_s - before_s) / commands


def _cpu_s(cluster: LocalCluster) -> float | None:
    """Processor seconds that all replicas have used; None where there is no /proc."""
    ticks = 0
    for name in cluster.spec.names:
        stat = Path(f"/proc/{cluster.pid(name)}/stat")
        if not stat.exists():
            return None
        fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def as_table(result: ThroughputResult) -> str:
    """For people."""
    options = result.options
    rows = [
        [
            curve.protocol,
            str(step.clients),
            f"{step.per_s:,.0f}",
            *(ms(step.took_us[name]) for name in ("p50", "p90", "p99", "p99.9")),
            ABSENT if step.cpu_us is None else f"{step.cpu_us:.0f}",
            str(sum(step.errors.values())),
        ]
        for curve in result.curves
        for step in curve.steps
    ]
    columns = [
        *(Column("protocol", right=False), Column("clients"), Column("commands/s"), Column("p50, ms"), Column("p90")),
        *(Column("p99"), Column("p99.9"), Column("CPU us\na command"), Column("errors")),
    ]
    texts = {text for curve in result.curves for step in curve.steps for text in step.errors}
    return "\n".join(
        [
            f"{options.replicas} durable replicas and the load on one machine, bare loopback; closed loop,"
            f" {options.seconds:g} s a step, {percent(options.conflict)} conflicts, seed {options.seed}",
            f"{result.provenance['machine']}, commit {result.provenance['commit']}",
            "",
            render(columns, rows),
            "",
            f"CPU: of all replicas together, without the load. {ABSENT}: too few commands to claim the figure.",
            *sorted(texts),
        ]
    )


@click.command()
@click.option("--replicas", default=3, show_default=True, type=click.IntRange(1, REPLICAS_MAX), help="Of the cluster.")
@click.option("--clients", default="1,8,64,256,1024", show_default=True, metavar="N,N,…", help="In all; a step each.")
@click.option("--seconds", default=2.0, show_default=True, type=Amount(0.1, 600), help="Counted, a step.")
@click.option("--conflict", default=0.0, show_default=True, type=PERCENT, help="% on one key.")
@click.option("--protocols", default="epaxos,raft", show_default=True, help="As in cluster.toml, with commas.")
@click.option("--seed", default=1, show_default=True, help="Of the keys.")
@OUT
@JSON
def throughput(clients: str, conflict: float, protocols: str, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """How many commands a second replicas on loopback take, and what a command waits, as clients grow in number.

    \b
    Example: python -m bench throughput --clients 1,64,1024 --seconds 5
    """
    console = Console(as_json)
    try:
        numbers = tuple(int(word) for word in clients.split(","))
    except ValueError:
        raise click.UsageError(f"--clients {clients}: whole numbers with commas between them") from None
    options = ThroughputOptions(
        clients=numbers, conflict=conflict / 100, protocols=tuple(protocols.split(",")), **chosen
    )
    result = trio.run(run_throughput, options, console.progress)
    console.progress_done()
    if out is not None:
        out.write_text(json.dumps(result.to_json()), encoding="utf-8")
    console.result(result.to_json(), as_table(result))
