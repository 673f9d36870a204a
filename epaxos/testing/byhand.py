"""A cluster of whole engines in which nothing happens by itself: every message, sync, crash and timer is the caller's.

For sequences that must be told exactly, step by step: scenario files (`scenario.py`) and tests. The engines are those
that ship, with any protocol of the registry; the disks lose what was not synced. Where chance should choose what
happens, use the simulator (`seeds.py`) instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from epaxos import submission
from epaxos.command import READ, Command, Entry, Payload
from epaxos.engine import Engine, Input, Turn
from epaxos.errors import Rejected, Unknown
from epaxos.execution.interface import Executor, Group
from epaxos.ids import InstanceId, ReplicaId
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import Op, PyKv
from epaxos.messages import Message
from epaxos.packing import encode_run
from epaxos.protocols.interface import (
    Durable,
    Note,
    Now,
    Order,
    PeerUp,
    Protocol,
    ProtocolConfig,
    Receive,
    Rtt,
    Timer,
)
from epaxos.protocols.registry import build
from epaxos.storage.memory import MemoryDisk
from epaxos.submission import Cancel, Limits, Submit
from epaxos.testing.forks import Forks
from epaxos.testing.watched import WatchedExecutor

SECRET: Final = bytes(range(16))
"""Hashes the keys of every simulated cluster."""
FOREVER_US: Final = 10**15
RETRY_US: Final = 100_000
"""`ProtocolConfig.retry_us` unless the cluster is made with another."""
_MESSAGES_MAX: Final = 10_000
"""More than so many deliveries without an end are a mistake."""


class Waiter:
    """What one client was told."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.errors: list[Rejected | Unknown] = []

    def reply(self, first: int, count: int, data: bytes) -> None:
        """As `submission.Waiter.reply`."""
        self.replies.append(data)

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """As `submission.Waiter.fail`."""
        self.errors.append(error)


@dataclass(eq=False)
class Flight:
    """A message under way."""

    source: ReplicaId
    target: ReplicaId
    message: Message

    def __str__(self) -> str:
        return f"{self.source}->{self.target} {self.message}"


@dataclass
class Site:
    """One replica and its disk."""

    engine: Engine
    disk: MemoryDisk
    machine: PyKv
    incarnation: int = 1
    up: bool = True
    notes: list[Note] = field(default_factory=list)
    """What the protocol found worth noting in this life."""
    groups: list[Group] = field(default_factory=list)
    """What ran in this life, in order; what earlier lives ran comes first."""
    replayed: int = 0
    """So many of `groups` ran in earlier lives."""
    last: Turn = field(default_factory=Turn)

    @property
    def protocol(self) -> Protocol:
        """The protocol object of this life."""
        return self.engine.protocol


class ByHand:
    """`n` sites. Disks sync at once unless `hold_disk` names a site; what arrives is taken at once unless `hold_turns`
    does."""

    def __init__(
        self,
        n: int = 3,
        *,
        window: int = 1024,
        protocol: str = "epaxos",
        retry_us: int = RETRY_US,
        preferred: ReplicaId | None = None,
        eager: bool = False,
        chance: int | None = None,
        **limits: int,
    ) -> None:
        """`limits` are those of `submission.Limits`. With `chance`, the protocols draw what they draw in the simulator
        with that seed. Raises ConfigError for a protocol that is not in the registry.
        """
        self.n = n
        self.window = window
        self.protocol = protocol
        self.retry_us = retry_us
        self.preferred = preferred
        self.eager = eager
        self._forks = None if chance is None else Forks(chance)
        self.limits = Limits(window=window, **limits)
        self.now_us = 10**9  # no clock begins at nought: its machine has been up for a while
        self.ahead_us = [0] * n
        """How far the clock of each site is ahead of `now_us`; only `wake` and `take` move one by itself."""
        self.flights: list[Flight] = []
        """The messages under way, oldest first."""
        self.decided: dict[InstanceId, dict[tuple[Payload, Order], set[ReplicaId]]] = {}
        """Every decision that a site ever acted on, in any of its lives."""
        self.hold_disk: set[ReplicaId] = set()
        self.hold_turns: set[ReplicaId] = set()
        self.inbox: list[list[Input]] = [[] for _ in range(n)]
        """What the sites have not taken yet whose turns are held."""
        self.sites = [self._site(i, MemoryDisk(), 1) for i in range(n)]
        for i in range(n):
            self.turn(i)

    def _site(self, i: ReplicaId, disk: MemoryDisk, incarnation: int) -> Site:
        machine = PyKv()
        config = ProtocolConfig(
            me=i,
            n=self.n,
            window=self.window,
            retry_us=self.retry_us,
            preferred=self.preferred,
            eager=self.eager,
        )
        rng = random.Random(i) if self._forks is None else self._forks[f"core.{i}"]
        protocol, executor = build(self.protocol, config, rng, disk)
        groups: list[Group] = []

        def decided(id_: InstanceId, payload: Payload, order: Order) -> None:
            self.decided.setdefault(id_, {}).setdefault((payload, order), set()).add(i)

        watched = WatchedExecutor(executor, decided=decided, executed=groups.extend)
        lent = self.lend(i, incarnation, watched, machine)
        engine = Engine(
            me=i,
            n=self.n,
            incarnation=incarnation,
            protocol=protocol,
            executor=lent[0],
            machine=lent[1],
            log=disk,
            limits=self.limits,
        )
        return Site(engine, disk, machine, incarnation, groups=groups)

    def lend(
        self, i: ReplicaId, incarnation: int, executor: Executor, machine: BatchMachine
    ) -> tuple[Executor, BatchMachine]:
        """What a new life of site `i` works with: these, or others around them."""
        return executor, machine

    def clock_us(self, i: ReplicaId) -> int:
        """What the clocks of site `i` show."""
        return self.now_us + self.ahead_us[i]

    # -- events

    def turn(self, i: ReplicaId, *inputs: Input) -> Turn:
        """One turn of site `i`; its messages join `flights`; then its disk, unless it is held.

        Where turns are held, the inputs wait for `take`.
        """
        if i in self.hold_turns:
            self.inbox[i] += inputs
            return Turn()
        return self._turn(i, inputs)

    def take(self, i: ReplicaId, after_us: int = 0, timers: Sequence[Timer] = ()) -> Turn:
        """One turn of site `i` with all that has arrived, when its clock alone has run on so far, and to these timers
        if they are set."""
        due = {timer: at_us for at_us, timer in self.sites[i].engine.timers()}
        until_us = max([self.clock_us(i) + after_us, *(due[timer] for timer in timers if timer in due)])
        self.ahead_us[i] = until_us - self.now_us
        inputs, self.inbox[i] = self.inbox[i], []
        return self._turn(i, inputs)

    def _turn(self, i: ReplicaId, inputs: Sequence[Input]) -> Turn:
        site, now_us = self.sites[i], self.clock_us(i)
        out = site.last = site.engine.turn(Now(now_us, now_us), inputs)
        site.notes += out.notes
        for peers, message in out.sends:
            self.flights += [Flight(i, peer, message) for peer in peers]
        if out.write is not None:
            site.disk.write(out.write)
            if i not in self.hold_disk:
                self.sync(i)
        return out

    def poke(self, i: ReplicaId, action: Callable[[Protocol], None]) -> None:
        """Set something going inside the protocol of site `i`, as a rule of it would; what comes of it follows."""
        action(self.sites[i].protocol)
        self.turn(i, Rtt(peer=(i + 1) % self.n, rtt_us=0))

    def sync(self, i: ReplicaId, upto: int | None = None) -> None:
        """The disk of site `i` catches up, and its engine hears of it."""
        disk = self.sites[i].disk
        if disk.unsynced:
            self.turn(i, Durable(mark=disk.sync(upto)))

    def submit(
        self,
        i: ReplicaId,
        *commands: Command,
        stream: int = 1,
        timeout_us: int = FOREVER_US,
        waiter: Waiter | None = None,
    ) -> Waiter:
        """Commands of one run at site `i`; `waiter` gets the answers, or a new one."""
        waiter = waiter or Waiter()
        self.submit_run(
            i, encode_run(SECRET, commands), waiter, count=len(commands), stream=stream, timeout_us=timeout_us
        )
        return waiter

    def submit_run(
        self,
        i: ReplicaId,
        run: bytes,
        waiter: submission.Waiter,
        *,
        count: int = 1,
        stream: int = 1,
        timeout_us: int = FOREVER_US,
    ) -> None:
        """The same for a run that holds `count` commands."""
        self.turn(i, Submit(waiter, stream, run, count, self.clock_us(i) + timeout_us))

    def cancel(self, i: ReplicaId, waiter: submission.Waiter) -> None:
        """The client goes away."""
        self.turn(i, Cancel(waiter))

    def deliver(self, flight: Flight, *, again: bool = False) -> None:
        """One message arrives (and stays under way for a second arrival, if `again`)."""
        if not again:
            self.flights.remove(flight)
        if self.sites[flight.target].up:
            self.turn(flight.target, Receive(peer=flight.source, message=flight.message))

    def pick(
        self, kind: type[Message] | None = None, source: ReplicaId | None = None, target: ReplicaId | None = None
    ) -> list[Flight]:
        """The messages under way that fit, oldest first."""
        return [
            flight
            for flight in self.flights
            if (kind is None or isinstance(flight.message, kind))
            and source in (None, flight.source)
            and target in (None, flight.target)
        ]

    def pass_on(
        self, kind: type[Message] | None = None, source: ReplicaId | None = None, target: ReplicaId | None = None
    ) -> int:
        """Deliver what fits and is under way now (not what comes of it); returns how many."""
        flights = self.pick(kind, source, target)
        for flight in flights:
            self.deliver(flight)
        return len(flights)

    def drop(
        self, kind: type[Message] | None = None, source: ReplicaId | None = None, target: ReplicaId | None = None
    ) -> int:
        """Lose what fits."""
        flights = self.pick(kind, source, target)
        for flight in flights:
            self.flights.remove(flight)
        return len(flights)

    def settle(self) -> None:
        """Deliver everything, and what comes of it, until nothing is under way."""
        for _ in range(_MESSAGES_MAX):
            if not self.flights:
                return
            self.deliver(self.flights[0])
        raise AssertionError("messages without end")

    def wait(self, us: int) -> None:
        """Let time pass; every site that is up takes the turns it asked for."""
        until_us = self.now_us + us
        while True:
            wakes = [
                (site.last.wake_us - self.ahead_us[i], i)
                for i, site in enumerate(self.sites)
                if site.up and site.last.wake_us is not None and i not in self.hold_turns
            ]
            wake_us, i = min(wakes, default=(until_us + 1, 0))
            if wake_us > until_us:
                break
            self.now_us = max(self.now_us, wake_us)
            self.turn(i)
        self.now_us = until_us

    def wake(self, i: ReplicaId, timer: Timer) -> None:
        """The clock of site `i` alone runs on to that timer of its protocol. Raises KeyError when it is not set."""
        if timer not in (name for _, name in self.sites[i].engine.timers()):
            raise KeyError(timer)
        self.take(i, timers=[timer])

    def heal(self, us: int = 5_000_000) -> None:
        """Let time pass in small steps with every message delivered: whatever can converge does."""
        for _ in range(us // self.retry_us):
            self.settle()
            self.wait(self.retry_us)
        self.settle()

    # -- crashes

    def crash(self, i: ReplicaId, keep: int = 0, *, lose: bool = True) -> None:
        """Power off: what was not synced is lost but for the first `keep` groups; nobody is told anything.

        What is under way to the site is lost too, or may still reach its next life when not `lose`.
        """
        site = self.sites[i]
        site.disk = site.disk.crash(keep)
        site.up = False
        self.inbox[i].clear()
        if lose:
            self.drop(target=i)

    def restart(self, i: ReplicaId, *, alone: bool = False) -> Site:
        """A new incarnation on what the disk kept; links to it come up, unless it is left `alone`."""
        old = self.sites[i]
        self.sites[i] = self._site(i, old.disk, old.incarnation + 1)
        for _ in self.sites[i].engine.replay():
            self.sites[i].replayed += 1
        self.turn(i)
        for peer in () if alone else range(self.n):
            if peer != i and self.sites[peer].up:
                self.turn(i, PeerUp(peer=peer))
                self.turn(peer, PeerUp(peer=i))
        return self.sites[i]

    def measure(self, i: ReplicaId, *rtts_us: int) -> None:
        """Site `i` measures these round trips to replicas 0, 1, …; its own is ignored."""
        self.turn(i, *(Rtt(peer=p, rtt_us=rtt_us) for p, rtt_us in enumerate(rtts_us) if p != i))

    # -- views

    def states(self) -> list[list[bytes]]:
        """The machine states of all sites."""
        return [list(site.machine.save()) for site in self.sites]

    def events(self, i: ReplicaId) -> list[str]:
        """The notes of site `i`, by name."""
        return [note.event for note in self.sites[i].notes]


# ------------------------------------------------------------------------------------------------------------ commands


def set_(key: str, value: str) -> Command:
    """SET key value."""
    return (Entry(Op.SET, 0, key.encode(), value.encode()),)


def get(key: str) -> Command:
    """GET key."""
    return (Entry(Op.GET, READ, key.encode(), b""),)


def append(key: str, value: str) -> Command:
    """APPEND key value."""
    return (Entry(Op.APPEND, 0, key.encode(), value.encode()),)


def mset(**pairs: str) -> Command:
    """MSET key value key value …"""
    return tuple(Entry(Op.MSET, 0, key.encode(), value.encode()) for key, value in pairs.items())
