"""The long comparison with Redis: `python -m tests.field.redis_diff [--commands N] [--replicas 1,5] [--seed S]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from bench.cluster import ClusterSpec, local_cluster
from tests.field.redis_compare import Comparison, Unequal, run_corpus, run_random
from tests.field.redis_pair import redis_server

READY_WITHIN_S = 60.0
ROUND = 5_000
"""Commands from one seed; then the next seed goes on with what the keys hold."""


async def compare(replicas: int, commands: int, seed: int) -> None:
    """So many commands to a cluster of that size, its replicas in turn. Raises Unequal."""
    names = [f"R{i}" for i in range(replicas)]
    with TemporaryDirectory() as folder:
        async with local_cluster(ClusterSpec(names=names, directory=Path(folder))) as running:
            await running.wait_ready(within_s=READY_WITHIN_S)
            with redis_server(Path(folder)) as port:
                ports = [running.port(names[i % replicas]) for i in range(max(replicas, 3))]
                await trio.to_thread.run_sync(_compare, ports, port, commands, seed, f"{replicas} replica(s)")


def _compare(ours: list[int], theirs: int, commands: int, seed: int, title: str) -> None:
    with Comparison(ours, theirs) as comparison:
        run_corpus(comparison)
        while comparison.commands < commands:
            run_random(comparison, seed, min(ROUND, commands - comparison.commands))
            seed += 1
            met = ", ".join(f"{name} {count}" for name, count in sorted(comparison.seen.items()))
            print(f"{title}: {comparison.commands} commands equal, but for {met}", file=sys.stderr, flush=True)


def main() -> None:
    """Exits with 1 and the story of the first reply that differs."""
    options = argparse.ArgumentParser(description="the same random commands to Redis and to replicas")
    options.add_argument("--commands", type=int, default=200_000, help="for each size of cluster")
    options.add_argument("--replicas", default="1,5", help="sizes of clusters, one after the other")
    options.add_argument("--seed", type=int, default=1000)
    chosen = options.parse_args()
    try:
        for replicas in chosen.replicas.split(","):
            trio.run(compare, int(replicas), chosen.commands, chosen.seed)
    except Unequal as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
