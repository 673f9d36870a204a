"""Throughput on bare loopback as `redis-benchmark` sees it: three durable replicas and the load on one machine.

Each figure is the median of several runs, all in one go; every replica is loaded in turn, then all of them must give
the same answers, and counters must be what was counted.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import trio

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.options import JSON, PROTOCOL
from epaxos.errors import ConfigError
from epaxos.tables import Column, render

NAMES: Final = ("CA", "VA", "IR")
READY_WITHIN_S: Final = 30.0
SAMPLE: Final = 200
"""Keys that are compared between replicas."""


@dataclass(frozen=True)
class Load:
    """One way to call redis-benchmark."""

    title: str
    tests: str
    pipeline: int
    connections: int
    requests: int


LOADS: Final = (
    Load("50 connections, 16 requests each", "set,get,incr", 16, 50, 300_000),
    Load("256 connections, 1 request each", "set,get,incr", 1, 256, 60_000),
)


@dataclass
class RedisResult:
    """(load title, test) -> requests a second, one figure a run; and what was found wrong afterwards."""

    runs: int
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    counted: int = 0


async def run_redis(*, runs: int = 3, loads: tuple[Load, ...] = LOADS, protocol: str = "epaxos") -> RedisResult:
    """Every load, `runs` times, the replicas in turn. Raises ConfigError without redis-benchmark."""
    if shutil.which("redis-benchmark") is None:
        raise ConfigError("redis-benchmark is not installed (Debian: apt-get install redis-tools)")
    result = RedisResult(runs)
    with TemporaryDirectory(prefix="epaxos-redis-") as directory:
        spec = ClusterSpec(names=NAMES, directory=Path(directory), protocol=protocol)
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=READY_WITHIN_S)
            for run in range(runs):
                for load in loads:
                    await _one(cluster, NAMES[run % len(NAMES)], load, result)
            await _count(cluster, result)
            await _compare(cluster, result)
    return result


async def _one(cluster: LocalCluster, name: str, load: Load, result: RedisResult) -> None:
    text = await _redis_benchmark(cluster.port(name), load, "-t", load.tests, "-r", "100000")
    for line in text.splitlines()[1:]:
        test, rate = line.replace('"', "").split(",")[:2]
        result.rates.setdefault((load.title, test), []).append(float(rate))


async def _redis_benchmark(port: int, load: Load, *words: str) -> str:
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "--csv", "-n", str(load.requests)]
    command += ["-P", str(load.pipeline), "-c", str(load.connections), *words]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    text = done.stdout.decode()
    if done.returncode or "Error" in text:
        raise subprocess.CalledProcessError(done.returncode, command, text, done.stderr)
    return text


async def _count(cluster: LocalCluster, result: RedisResult) -> None:
    """One counter, incremented at all replicas at once: it must end at the number of requests."""
    load = Load("one counter", "", 16, 50, 20_000)
    async with trio.open_nursery() as nursery:
        for name in NAMES:
            nursery.start_soon(_redis_benchmark, cluster.port(name), load, "INCR", "one-counter")
    result.counted = len(NAMES) * load.requests
    for name in NAMES:
        value = int(await cluster.ask(name, "GET", "one-counter"))
        if value != result.counted:
            result.wrong.append(f"one-counter at {name} is {value} after {result.counted} increments")


async def _compare(cluster: LocalCluster, result: RedisResult) -> None:
    """A sample of the keys that were written must have the same value everywhere."""
    keys = [f"{prefix}:{i:012d}" for prefix in ("key", "counter") for i in range(SAMPLE)]
    values = {name: await cluster.ask(name, "MGET", *keys) for name in NAMES}
    for at, key in enumerate(keys):
        seen = {name: values[name][at] for name in NAMES}
        if len(set(seen.values())) != 1:
            result.wrong.append(f"{key}: {seen}")


def as_table(result: RedisResult) -> str:
    """For people."""
    columns = [Column("load", right=False), Column("command", right=False)]
    columns += [Column("requests/s\nmedian"), Column("least"), Column("most")]
    rows = [
        [title, test, *(f"{figure:,.0f}" for figure in (statistics.median(rates), min(rates), max(rates)))]
        for (title, test), rates in result.rates.items()
    ]
    verdict = "all replicas agree" if not result.wrong else "\n".join(result.wrong)
    counted = f"; one counter incremented {result.counted} times from three sites at once is right everywhere"
    return f"{render(columns, rows)}\n\nmedians of {result.runs} runs; {verdict}{'' if result.wrong else counted}"


def to_json(result: RedisResult) -> str:
    """For machines."""
    rates = [{"load": load, "command": test, "per_s": rates} for (load, test), rates in result.rates.items()]
    return json.dumps({"runs": result.runs, "rates": rates, "wrong": result.wrong, "counted": result.counted})


@click.command()
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs of each load.")
@PROTOCOL
@JSON
def redis(runs: int, protocol: str, as_json: bool) -> None:
    """Requests a second of three durable replicas, as redis-benchmark sees them.

    \b
    Example: python -m bench redis --runs 5
    """
    result = trio.run(lambda: run_redis(runs=runs, protocol=protocol))
    click.echo(to_json(result) if as_json else as_table(result))
    raise SystemExit(bool(result.wrong))
