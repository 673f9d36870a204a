"""`kill -9` of one replica under load: what the clients of the others notice, and what is left when it is back.

At every site some clients increment keys of their own and some increment keys that all sites share, one command at a
time. One replica is killed, and later restarted on its data directory. Then every counter is read at every replica:
it must be the same everywhere, at least what was acknowledged, and at most that and what ended with an unknown outcome.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import trio

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.resp import ConnectionLost, ErrorReply, RespConnection
from bench.tables import Column, ms, render
from topology.matrix import load

READY_WITHIN_S: Final = 30.0
CONVERGED_WITHIN_S: Final = 60.0
RECONNECT_S: Final = 0.05

OWN: Final = "own"
SHARED: Final = "shared"


@dataclass(frozen=True, kw_only=True)
class KillOptions:
    """How long, how much, and whom."""

    matrix: str = "epaxos5"
    protocol: str = "epaxos"
    victim: str | None = None
    """The first site of the matrix by default."""
    phase_s: float = 5.0
    """Before the kill, while it is down, and after its restart."""
    clients: int = 4
    """At each site, of each kind."""
    shared_keys: int = 8


@dataclass
class Counter:
    """What clients know of one key."""

    acknowledged: int = 0
    unknown: int = 0


@dataclass
class KillResult:
    """What happened. Times in microseconds of the trio clock."""

    options: KillOptions
    sites: tuple[str, ...]
    victim: str
    killed_us: int = 0
    restarted_us: int = 0
    ready_us: int = 0
    """From the restart until the victim answered a command again."""
    acks_us: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(site, kind of key) -> when commands were acknowledged."""
    counters: dict[str, Counter] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def gap_us(self, site: str, kind: str, *, down: bool) -> int | None:
        """The longest time without an acknowledgement at a site: before the kill, or while the victim was down."""
        first, last = (self.killed_us, self.restarted_us) if down else (0, self.killed_us)
        times = [t for t in self.acks_us.get((site, kind), []) if first <= t <= last]
        if down:
            times = [first, *times, last]
        return max((b - a for a, b in itertools.pairwise(times)), default=None)


async def run_kill(options: KillOptions) -> KillResult:
    """The whole run, in a directory of its own that is gone afterwards."""
    sites = tuple(load(options.matrix).sites)
    result = KillResult(options, sites, options.victim or sites[0])
    with TemporaryDirectory(prefix="epaxos-kill-") as directory:
        spec = ClusterSpec(names=sites, directory=Path(directory), protocol=options.protocol, emulate=options.matrix)
        async with local_cluster(spec) as cluster:
            await cluster.wait_ready(within_s=READY_WITHIN_S)
            await _load(cluster, result)
            await _converge(cluster, result)
    return result


async def _load(cluster: LocalCluster, result: KillResult) -> None:
    options = result.options
    async with trio.open_nursery() as nursery:
        for site in result.sites:
            for client in range(options.clients):
                nursery.start_soon(_client, cluster, result, site, OWN, f"own:{site}:{client}")
                shared = f"shared:{client % options.shared_keys}"
                nursery.start_soon(_client, cluster, result, site, SHARED, shared)
        await trio.sleep(options.phase_s)
        result.killed_us = _now_us()
        await cluster.kill(result.victim)
        await trio.sleep(options.phase_s)
        result.restarted_us = _now_us()
        await cluster.launch(result.victim)
        await cluster.wait_until(
            result.victim, lambda _, status: status["behind"] == 0, within_s=READY_WITHIN_S, what="serve again"
        )
        await cluster.ask(result.victim, "INCR", "after")
        result.ready_us = _now_us() - result.restarted_us
        await trio.sleep(options.phase_s)
        nursery.cancel_scope.cancel()


async def _client(cluster: LocalCluster, result: KillResult, site: str, kind: str, key: str) -> None:
    counter = result.counters.setdefault(key, Counter())
    acks = result.acks_us.setdefault((site, kind), [])
    while True:
        try:
            async with RespConnection(await cluster.connect(site)) as connection:
                while True:
                    await _increment(connection, counter, acks, key)
        except (OSError, ConnectionLost):
            await trio.sleep(RECONNECT_S)


async def _increment(connection: RespConnection, counter: Counter, acks: list[int], key: str) -> None:
    """One command; until its reply is there its outcome is unknown."""
    counter.unknown += 1
    try:
        await connection.call("INCR", key)
    except ErrorReply as error:
        if not str(error).startswith("UNKNOWN"):
            counter.unknown -= 1
        return
    counter.unknown -= 1
    counter.acknowledged += 1
    acks.append(_now_us())


async def _converge(cluster: LocalCluster, result: KillResult) -> None:
    """Reads are ordered behind everything acknowledged, so each replica's answer is the final one."""
    with trio.fail_after(CONVERGED_WITHIN_S):
        for key, counter in sorted(result.counters.items()):
            values = {site: int(await cluster.ask(site, "GET", key) or 0) for site in result.sites}
            low, high = counter.acknowledged, counter.acknowledged + counter.unknown
            if len(set(values.values())) != 1 or not low <= values[result.sites[0]] <= high:
                result.wrong.append(f"{key}: {values}, acknowledged {low}, at most {high}")


def _now_us() -> int:
    return int(trio.current_time() * 1e6)


def as_table(result: KillResult) -> str:
    """For people."""
    columns = [Column("site", right=False)]
    for kind in (OWN, SHARED):
        columns += [Column(f"{kind} keys\nlongest gap\nbefore"), Column(f"{kind} keys\nlongest gap\nwhile down")]
    columns.append(Column("commands\nanswered"))
    rows = []
    for site in result.sites:
        cells = [site + (" (killed)" if site == result.victim else "")]
        for kind in (OWN, SHARED):
            down = None if site == result.victim else result.gap_us(site, kind, down=True)
            cells += [ms(result.gap_us(site, kind, down=False)), ms(down)]
        cells.append(str(sum(len(result.acks_us.get((site, kind), ())) for kind in (OWN, SHARED))))
        rows.append(cells)
    acknowledged = sum(counter.acknowledged for counter in result.counters.values())
    unknown = sum(counter.unknown for counter in result.counters.values())
    lines = [
        f"kill -9 of {result.victim} on {result.options.matrix} after {result.options.phase_s:g} s,"
        f" restart {(result.restarted_us - result.killed_us) / 1e6:.1f} s later; times in ms",
        "",
        render(columns, rows),
        "",
        f"back and answering {ms(result.ready_us)} ms after its restart;"
        f" {acknowledged} increments acknowledged, {unknown} unknown",
        *result.wrong,
        f"{len(result.wrong)} of {len(result.counters)} counters are wrong",
    ]
    return "\n".join(lines)


def as_json(result: KillResult) -> str:
    """For machines."""
    gaps: dict[str, Any] = {
        site: {
            kind: {
                "before_us": result.gap_us(site, kind, down=False),
                "down_us": None if site == result.victim else result.gap_us(site, kind, down=True),
            }
            for kind in (OWN, SHARED)
        }
        for site in result.sites
    }
    return json.dumps({"victim": result.victim, "ready_us": result.ready_us, "gaps": gaps, "wrong": result.wrong})
