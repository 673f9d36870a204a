"""A leader dies for ever: how long is there none that can commit, in virtual time?

One cluster a run, on the delays of a matrix, under a light load. When somebody leads and has committed, its power goes
at a random moment. Two times count from there: until somebody else is elected (it sends its first entry), and until
that one commits, which is when commands are answered again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.tally import percentile
from bench.virtual import LINKS_UP_US, SECOND_US, Lab
from epaxos.command import Payload
from epaxos.errors import ConfigError
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import AppendEntries, Message
from epaxos.protocols.interface import Order
from epaxos.tables import Column, ms, render
from epaxos.testing.record import Life
from topology import Matrix, load as load_matrix

FIRST_WITHIN_US: Final = 60 * SECOND_US
"""The first election has to be over by then."""
NEXT_WITHIN_US: Final = 60 * SECOND_US
STEP_US: Final = 10_000
NOBODY_TELLS_US: Final = 10**12


@dataclass(frozen=True, kw_only=True)
class ElectionOptions:
    """What to run."""

    matrix: str = "gryff5"
    protocol: str = "raft"
    runs: int = 200
    """Crashes, each in a cluster of its own."""
    detect_ms: int | None = None
    """From the crash until links to the dead leader break; None: never, so that only its silence tells."""
    leader: str | None = None
    """The site that should lead; None leaves it to chance."""
    rate_per_s: float = 10.0
    """Commands at each site, on keys of their own."""
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """One crash. Times count from it; None: not within `NEXT_WITHIN_US`."""

    dead: str
    next: str | None
    elected_us: int | None
    commits_us: int | None


@dataclass(frozen=True, kw_only=True)
class ElectionResult:
    """All runs."""

    options: ElectionOptions
    elections: list[Election]

    @property
    def wrong(self) -> list[str]:
        """What was promised and does not hold."""
        left = sum(each.commits_us is None for each in self.elections)
        return [f"after {left} crashes nobody was able to commit for {NEXT_WITHIN_US // SECOND_US} s"] * bool(left)


def run_elections(options: ElectionOptions, progress: Callable[[str], None] = lambda text: None) -> ElectionResult:
    """All runs.

    Raises Violation when safety is lost, and ConfigError for an unknown matrix, a site that is not in it, or a protocol
    in which nobody leads.
    """
    matrix = load_matrix(options.matrix)
    elections = []
    for number in range(options.runs):
        elections.append(_Run(options, matrix, number).outcome())
        progress(f"run {number + 1} of {options.runs}: {elections[-1].dead} died")
    return ElectionResult(options=options, elections=elections)


class _Run:
    """One cluster, one crash."""

    def __init__(self, options: ElectionOptions, matrix: Matrix, number: int) -> None:
        self.options = options
        self.lab = Lab(
            matrix,
            protocol=options.protocol,
            detect_us=NOBODY_TELLS_US if options.detect_ms is None else options.detect_ms * 1_000,
            seed=options.seed + number,
            leader=None if options.leader is None else matrix.index(options.leader),
        )
        self._dead: ReplicaId | None = None
        self._elected: dict[ReplicaId, int] = {}
        self._commits: tuple[ReplicaId, int] | None = None
        self.lab.watch.sent.append(self._sent)
        self.lab.watch.decided.append(self._decided)

    def _sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if self._dead is not None and isinstance(message, AppendEntries) and life.replica != self._dead:
            self._elected.setdefault(life.replica, self.lab.now_us)

    def _decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        if self._commits is None and life.replica in self._elected:
            self._commits = life.replica, self.lab.now_us

    def outcome(self) -> Election:
        """From the first election to the next."""
        lab, options = self.lab, self.options
        dead = self._leader()
        crash_us = lab.now_us + lab.forks["crash"].randrange(SECOND_US)
        for site in range(lab.n):
            key = _keys(site)
            lab.open_loop(site, rate_per_s=options.rate_per_s, from_us=lab.now_us, until_us=crash_us, key=key)
        lab.run_until(crash_us)
        self._dead = dead
        lab.cut_power(dead)
        while self._commits is None and lab.now_us < crash_us + NEXT_WITHIN_US:
            lab.run_until(lab.now_us + STEP_US)
        sites = lab.matrix.sites
        if self._commits is None:
            return Election(dead=sites[dead], next=None, elected_us=None, commits_us=None)
        next_, commits_us = self._commits
        return Election(
            dead=sites[dead],
            next=sites[next_],
            elected_us=self._elected[next_] - crash_us,
            commits_us=commits_us - crash_us,
        )

    def _leader(self) -> ReplicaId:
        """Who leads, as soon as all agree on it and on its term, and it is whom the options want."""
        lab, wanted = self.lab, self.options.leader
        lab.run_until(LINKS_UP_US)
        while lab.now_us < FIRST_WITHIN_US:
            statuses = [node.engine.protocol.status() for node in lab.nodes]
            if any("leader" not in status for status in statuses):
                raise ConfigError(f"{self.options.protocol} has no leader that could die")
            agreed = {(status["term"], status["leader"], bool(status["commit"])) for status in statuses}
            if len(agreed) == 1:
                _, leader, committed = agreed.pop()
                if isinstance(leader, int) and committed and wanted in (None, lab.matrix.sites[leader]):
                    return leader
            lab.run_until(lab.now_us + STEP_US)
        raise ConfigError(f"nobody led within {FIRST_WITHIN_US // SECOND_US} s")


def _keys(site: ReplicaId) -> Callable[[int], bytes]:
    return lambda number: b"own:%d:%d" % (site, number)


def as_table(result: ElectionResult) -> str:
    """For people."""
    options = result.options
    titles = ("runs", "elected\nmedian", "\np90", "\np99", "able to commit\nmedian", "\np90", "\np99", "\nlongest")
    columns = [Column("dead leader", right=False), *map(Column, titles)]
    dead = sorted({each.dead for each in result.elections})
    rows = [_row(site, [each for each in result.elections if each.dead == site]) for site in dead]
    told = "only its silence tells" if options.detect_ms is None else f"its links break after {options.detect_ms} ms"
    lines = [
        f"a leader dies on {options.matrix} ({options.protocol}): {options.runs} runs, seed {options.seed}; {told}",
        "virtual time, modelled links and disks; from the crash until the next leader, in ms",
        "",
        render(columns, rows, foot=[_row("all", result.elections)]),
        "",
        *result.wrong,
        "there was a leader again each time: " + ("NO" if result.wrong else "yes"),
    ]
    return "\n".join(lines)


def _times_us(elections: list[Election]) -> tuple[list[int], list[int]]:
    elected = sorted(each.elected_us for each in elections if each.elected_us is not None)
    return elected, sorted(each.commits_us for each in elections if each.commits_us is not None)


def _row(name: str, elections: list[Election]) -> list[str]:
    elected, commits = _times_us(elections)
    cells = [ms(percentile(times, share)) for times in (elected, commits) for share in (0.5, 0.9, 0.99)]
    return [name, str(len(elections)), *cells, ms(commits[-1] if commits else None)]


def to_json(result: ElectionResult) -> dict[str, Any]:
    """For machines: every run as well."""
    elected, commits = _times_us(result.elections)
    shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99}
    return {
        "options": asdict(result.options),
        "elected": {name: percentile(elected, share) for name, share in shares.items()},
        "commits": {name: percentile(commits, share) for name, share in shares.items()},
        "runs": [asdict(each) for each in result.elections],
        "wrong": result.wrong,
    }
