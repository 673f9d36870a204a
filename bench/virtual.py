"""Whole engines in virtual time on the links of a matrix: for what is to be known of the protocol and not of a machine.

The engines are those that are shipped, in the simulator's loop. Modelled: each message takes half the matrix's round
trip and up to 2 % more, a sync takes up to `SYNC_US`, computing takes nothing, and every replica knows the round trips
as its links would have measured them. Nothing depends on the machine; a seed gives the same figures everywhere. The
simulator's invariants watch: a run in which safety is lost raises Violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from epaxos.command import Entry
from epaxos.errors import Rejected, Unknown
from epaxos.execution.interface import Executor, Group
from epaxos.ids import InstanceId, ReplicaId
from epaxos.machines.kv import Kv, Op
from epaxos.packing import encode_run
from epaxos.protocols.interface import LogView, PeerDown, Protocol, ProtocolConfig, Random
from epaxos.protocols.registry import build
from epaxos.submission import DEFAULT_LIMITS, Limits, Submit
from epaxos.testing.faults import Swarm
from epaxos.testing.forks import Forks
from epaxos.testing.invariants import Watch
from epaxos.testing.invariants.agreement import Agreement
from epaxos.testing.invariants.order import EqualOrder
from epaxos.testing.invariants.promises import Promises
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.node import Node
from epaxos.testing.record import Record
from epaxos.testing.stage import Stage
from epaxos.testing.trace import Trace
from epaxos.testing.watched import WatchedExecutor

if TYPE_CHECKING:
    from topology import Matrix

SYNC_US: Final = 1_000
JITTER: Final = 0.02
LINKS_UP_US: Final = 2_000_000
"""By then every link is up and measured: loads begin here."""
REQUEST_TIMEOUT_US: Final = 10_000_000
SECRET: Final = bytes(16)

SECOND_US: Final = 1_000_000


class Ran(NamedTuple):
    """An instance as one replica executed it."""

    at_us: int
    group: int
    """How many instances its strongly connected component has."""


class Asked:
    """One command of one client, and what became of it. The engine's `Waiter` of a run of one."""

    def __init__(self, site: ReplicaId, key: bytes, now_us: Callable[[], int]) -> None:
        self.site = site
        self.key = key
        self.asked_us = now_us()
        self.answered_us: int | None = None
        self.error: Rejected | Unknown | None = None
        self._now_us = now_us

    @property
    def took_us(self) -> int | None:
        """From the command to its reply; None while there is none."""
        return None if self.answered_us is None else self.answered_us - self.asked_us

    def reply(self, first: int, count: int, data: bytes) -> None:
        """As `Waiter.reply`."""
        self.answered_us = self._now_us()

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """As `Waiter.fail`."""
        self.error = error


class Lab(Stage):
    """A replica at every site of a matrix, all of them up. `detect_us`: how long a dead replica's links look alive."""

    def __init__(
        self,
        matrix: Matrix,
        *,
        protocol: str = "epaxos",
        limits: Limits = DEFAULT_LIMITS,
        detect_us: int = 0,
        seed: int = 1,
        timeout_us: int = REQUEST_TIMEOUT_US,
        leader: ReplicaId | None = None,
    ) -> None:
        self.matrix = matrix
        self.ran: list[dict[InstanceId, Ran]] = [{} for _ in matrix.sites]
        """For each site, what ran there and when."""
        self.asked: list[Asked] = []
        """Every command, in the order in which they were asked."""
        self._protocol = protocol
        self._leader = leader
        self._detect_us = detect_us
        self._timeout_us = timeout_us
        swarm = _calm(matrix, limits)
        super().__init__(self._built, forks=Forks(seed), swarm=swarm, make_machine=Kv, trace=Trace())
        self.record = Record(KvModel(), ())
        self.watch = Watch(self.record, (Agreement, EqualOrder, Promises))
        for node in self.nodes:
            self.restart(node)

    def _built(self, config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
        protocol, executor = build(self._protocol, config._replace(preferred=self._leader), rng, log)
        ran = self.ran[config.me]

        def executed(groups: Iterable[Group]) -> None:
            for group in groups:
                ran.update((id_, Ran(self.now_us, len(group))) for id_ in group)

        return protocol, WatchedExecutor(executor, decided=lambda id_, payload, order: None, executed=executed)

    def clock(self) -> int:
        """Simulated time, in microseconds."""
        return self.now_us

    def run_until(self, at_us: int) -> None:
        """Let everything happen that happens up to that moment."""
        while self.advance(at_us):
            pass
        self.now_us = at_us

    def ask(self, site: ReplicaId, key: bytes, value: bytes) -> None:
        """A client beside `site` sets `key`, if the replica there is up. It waits for nobody, and nobody for it."""
        node = self.nodes[site]
        if not node.up:
            return
        asked = Asked(site, key, self.clock)
        self.asked.append(asked)
        run = encode_run(SECRET, [(Entry(Op.SET, 0, key, value),)])
        deadline_us = node.mono_us(self.now_us + self._timeout_us)
        node.put(Submit(asked, len(self.asked), run, 1, deadline_us))

    def open_loop(
        self, site: ReplicaId, *, rate_per_s: float, from_us: int, until_us: int, key: Callable[[int], bytes]
    ) -> None:
        """Commands leave `site` at random moments, so many a second, whatever becomes of them; `key(i)` of the i-th."""
        rng = self.forks[f"load.{site}"]
        at_us, number = from_us + rng.expovariate(rate_per_s) * SECOND_US, 0
        while at_us < until_us:
            self.at(int(at_us), self.ask, site, key(number), b"%d/%d" % (site, number))
            at_us, number = at_us + rng.expovariate(rate_per_s) * SECOND_US, number + 1

    def cut_power(self, site: ReplicaId) -> None:
        """The replica of `site` dies, and takes what was not synced with it; its peers notice after `detect_us`."""
        node = self.nodes[site]
        life = node.life
        node.crash(forgets=False)
        for peer in self.nodes:
            if site in peer.linked:
                self.after(self._detect_us, self._notice, peer, life.replica)

    def _notice(self, node: Node, gone: ReplicaId) -> None:
        if node.up and not self.nodes[gone].up:
            node.put(PeerDown(peer=gone))


def _calm(matrix: Matrix, limits: Limits) -> Swarm:
    """Nothing goes wrong by itself."""
    n = len(matrix.sites)
    delay_us = tuple(tuple(matrix.one_way_us(a, b) for b in matrix.sites) for a in matrix.sites)
    return Swarm(
        kinds=(),
        fault_us=0,
        delay_us=delay_us,
        calm_us=max(map(max, delay_us)),
        drift=(),
        jitter=JITTER,
        loss=0.0,
        duplication=0.0,
        clock_ppm=(0,) * n,
        sync_us=SYNC_US,
        stuck=0.0,
        turn_us=0,
        inputs_max=1_000,
        codec=False,
        measured=True,
        down_after_us=0,
        ambush_replies=(),
        interrupts={},
        sieges=(),
        betrayals=(),
        limits=limits,
        retry_us=100_000,
        preferred=None,
        eager=False,
        strikes=(),
        encore=False,
    )
