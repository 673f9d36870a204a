"""The trio shell around the engine: sockets, disk, clock. No rule of any kind lives here.

One task drives the engine. Everything else, the links, the disk, the clients, puts what happened into its inbox and
wakes it; it drains the inbox into one `Engine.turn`, carries out what the turn says, and lets the others run before
the next: that is how batches form.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from epaxos import accel
from epaxos.command import Command
from epaxos.config import Config
from epaxos.engine import Engine, Input, Turn
from epaxos.errors import Rejected, StorageError, Unknown
from epaxos.identity import Owner
from epaxos.ids import ReplicaId
from epaxos.log import LogEntry
from epaxos.machines.interface import BatchMachine, StateMachine
from epaxos.machines.opaque import OpaqueMachine, opaque_command, opaque_query
from epaxos.net.frames import encode_frame
from epaxos.net.handshake import Hello, fingerprint
from epaxos.net.inbox import Inbox
from epaxos.net.link import LinkLimits, Links
from epaxos.net.signal import now_us
from epaxos.net.tcp import Network, TcpNetwork
from epaxos.observe.log import Log
from epaxos.observe.metrics import Metrics
from epaxos.observe.progress import AloudView, Progress
from epaxos.packing import barrier_run, encode_run
from epaxos.protocols.interface import Durable, Now, ProtocolConfig
from epaxos.protocols.registry import build
from epaxos.replica_session import Session, open_session
from epaxos.session import SessionId
from epaxos.storage.interface import Mounted, Volume
from epaxos.storage.volume import DirectoryVolume
from epaxos.submission import Cancel, Submit, Waiter

LOG_CHUNK: Final = 256
"""Entries of the log that are read at once."""
PEERS_WAIT_SHARE: Final = 0.25
"""Of the backlog at which the store fails: from here on links are not read until the disk has caught up."""
CLIENTS_WAIT_SHARE: Final = 0.5
"""The same for what clients hand in: they are told BUSY."""
REPLAY_SLICE_S: Final = 0.01
"""How long the replay keeps other tasks waiting."""


@asynccontextmanager
async def open_replica(
    config: Config | str | Path,
    name: str,
    machine: StateMachine | BatchMachine,
    *,
    data: str | Path | Volume,
    delays_us: Mapping[str, int] | None = None,
    log: Log | None = None,
    network: Network | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Replica]:
    """Run the replica `name` for as long as the block lasts, which is entered when it can serve.

    `config` is the cluster or the path of its file. The replica's log lives in the directory `data`, or on a volume of
    another kind, and `machine`, which is to be as new, is brought up to date from it first. `delays_us` emulates links
    of other lengths: peer -> what every frame to it is held back. `log` is stderr, and `network` TCP, by default; `rng`
    spreads out what would be tried again all at once, and is seeded by the system by default.
    When the block ends, whoever still waits is told what is known, what was acknowledged is on disk, and no task or
    thread is left.

    Raises TypeError for what is no machine, ConfigError for a name, peer or address that cannot be, StorageError when
    the directory cannot be used, and StorageError or MachineError out of the block when the replica had to stop.
    """
    _check_machine(machine)
    config = Config.of(config)
    me = config.id_of(name)
    delays = {config.id_of(peer): us for peer, us in (delays_us or {}).items()}
    volume = DirectoryVolume(Path(data)) if isinstance(data, str | Path) else data
    owner = Owner(
        cluster=config.cluster,
        replica=name,
        members=config.names,
        protocol=config.protocol,
        secret=fingerprint(config.secret).hex(),
    )
    with volume.open(owner, map_bytes=config.limits.map_bytes) as mounted:
        replica = Replica(
            config=config,
            name=name,
            machine=machine,
            mounted=mounted,
            network=network or TcpNetwork(config, me),
            delays_us=delays,
            log=log or Log(name, config.names),
            rng=rng or random.Random(),
        )
        async with replica.running():
            yield replica


class Replica:
    """One replica of the cluster, running. Made by `open_replica`."""

    def __init__(
        self,
        *,
        config: Config,
        name: str,
        machine: StateMachine | BatchMachine,
        mounted: Mounted,
        network: Network,
        delays_us: Mapping[ReplicaId, int],
        log: Log,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.config = config
        self.incarnation = mounted.incarnation
        self._opaque = isinstance(machine, StateMachine)
        self._store = mounted.store
        self._network = network
        self._log = log
        self._metrics = Metrics(config.secret, config.observe.keys)
        self._engine = _engine(config, name, machine, mounted, log, rng)
        limits = config.limits
        self._inbox = Inbox(
            max_messages=limits.inbox_messages,
            max_bytes=limits.link_queue_bytes,
            held_up=lambda: self._disk_owes(PEERS_WAIT_SHARE),
        )
        self._links = Links(
            hello=Hello(
                cluster=config.cluster,
                replica=config.id_of(name),
                name=name,
                disk=mounted.disk,
                incarnation=mounted.incarnation,
                n=config.n,
                protocol=config.protocol,
                secret=fingerprint(config.secret),
            ),
            names=config.names,
            limits=LinkLimits(
                frame_bytes=limits.frame_bytes,
                queue_bytes=limits.link_queue_bytes,
                handshake_us=limits.handshake_timeout_ms * 1_000,
                reconnect_max_us=limits.reconnect_max_ms * 1_000,
            ),
            inbox=self._inbox,
            log=log,
            dial=network.dial,
            acquaintances=mounted.acquaintances,
            jitter=rng,
            delays_us=delays_us,
        )
        self._streams = itertools.count(1)
        self._started_s = trio.current_time()
        self._closed = False
        self._delivered = 0
        """The highest cursor of the log that is durable."""
        self._news = trio.lowlevel.ParkingLot()
        """Whoever waits for the log to grow."""

    # ---------------------------------------------------------------------------------------------------- for clients

    @property
    def secret(self) -> bytes:
        """What the hash of keys is keyed with."""
        return self.config.secret

    def new_stream(self) -> int:
        """A number for a connection: conflicting commands of one stream take effect in order."""
        return next(self._streams)

    def new_session(self) -> SessionId:
        """A name for a session to open: no other replica gives it, nor this one again."""
        return self._engine.new_session()

    def now_us(self) -> int:
        """The monotonic clock that deadlines are counted on."""
        return now_us()

    def submit(self, waiter: Waiter, stream: int, run: bytes, count: int, deadline_us: int) -> None:
        """See `submission.Submit`. Returns at once; the waiter is called later, or now when the replica has closed."""
        if self._closed:
            waiter.fail(0, count, Rejected("closed", "the replica has shut down"))
        elif self._disk_owes(CLIENTS_WAIT_SHARE):
            waiter.fail(0, count, Rejected("busy", f"{self._store.backlog_bytes} bytes wait for the disk"))
        else:
            self._inbox.put(Submit(waiter, stream, run, count, deadline_us))

    def cancel(self, waiter: Waiter) -> None:
        """See `submission.Cancel`."""
        if not self._closed:
            self._inbox.put(Cancel(waiter))

    async def propose(self, command: bytes, *, reads: Iterable[bytes] = (), writes: Iterable[bytes] = ()) -> bytes:
        """Have `command` applied everywhere, in one order with what conflicts; what `StateMachine.apply` returned here.

        `reads` and `writes` are the keys that it touches; when none are named, it conflicts with everything. Raises
        Rejected when it certainly was not and will not be applied, Unknown when that is not known, which is also the
        outcome when the call is cancelled: nobody sends it again. Gives up at the deadline of the cancel scopes around
        it, and after `limits.request_timeout_ms`.
        """
        return await self.ask(opaque_command(command, reads=reads, writes=writes))

    async def read(self, query: bytes, *, reads: Iterable[bytes] = ()) -> bytes:
        """What `StateMachine.apply` returns for `query`, which changes nothing: linearizable. Else as `propose`."""
        return await self.ask(opaque_query(query, reads=reads))

    async def barrier(self) -> None:
        """Return when everything that was answered anywhere before this call has been executed here.

        A Barrier is ordered against every command and has no effect. Raises as `propose`.
        """
        await self.ask_run(barrier_run())

    def session(
        self, *, fifo: bool = False, resume: tuple[str, int] | None = None, close: bool = True
    ) -> AbstractAsyncContextManager[Session]:
        """A session, whose commands may be proposed again after an unknown outcome and take effect once.

        With `fifo` they take effect in the order of their numbers or not at all. `resume` goes on with a session that
        exists: its `id`, and the last number whose outcome is known or of no interest. Without `close` it stays open
        when the block ends. Raises Rejected and Unknown as `propose`.
        """
        return open_session(self, fifo=fifo, resume=resume, close=close)

    async def ask(self, command: Command) -> bytes:
        """Have an opaque command applied, as `propose` does."""
        if not self._opaque:
            raise TypeError("opaque commands are for a StateMachine, and this replica runs a machine of batches")
        return await self.ask_run(encode_run(self.secret, (command,)))

    async def ask_run(self, run: bytes) -> bytes:
        """Submit a run of one command, and wait for what comes of it."""
        waiter = _Proposal()
        timeout_s = trio.current_time() + self.config.limits.request_timeout_ms / 1e3
        deadline_s = max(min(trio.current_effective_deadline(), timeout_s), 0)
        self.submit(waiter, self.new_stream(), run, 1, math.ceil(deadline_s * 1e6))
        try:
            return await waiter.outcome()
        except trio.Cancelled:
            self.cancel(waiter)
            raise
        except (Rejected, Unknown):
            # When the engine and the caller's own cancel scope give up at the same moment, the scope has the word.
            await trio.lowlevel.checkpoint()
            raise

    def log(self, after: int = 0) -> AsyncIterator[LogEntry]:
        """The commands executed here behind cursor `after`, oldest first, once durable; ends when the replica does.

        It may be left at any entry; resume with that entry's cursor. Raises ValueError for what cannot be a cursor.
        """
        if not 0 <= after < 1 << 63:
            raise ValueError(f"a cursor is that of an entry, or 0 for all of them, not {after}")
        return _LogReader(self, after)

    async def _entries(self, after: int) -> list[LogEntry]:
        """The next entries behind `after`, as soon as there are any; none when the replica has ended."""
        while not self._closed:
            entries = self._engine.entries(after, LOG_CHUNK)
            if entries:
                return entries
            await self._news.park()
        return []

    # ------------------------------------------------------------------------------------------------- for operators

    def status(self) -> dict[str, Any]:
        """Counters and watermarks for people, JSON-able; times in microseconds, or as the name says."""
        engine = self._engine.status()
        disk = self._store.counters
        return {
            "name": self.name,
            "protocol": self.config.protocol,
            "incarnation": self.incarnation,
            "up_s": round(trio.current_time() - self._started_s, 1),
            **{key: engine[key] for key in ("executed", "behind", "in_flight", "pending", "sessions")},
            "peers": self._links.status(),
            **self._metrics.status(),
            "detail": engine["protocol"],
            "disk": {
                "syncs": disk.syncs,
                "records": disk.records,
                "bytes": disk.stored_bytes,
                "sync_us_max": disk.max_sync_us,
                "used_bytes": self._store.used_bytes,
                "max_bytes": self._store.max_bytes,
            },
            "compiled": accel.summary(),
        }

    def reset_stats(self) -> None:
        """Begin the latencies and the counts of commands anew."""
        self._metrics.reset()

    def prometheus(self) -> str:
        """`status`, and the latencies, in Prometheus's text format."""
        return self._metrics.prometheus(self.status())

    # ------------------------------------------------------------------------------------------------------- running

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run for as long as the block lasts, which is entered when the replica can serve."""
        await self._replay()
        self._turn([])  # the first lets the protocol read its log: nobody is to be told that it serves before
        async with _bare_nursery() as nursery:
            for listener in await self._network.listen():
                nursery.start_soon(self._accept, listener, nursery)
            nursery.start_soon(self._links.run)
            nursery.start_soon(self._watch_disk)
            nursery.start_soon(self._drive)
            self._log.event("serving", incarnation=self.incarnation, compiled=accel.summary())
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                self._shut()
        self._log.event("stopped")

    async def _replay(self) -> None:
        """Bring the machine up to date with the log."""
        progress = Progress(self._log, "replaying", "commands")
        rested_s = trio.current_time()
        for commands in self._engine.replay():
            progress.at(commands)
            if trio.current_time() - rested_s >= REPLAY_SLICE_S:
                await trio.lowlevel.checkpoint()
                rested_s = trio.current_time()

    async def _drive(self) -> None:
        """Turn after turn, with a rest in between in which the others run."""
        while True:
            wake_us = self._turn(self._inbox.take())
            with trio.move_on_at(math.inf if wake_us is None else wake_us / 1e6):
                await self._inbox.filled()

    def _turn(self, inputs: list[Input]) -> int | None:
        """One turn of the engine, and what it asks for; when to call again at the latest."""
        turn = self._engine.turn(Now(now_us(), time.time_ns() // 1_000), inputs)
        if turn.write is not None:
            with suppress(StorageError):  # it says so in `failure` too, and then `_watch_disk` raises it, once
                self._store.write(turn.write)
        for peers, message in turn.sends:
            self._links.send(peers, encode_frame(message))
        self._observe(turn)
        return turn.wake_us

    def _observe(self, turn: Turn) -> None:
        self._metrics.observe(turn)
        for note in turn.notes:
            self._log.note(note)
        if turn.delivered > self._delivered:
            self._delivered = turn.delivered
            self._news.unpark_all()

    async def _watch_disk(self) -> None:
        """Tell the engine what has become durable. Raises StorageError when nothing more will."""
        while True:
            mark = await self._store.moved()
            if self._store.failure is not None:
                raise self._store.failure
            self._inbox.put(Durable(mark=mark))

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream], nursery: trio.Nursery) -> None:
        await trio.serve_listeners(self._links.accept, [listener], handler_nursery=nursery)

    def _disk_owes(self, share: float) -> bool:
        """Is so much of the backlog at which the store would fail waiting for the disk?"""
        return self._store.backlog_bytes >= share * self._store.backlog_bytes_max

    def _shut(self) -> None:
        """Tell everybody who waits what is known of his commands."""
        self._closed = True
        for item in self._inbox.take():
            if isinstance(item, Submit):
                item.waiter.fail(0, item.count, Rejected("closed", "the replica is shutting down"))
        self._engine.shut()
        self._news.unpark_all()


def _check_machine(machine: object) -> None:
    """Raises TypeError for what is none."""
    if isinstance(machine, type):
        raise TypeError(f"machine is an instance, {machine.__name__}(), not the class")
    if not isinstance(machine, StateMachine | BatchMachine):
        raise TypeError(f"machine is a StateMachine, not {type(machine).__name__}")


def _engine(
    config: Config,
    name: str,
    machine: StateMachine | BatchMachine,
    mounted: Mounted,
    log: Log,
    rng: random.Random,
) -> Engine:
    me = config.id_of(name)
    limits = config.limits
    protocol, executor = build(
        config.protocol,
        ProtocolConfig(me=me, n=config.n, window=limits.window, retry_us=limits.retry_us, preferred=config.preferred),
        rng,
        AloudView(mounted.store, log),
    )
    return Engine(
        me=me,
        n=config.n,
        incarnation=mounted.incarnation,
        protocol=protocol,
        executor=executor,
        machine=OpaqueMachine(machine) if isinstance(machine, StateMachine) else machine,
        log=mounted.store,
        limits=limits.engine(),
    )


class _Proposal:
    """The `Waiter` of one command."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._reply = b""
        self._error: Rejected | Unknown | None = None

    def reply(self, first: int, count: int, data: bytes) -> None:
        """See `submission.Waiter`."""
        self._reply = data
        self._answered.set()

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """See `submission.Waiter`."""
        self._error = error
        self._answered.set()

    async def outcome(self) -> bytes:
        """The reply. Raises Rejected or Unknown when there is none."""
        await self._answered.wait()
        if self._error is not None:
            raise self._error
        return self._reply


class _LogReader:
    """An iterator rather than a generator: a loop over it may be left without anything to close."""

    def __init__(self, replica: Replica, after: int) -> None:
        self._replica = replica
        self._after = after
        self._ready: deque[LogEntry] = deque()

    def __aiter__(self) -> _LogReader:
        return self

    async def __anext__(self) -> LogEntry:
        await trio.lowlevel.checkpoint()
        if not self._ready:
            self._ready.extend(await self._replica._entries(self._after))
        if not self._ready:
            raise StopAsyncIteration
        entry = self._ready.popleft()
        self._after = entry.cursor
        return entry


@asynccontextmanager
async def _bare_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which a single error comes without a group around it."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
    else:
        return
    raise error
