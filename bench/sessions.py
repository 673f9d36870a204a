"""Exactly once, for real: clients increment counters through replicas that are killed again and again.

Every client of the native kind increments a counter of its own and one that all share, one after the other, and goes
on to another replica whenever it must. At the end a counter is exactly the number of increments that returned, and
at most the ones whose outcome stayed unknown more.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import trio

import epaxos
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.options import JSON, PROTOCOL
from epaxos.amount import POSITIVE
from epaxos.tables import Column, render

READY_WITHIN_S: Final = 30.0
SITES: Final = ("A", "B", "C")
SHARED: Final = "shared"


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How long, how often, how many."""

    protocol: str = "epaxos"
    seconds: float = 60.0
    every_s: float = 2.0
    """Between two kills."""
    clients: int = 6


@dataclass
class SessionResult:
    """What happened."""

    options: SessionOptions
    kills: int = 0
    increments: dict[str, int] = field(default_factory=dict)
    """Counter -> increments that returned."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Counter -> increments whose outcome stayed unknown."""
    rejected: int = 0
    values: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counter -> site -> what it says at the end."""

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be."""
        found = []
        for counter, values in self.values.items():
            least, most = self.increments[counter], self.increments[counter] + self.unknown[counter]
            if len(set(values.values())) != 1 or not all(least <= value <= most for value in values.values()):
                found.append(f"{counter} was incremented {least} to {most} times and is {values}")
        return found


async def run_sessions(options: SessionOptions) -> SessionResult:
    """The whole run, in a directory of its own that is gone afterwards."""
    result = SessionResult(options)
    counters = (SHARED, *(f"own:{number}" for number in range(options.clients)))
    result.increments, result.unknown = dict.fromkeys(counters, 0), dict.fromkeys(counters, 0)
    with TemporaryDirectory(prefix="epaxos-sessions-") as directory:
        spec = ClusterSpec(names=SITES, directory=Path(directory), protocol=options.protocol)
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=READY_WITHIN_S)
            await _load(cluster, Path(directory) / "cluster.toml", result)
            await cluster.wait_ready(within_s=READY_WITHIN_S)
            await cluster.wait_quiet(within_s=READY_WITHIN_S)
            for counter in counters:
                result.values[counter] = {name: int(await cluster.ask(name, "GET", counter) or 0) for name in SITES}
    return result


async def _load(cluster: LocalCluster, config: Path, result: SessionResult) -> None:
    options = result.options
    async with trio.open_nursery() as nursery:
        ends = trio.Event()
        for number in range(options.clients):
            nursery.start_soon(_client, config, SITES[number % len(SITES)], f"own:{number}", result, ends)
        end_s = trio.current_time() + options.seconds
        for victim in itertools.cycle(SITES):
            await trio.sleep(options.every_s)
            if trio.current_time() >= end_s:
                break
            await cluster.kill(victim)
            result.kills += 1
            await cluster.launch(victim)
        ends.set()


async def _client(config: Path, near: str, own: str, result: SessionResult, ends: trio.Event) -> None:
    async with epaxos.Client(config, near) as kv:
        for counter in itertools.cycle((own, SHARED)):
            if ends.is_set():
                return
            try:
                await kv.incr(counter)
            except epaxos.Unknown:
                result.unknown[counter] += 1
            except epaxos.Rejected:
                result.rejected += 1
            else:
                result.increments[counter] += 1


def as_table(result: SessionResult) -> str:
    """For people."""
    rows = [
        (counter, f"{result.increments[counter]}", f"{result.unknown[counter]}", " ".join(map(str, values.values())))
        for counter, values in result.values.items()
    ]
    columns = [Column("counter"), Column("increments"), Column("unknown"), Column(f"value at {' '.join(SITES)}")]
    options = result.options
    lines = [
        f"{options.protocol}: {options.clients} clients for {options.seconds:g} s, {result.kills} kills, one every"
        f" {options.every_s:g} s; {result.rejected} increments were rejected",
        render(columns, rows),
        *(result.wrong or ["every counter is exact"]),
    ]
    return "\n".join(lines)


def to_json(result: SessionResult) -> str:
    """For programs."""
    return json.dumps({**asdict(result), "wrong": result.wrong})


@click.command()
@PROTOCOL
@click.option("--seconds", type=POSITIVE, default=60.0, show_default=True, help="How long the load lasts.")
@click.option("--every", "every_s", type=POSITIVE, default=2.0, show_default=True, help="Seconds between two kills.")
@click.option("--clients", default=6, show_default=True, type=click.IntRange(1, 100), help="Of all sites together.")
@JSON
def sessions(protocol: str, seconds: float, every_s: float, clients: int, as_json: bool) -> None:
    """Increments through three replicas that are killed in turn with -9: every counter must be exact.

    \b
    Example: python -m bench sessions --seconds 20
    """
    options = SessionOptions(protocol=protocol, seconds=seconds, every_s=every_s, clients=clients)
    result = trio.run(run_sessions, options)
    click.echo(to_json(result) if as_json else as_table(result))
    raise SystemExit(bool(result.wrong))
