"""A cluster under an open load while one replica after the other is killed with `kill -9` and comes back.

The script is the same for every protocol: a quiet phase; one site dead; that site back; another one dead, which is the
leader where there is one; that one back. All phases are equally long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from bench import closed_loop, load, open_loop, sites
from bench.cell import HOT_KEY, READY_WITHIN_S, CellError, check_links
from bench.closed_loop import Closed, ClosedLoad
from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.load import Arrival
from bench.resp import ConnectionLost, ErrorReply
from bench.tally import Tally, percentile
from bench.timeline import OTHER, SHARED, Answer, Outage
from topology import Matrix

WARMUP_S: Final = 3.0
PHASES: Final = 5
LANES: Final = 192
"""Connections at each site: so many commands may be on their way while nothing is answered; more leave late, which
counts in what they took."""
LED_WITHIN_S: Final = 30.0
_START_IN_S: Final = 1.0
"""The connections of a load open before its first command is due."""
_POLL_S: Final = 0.05
FIRST_CLIENTS: Final = 3
"""At each site, in the first step of what finds the capacity; each step has twice as many, up to `LANES`."""
SLOWED: Final = 1.5
"""A cluster whose median command takes so many times what it takes with `FIRST_CLIENTS` is beyond its capacity."""
_CAPACITY_WARMUP_S: Final = 1.0
_CAPACITY_S: Final = 2.0

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Script:
    """What happens. Times in microseconds from the end of the warm-up."""

    victims: tuple[str, str]
    phase_us: int
    rate_per_s: float
    """Commands at each site."""
    shared: float
    """The share of them that write the key that all sites write."""
    seed: int

    @property
    def until_us(self) -> int:
        """When it is over."""
        return PHASES * self.phase_us

    def kills(self) -> tuple[tuple[str, int, int, int], ...]:
        """(site, when it dies, when it is started again, until when that is watched)."""
        return tuple(
            (site, (2 * at + 1) * self.phase_us, (2 * at + 2) * self.phase_us, (2 * at + 3) * self.phase_us)
            for at, site in enumerate(self.victims)
        )

    def shape(self) -> load.Shape:
        """The load of a site, with its warm-up."""
        return load.Shape(
            clients=1,
            rate_per_s=self.rate_per_s,
            duration_s=WARMUP_S + self.until_us / 1e6,
            even=True,
            hot_share=self.shared,
            hot_key=HOT_KEY.encode(),
            lanes=LANES,
        )

    def plan(self, site: str) -> list[list[Arrival]]:
        """The commands of a site; 0 is the begin of the warm-up."""
        return load.draw(self.shape(), site, str(self.seed))


@dataclass(kw_only=True)
class Record:
    """What became of it. Times as in `Script`."""

    leader: str | None
    outages: list[Outage] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    due: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    """Site -> error text -> how often."""
    lag_p99_us: int | None = None
    """How late the load generator itself sent; None in virtual time, where it does not."""
    longest_sync_us: int | None = None
    """Of any disk; None in virtual time. Nobody answers while the disks of a quorum take long."""

    def add_due(self, site: str, plan: Sequence[Sequence[Arrival]]) -> None:
        """Enter when the commands of a site should leave."""
        for arrival in (each for client in plan for each in client):
            due_us = arrival.at_us - round(WARMUP_S * 1e6)
            self.due.setdefault((site, SHARED if arrival.hot else OTHER), []).append(due_us)


async def run(spec: ClusterSpec, matrix: Matrix, script: Script, progress: Progress) -> Record:
    """Start the cluster, load it, kill, and stop; when this returns or raises, no process of it is left.

    Raises ClusterError when a replica ends by itself or does not come back, and CellError when the links are not those
    of the matrix or nobody leads who should.
    """
    progress("starting")
    async with local_cluster(spec) as cluster:
        await cluster.wait_ready(within_s=READY_WITHIN_S)
        progress("measuring the links")
        await check_links(cluster, matrix)
        await _led(cluster, matrix)
        record = await _loaded(cluster, matrix, script, progress)
        progress("stopping")
    return record


async def _led(cluster: LocalCluster, matrix: Matrix) -> None:
    """Returns when the one leads who should; at once in a protocol without a leader."""
    wanted = cluster.spec.leader
    with trio.move_on_after(LED_WITHIN_S):
        while wanted is not None:
            try:
                led = sites.leader_of(matrix, [await cluster.status(site) for site in matrix.sites])
            except ValueError:
                led = None
            if led == wanted:
                return
            await trio.sleep(_POLL_S)
        return
    raise CellError(f"{wanted} did not lead within {LED_WITHIN_S:g} s")


async def _loaded(cluster: LocalCluster, matrix: Matrix, script: Script, progress: Progress) -> Record:
    record = Record(leader=cluster.spec.leader)
    tallies = {site: Tally() for site in matrix.sites}
    places = []
    for site, tally in tallies.items():
        plan = script.plan(site)
        record.add_due(site, plan)
        places.append(open_loop.Site(partial(cluster.socket_to, site), plan, tally))
    start_s = trio.current_time() + _START_IN_S
    zero_s = start_s + WARMUP_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(open_loop.run, places, script.shape(), start_s=start_s))
        for site, killed_us, restarted_us, until_us in script.kills():
            progress(f"load; {site} dies next")
            await trio.sleep_until(zero_s + killed_us / 1e6)
            outage = Outage(
                site=site, killed_us=killed_us, restarted_us=restarted_us, serving_us=until_us, until_us=until_us
            )
            record.outages.append(await _outage(cluster, outage, zero_s, progress))
        await trio.sleep_until(zero_s + script.until_us / 1e6)
        progress("waiting for the last replies")
    cluster.check()
    for site, tally in tallies.items():
        _enter(record, site, tally)
    disks = [(await cluster.status(site))["disk"] for site in matrix.sites]
    record.longest_sync_us = max(disk["sync_us_max"] for disk in disks)
    record.lag_p99_us = percentile(sorted(lag for tally in tallies.values() for lag in tally.lag_us), 0.99)
    return record


async def _outage(cluster: LocalCluster, planned: Outage, zero_s: float, progress: Progress) -> Outage:
    """Kill, wait, restart, wait until it serves; with the times at which that came to pass."""

    def now_us() -> int:
        return round((trio.current_time() - zero_s) * 1e6)

    site = planned.site
    killed_us = now_us()
    await cluster.kill(site)
    progress(f"load; {site} is dead")
    await trio.sleep_until(zero_s + planned.restarted_us / 1e6)
    restarted_us = now_us()
    await cluster.launch(site)
    progress(f"load; {site} comes back")
    await _serves(cluster, site)
    return replace(planned, killed_us=killed_us, restarted_us=restarted_us, serving_us=now_us())


async def _serves(cluster: LocalCluster, site: str) -> None:
    """Returns when a client at that site gets an answer. Raises ClusterError when a replica ends, or CellError."""
    with trio.move_on_after(READY_WITHIN_S):
        while True:
            cluster.check()
            with suppress(OSError, ConnectionLost, ErrorReply):
                await cluster.ask(site, "SET", f"back:{site}", "1")
                return
            await trio.sleep(_POLL_S)
    raise CellError(f"{site} answered no command within {READY_WITHIN_S:g} s of its restart")


def _enter(record: Record, site: str, tally: Tally) -> None:
    """The commands of one site that were answered, and why others were not."""
    kinds = ((OTHER, tally.cold_due_us, tally.cold_us), (SHARED, tally.hot_due_us, tally.hot_us))
    for kind, due_us, took_us in kinds:
        record.answers[site, kind] = [
            Answer(due - round(WARMUP_S * 1e6), took) for due, took in zip(due_us, took_us, strict=True)
        ]
    record.reasons[site] = dict(tally.reasons)


# ------------------------------------------------------------------------------------------------------------- capacity


async def capacity(spec: ClusterSpec, shared: float, progress: Progress) -> float:
    """Commands a second at each site that a cluster takes on this machine before they queue for its processors.
    `shared`: of them on one key. Raises ClusterError."""
    async with local_cluster(spec) as cluster:
        await cluster.wait_ready(within_s=READY_WITHIN_S)
        connects = [partial(cluster.socket_to, name) for name in spec.names]

        async def run(clients: int) -> Closed:
            progress(f"what do {clients} clients a site get that never rest?")
            full = ClosedLoad(
                clients=clients * len(connects), seconds=_CAPACITY_S, warmup_s=_CAPACITY_WARMUP_S, hot_share=shared
            )
            closed = await trio.to_thread.run_sync(partial(closed_loop.run, connects, full))
            cluster.check()
            return closed

        return (await before_they_queue(run)).per_s / len(spec.names)


async def before_they_queue(run: Callable[[int], Awaitable[Closed]]) -> Closed:
    """What ever more clients get that never rest, the last time that a command does not take them `SLOWED` times as
    long as the first. `run`: so many at each site."""
    clients = FIRST_CLIENTS
    found = few = await run(clients)
    while (clients := 2 * clients) <= LANES and not _slowed(closed := await run(clients), few):
        found = closed
    return found


def _slowed(closed: Closed, few: Closed) -> bool:
    many_us, few_us = (percentile(sorted(each.took_us), 0.5) for each in (closed, few))
    return many_us is None or few_us is None or many_us > SLOWED * few_us
