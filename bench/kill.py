"""`kill -9` of replicas under load, again and again: what clients elsewhere notice, and what is left when all are back.

At every site some clients increment keys of their own, and some work on keys that all sites share (SET, GET, APPEND,
INCRBY, MSET, MGET), one command at a time. Every so often some replicas are killed at one moment, and restarted on
their data directories. Then everything is read at every replica. What the clients of the shared keys saw must be
linearizable, and every counter must be the same everywhere, at least what was acknowledged and at most that and what
ended with an unknown outcome.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import click
import trio

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from bench.load import OUTCOME_UNKNOWN
from bench.options import JSON, PROTOCOL
from bench.resp import ConnectionLost, ErrorReply, RespConnection
from bench.sites import leader_of
from epaxos.amount import POSITIVE
from epaxos.console import Console
from epaxos.errors import ConfigError, Rejected, Unknown
from epaxos.tables import Column, ms, render
from epaxos.testing.history import History, Load
from epaxos.testing.record import Outcome
from topology import Matrix, load as load_matrix

READY_WITHIN_S: Final = 30.0
CONVERGED_WITHIN_S: Final = 60.0
RECONNECT_S: Final = 0.05
POLL_S: Final = 0.05

OWN: Final = "own"
SHARED: Final = "shared"
KINDS: Final = (OWN, SHARED)
LEADER: Final = "leader"

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class KillOptions:
    """How long, how often, and whom."""

    matrix: str = "epaxos5"
    protocol: str = "epaxos"
    victims: str = "1"
    """A number: so many at a time, the sites in turn. Or the names of sites, with commas: always these. Or `leader`:
    whoever leads at the moment."""
    seconds: float = 15.0
    """Of load."""
    every_s: float = 10.0
    """From one kill to the next, the first after half of it. The victims are down for half of it; the next kill waits
    until they serve again."""
    clients: int = 1
    """At each site, of each kind."""
    seed: int = 1


@dataclass
class Counter:
    """What clients know of one key of their own."""

    acknowledged: int = 0
    unknown: int = 0


class Round(NamedTuple):
    """One kill. Times in microseconds of the trio clock."""

    victims: tuple[str, ...]
    killed_us: int
    restarted_us: int
    ready_us: int
    """All of them had answered a command again."""


@dataclass
class KillResult:
    """What happened."""

    options: KillOptions
    sites: tuple[str, ...]
    began_us: int = 0
    ended_us: int = 0
    rounds: list[Round] = field(default_factory=list)
    acks_us: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(site, kind of key) -> when commands were acknowledged."""
    counters: dict[str, Counter] = field(default_factory=dict)
    history: History = field(default_factory=History)
    wrong: list[str] = field(default_factory=list)
    undecided: int = 0
    """Shared keys whose history was too entangled to be judged."""

    def quiet_gap_us(self, site: str, kind: str) -> int | None:
        """The longest time without an acknowledgement at a site before anybody was killed."""
        until_us = self.rounds[0].killed_us if self.rounds else self.ended_us
        times = [t for t in self.acks_us.get((site, kind), ()) if self.began_us <= t <= until_us]
        return max((b - a for a, b in itertools.pairwise(times)), default=None)

    def gaps_us(self, site: str, kind: str) -> list[int]:
        """Of each round that a site lived through, the longest time without an acknowledgement there, ascending."""
        gaps = []
        for round_ in self.rounds:
            if site not in round_.victims:
                first, last = round_.killed_us, round_.ready_us
                times = [t for t in self.acks_us.get((site, kind), ()) if first <= t <= last]
                gaps.append(max(b - a for a, b in itertools.pairwise([first, *times, last])))
        return sorted(gaps)


async def run_kill(options: KillOptions, progress: Progress = lambda text: None) -> KillResult:
    """The whole run, in a directory of its own that is gone afterwards.

    Raises ConfigError for victims that there are not or that leave no majority, and ClusterError when a replica ends
    by itself or does not come back.
    """
    matrix = load_matrix(options.matrix)
    whom = _whom(options, matrix)
    result = KillResult(options, matrix.sites)
    with TemporaryDirectory(prefix="epaxos-kill-") as directory:
        spec = ClusterSpec(
            names=matrix.sites, directory=Path(directory), protocol=options.protocol, emulate=options.matrix
        )
        async with local_cluster(spec) as cluster:
            progress(f"starting {len(matrix.sites)} replicas")
            await cluster.wait_ready(within_s=READY_WITHIN_S)
            shared = Load(Random(options.seed), readers=len(matrix.sites))
            await _load(cluster, result, shared, whom, progress)
            progress("waiting until all that is under way has ended")
            await cluster.wait_quiet(within_s=CONVERGED_WITHIN_S)
            progress("reading everything at every replica")
            await _converge(cluster, result, shared)
    return result


# ---------------------------------------------------------------------------------------------------------- the victims

Whom = Callable[[LocalCluster, int], Awaitable[Sequence[str]]]
"""(the cluster, how many kills there were) -> whose turn it is."""


def _whom(options: KillOptions, matrix: Matrix) -> Whom:
    """What `victims` says. Raises ConfigError when it says nothing that can be done."""
    sites, spared = matrix.sites, len(matrix.sites) // 2
    if options.victims == LEADER:
        return partial(_leader, matrix)
    if options.victims.isdecimal():
        count = int(options.victims)
        named: list[str] = []
    else:
        named = [sites[matrix.index(name)] for name in options.victims.split(",")]
        count = len(named)
    if not 1 <= count <= spared:
        raise ConfigError(f"{count} victims of {len(sites)} replicas: at least 1, and at most {spared}, may be down")

    async def whom(cluster: LocalCluster, kills: int) -> Sequence[str]:
        return named or [sites[(kills * count + i) % len(sites)] for i in range(count)]

    return whom


async def _leader(matrix: Matrix, cluster: LocalCluster, kills: int) -> Sequence[str]:
    """Who leads, as soon as all agree. Raises ConfigError for a protocol that has no leader."""
    while True:
        statuses = [await cluster.status(site) for site in matrix.sites]
        try:
            leader = leader_of(matrix, statuses)
        except ValueError:
            await trio.sleep(POLL_S)
            continue
        if leader is None:
            raise ConfigError(f"{cluster.spec.protocol} has no leader to kill")
        return [leader]


# -------------------------------------------------------------------------------------------------------------- the run


async def _load(cluster: LocalCluster, result: KillResult, shared: Load, whom: Whom, progress: Progress) -> None:
    """The clients, and the kills, for so long."""
    options = result.options
    result.began_us = _now_us()
    async with trio.open_nursery() as nursery:
        for site in result.sites:
            for client in range(options.clients):
                nursery.start_soon(_client, cluster, result, site, OWN, partial(_increment, result, site, client))
                nursery.start_soon(_client, cluster, result, site, SHARED, partial(_share, result, site, shared))
        end_s = trio.current_time() + options.seconds
        next_s = trio.current_time() + options.every_s / 2
        while next_s + options.every_s / 2 <= end_s:
            await trio.sleep_until(next_s)
            result.rounds.append(await _kill(cluster, options, await whom(cluster, len(result.rounds))))
            progress(_word(result, end_s))
            next_s = max(next_s + options.every_s, trio.current_time())
        await trio.sleep_until(end_s)
        nursery.cancel_scope.cancel()
    result.ended_us = _now_us()


def _word(result: KillResult, end_s: float) -> str:
    last = result.rounds[-1]
    answered = sum(map(len, result.acks_us.values()))
    left_s = max(0.0, end_s - trio.current_time())
    return f"kill {len(result.rounds)}: {' and '.join(last.victims)}; {answered} answered, {left_s:.0f} s to go"


async def _kill(cluster: LocalCluster, options: KillOptions, victims: Sequence[str]) -> Round:
    """Kill them at one moment, leave them down for a while, and bring them back."""
    killed_us = _now_us()
    async with trio.open_nursery() as nursery:
        for victim in victims:
            nursery.start_soon(cluster.kill, victim)
    await trio.sleep(options.every_s / 2)
    restarted_us = _now_us()
    for victim in victims:
        await cluster.launch(victim)
    for victim in victims:
        await cluster.wait_until(
            victim, lambda _, status: status["behind"] == 0, within_s=READY_WITHIN_S, what="serve again"
        )
        await cluster.ask(victim, "INCR", f"back:{victim}")
    return Round(tuple(victims), killed_us, restarted_us, _now_us())


Ask = Callable[[RespConnection], Awaitable[bool]]
"""Sends one command; was it answered?"""


async def _client(cluster: LocalCluster, result: KillResult, site: str, kind: str, ask: Ask) -> None:
    """One command after the other, on a new connection whenever the old one is lost."""
    acks = result.acks_us.setdefault((site, kind), [])
    while True:
        try:
            async with RespConnection(await cluster.connect(site)) as connection:
                while True:
                    if await ask(connection):
                        acks.append(_now_us())
        except (OSError, ConnectionLost):
            await trio.sleep(RECONNECT_S)


async def _increment(result: KillResult, site: str, client: int, connection: RespConnection) -> bool:
    """A key of one's own; until the reply is there the outcome is unknown."""
    key = f"own:{site}:{client}"
    counter = result.counters.setdefault(key, Counter())
    counter.unknown += 1
    try:
        await connection.call("INCR", key)
    except ErrorReply as error:
        if not str(error).startswith(OUTCOME_UNKNOWN):
            counter.unknown -= 1
        return False
    counter.unknown -= 1
    counter.acknowledged += 1
    return True


async def _share(result: KillResult, site: str, shared: Load, connection: RespConnection) -> bool:
    outcome = await result.history.call(f"client at {site}", shared.next(), partial(_execute, connection))
    return outcome is Outcome.DONE


async def _execute(connection: RespConnection, *words: bytes) -> Any:
    """As `history.Execute`."""
    try:
        return await connection.call(*words)
    except ErrorReply as error:
        if str(error).startswith(OUTCOME_UNKNOWN):
            raise Unknown(str(error)) from error
        raise Rejected("refused", str(error)) from error


async def _converge(cluster: LocalCluster, result: KillResult, shared: Load) -> None:
    """Nothing is under way any more, so each replica's answer is the final one."""
    finals: dict[bytes, set[bytes]] = {}
    with trio.fail_after(CONVERGED_WITHIN_S):
        for site in result.sites:
            async with RespConnection(await cluster.connect(site)) as connection:
                for action in shared.survey():
                    await result.history.call(f"reader at {site}", action, partial(_execute, connection))
                    finals.setdefault(action.words[1], set()).add(repr(result.history.entries[-1].reply).encode())
        for key, counter in sorted(result.counters.items()):
            values = {site: int(await cluster.ask(site, "GET", key) or 0) for site in result.sites}
            low, high = counter.acknowledged, counter.acknowledged + counter.unknown
            if len(set(values.values())) != 1 or not low <= values[result.sites[0]] <= high:
                result.wrong.append(f"{key}: {values}, acknowledged {low}, at most {high}")
    for shared_key, replies in finals.items():
        if len(replies) != 1:
            result.wrong.append(f"{shared_key.decode()}: {b' here, '.join(sorted(replies)).decode()} there")
    judgement = result.history.judge()
    result.undecided = len(judgement.undecided)
    if not judgement.sound:
        result.wrong.append(result.history.explain(judgement))


def _now_us() -> int:
    return int(trio.current_time() * 1e6)


# ------------------------------------------------------------------------------------------------------------- the word


def as_table(result: KillResult) -> str:
    """For people."""
    options = result.options
    columns = [Column("site", right=False), Column("kills\nlived through")]
    for kind in KINDS:
        columns += [Column(f"{kind} keys\ngap before"), Column("gap in a kill\nmedian"), Column("\nlongest")]
    columns.append(Column("commands\nanswered"))
    rows = []
    for site in result.sites:
        cells = [site, str(len(result.gaps_us(site, OWN)))]
        for kind in KINDS:
            gaps = result.gaps_us(site, kind)
            cells += [ms(result.quiet_gap_us(site, kind)), ms(_middle(gaps)), ms(gaps[-1] if gaps else None)]
        cells.append(str(sum(len(result.acks_us.get((site, kind), ())) for kind in KINDS)))
        rows.append(cells)
    counts = result.history.counts()
    back = sorted(each.ready_us - each.restarted_us for each in result.rounds)
    increments = sum(counter.acknowledged for counter in result.counters.values())
    unknown = counts[Outcome.UNKNOWN] + sum(counter.unknown for counter in result.counters.values())
    lines = [
        f"kill -9 of {options.victims} on {options.matrix} ({options.protocol}), every {options.every_s:g} s for"
        f" {options.seconds:g} s: {len(result.rounds)} kills; a gap is the longest time without an answer, in ms",
        "",
        render(columns, rows),
        "",
        f"back and answering: median {ms(_middle(back))}, longest {ms(back[-1] if back else None)} after a restart",
        f"{counts[Outcome.DONE]} commands on shared keys and {increments} increments acknowledged, {unknown} unknown",
        *result.wrong,
        f"acknowledged and there, equal everywhere, linearizable: {'NO' if result.wrong else 'yes'}"
        + (f" ({result.undecided} keys were too entangled to be judged)" if result.undecided else ""),
    ]
    return "\n".join(lines)


def _middle(ascending: Sequence[int]) -> int | None:
    return ascending[len(ascending) // 2] if ascending else None


def to_json(result: KillResult) -> dict[str, Any]:
    """For machines."""
    sites = {
        site: {
            kind: {"before_us": result.quiet_gap_us(site, kind), "in_kills_us": result.gaps_us(site, kind)}
            for kind in KINDS
        }
        for site in result.sites
    }
    outcomes = {outcome.value: count for outcome, count in result.history.counts().items()}
    return {
        "options": asdict(result.options),
        "rounds": [round_._asdict() for round_ in result.rounds],
        "gaps": sites,
        "shared": outcomes,
        "own": {key: asdict(counter) for key, counter in result.counters.items()},
        "undecided": result.undecided,
        "wrong": result.wrong,
    }


@click.command()
@click.option("--matrix", default="epaxos5", show_default=True, help="A region matrix by name or path.")
@PROTOCOL
@click.option(
    "--victims",
    default="1",
    show_default=True,
    help="So many at a time, in turn; or the sites by name, with commas; or `leader`, whoever leads.",
)
@click.option(
    "--every", "every_s", type=POSITIVE, default=10.0, show_default=True, help="Seconds between kills; half of it down."
)
@click.option("--seconds", type=POSITIVE, default=15.0, show_default=True, help="Of load.")
@click.option(
    "--clients", default=1, show_default=True, type=click.IntRange(1, 100), help="At each site, of each kind."
)
@JSON
def kill(matrix: str, protocol: str, victims: str, every_s: float, seconds: float, clients: int, as_json: bool) -> None:
    """kill -9 of replicas under load: what clients elsewhere notice, and that nothing is lost.

    \b
    Examples: python -m bench kill --matrix gryff5 --victims OR
              python -m bench kill --victims 2 --every 6 --seconds 60
              python -m bench kill --protocol raft --victims leader --every 3 --seconds 60
    """
    console = Console(as_json)
    options = KillOptions(
        matrix=matrix, protocol=protocol, victims=victims, every_s=every_s, seconds=seconds, clients=clients
    )
    result = trio.run(run_kill, options, console.progress)
    console.progress_done()
    console.result(to_json(result), as_table(result))
    raise SystemExit(bool(result.wrong))
