"""One simulated replica: a whole engine with its disk, its clocks and its inbox, through many lives.

It does for the engine what the shell does in production, and nothing else: it collects inputs, calls `turn` when
there are some or when the engine asked for it, hands the writes to the disk, the messages to the network.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from epaxos.engine import Engine, Input, Turn
from epaxos.errors import StorageError
from epaxos.ids import ReplicaId
from epaxos.protocols.interface import Durable, Now, PeerDown, ProtocolConfig
from epaxos.storage.memory import MemoryDisk
from epaxos.testing.forks import between, chance
from epaxos.testing.record import Life
from epaxos.testing.watched import WatchedExecutor, WatchedMachine, WatchedProtocol, witnessed

if TYPE_CHECKING:
    from epaxos.storage.interface import WriteGroup
    from epaxos.testing.stage import Stage

_MILLION: Final = 1_000_000
_CONSUMES: Final = 0.01
"""How often the consumer of the log looks, as a share of the turns after which it could."""
_ENTRIES_MAX: Final = 7
"""A consumer of the log reads so many entries at a time; small, so that it stops inside of batches."""


class Node:
    """Replica `me` of the world. Only an `up` node has an engine."""

    engine: Engine
    protocol: WatchedProtocol
    executor: WatchedExecutor
    machine: WatchedMachine

    def __init__(self, world: Stage, me: ReplicaId) -> None:
        self.me = me
        self.up = False
        self.life = Life(me, 0)
        self.disk = MemoryDisk()
        self.linked: dict[ReplicaId, Life] = {}
        """The peers that this replica has links to, and in which life it called them; to others it can send nothing."""
        self.notes: Counter[str] = Counter()
        self.turns = 0
        self.steps = 0
        """Events that the protocol took in earlier lives."""
        self.consumed = 0
        """Entries of the log that the consumer of this replica has read, in all lives."""
        self._cursor = 0
        self._world = world
        self._swarm = world.swarm
        self._turn_us = world.swarm.turn_us
        self._inputs_max = world.swarm.inputs_max
        self._disk_rng = world.forks["disk"]
        self._clock_rng = world.forks["clock"]
        self._inbox: deque[Input] = deque()
        self._turn_at: int | None = None
        self._calls: set[int] = set()
        """When the world will call `_turn`; times that were superseded may come true again."""
        self._paused_until = 0
        self._syncing = False
        self.lag_us = 0
        """What each sync takes in addition."""
        self._room_after_us = 0
        self._rate_ppm = world.swarm.clock_ppm[me]
        self._mono_offset_us = 0
        self._wall_offset_us = 0

    # -- clocks

    def mono_us(self, now_us: int) -> int:
        """The monotonic clock of this life at a moment of simulated time."""
        return self._mono_offset_us + now_us + now_us * self._rate_ppm // _MILLION

    def _when(self, mono_us: int) -> int:
        """The first moment of simulated time at which the clock shows at least `mono_us`."""
        if not self._rate_ppm:
            return mono_us - self._mono_offset_us
        at = (mono_us - self._mono_offset_us) * _MILLION // (_MILLION + self._rate_ppm)
        while self.mono_us(at) < mono_us:
            at += 1
        return at

    def jump(self, by_us: int) -> None:
        """Move the wall clock."""
        self._wall_offset_us += by_us

    # -- lives

    def start(self) -> None:
        """Begin a life on what the disk holds."""
        world = self._world
        self.life = life = Life(self.me, self.life.number + 1)
        # The monotonic clock of a machine that was switched on again has nothing to do with the old one.
        self._mono_offset_us = between(self._clock_rng, 0, 10**9)
        swarm = self._swarm
        config = ProtocolConfig(
            me=self.me,
            n=world.n,
            window=swarm.limits.window,
            retry_us=swarm.retry_us,
            preferred=swarm.preferred,
            eager=swarm.eager,
        )
        protocol, executor = world.build(config, world.forks[f"core.{self.me}"], self.disk)
        self.protocol = WatchedProtocol(protocol, world.received)
        self.executor, self.machine = witnessed(
            life, executor, world.make_machine(), record=world.record, watch=world.watch, decided=world.decided
        )
        self.engine = Engine(
            me=self.me,
            n=world.n,
            incarnation=life.number,
            protocol=self.protocol,
            executor=self.executor,
            machine=self.machine,
            log=self.disk,
            limits=swarm.limits,
        )
        for _ in self.engine.replay():
            pass
        self.machine.replaying = False
        self.up = True
        if world.tape is not None:
            world.tape.began(self, self.mono_us(world.now_us))
        self._schedule(world.now_us)

    def crash(self, *, forgets: bool) -> None:
        """The power goes, and what the disk had not been told to keep may go with it, or does for certain."""
        unsynced = len(self.disk.unsynced)
        keep = 0 if forgets else between(self._disk_rng, 0, unsynced) if self._world.loses_writes else unsynced
        self.disk = self.disk.crash(keep)
        self.up = False
        self._syncing = False
        self._turn_at = None
        self._calls.clear()
        self._paused_until = 0
        self._inbox.clear()
        self.linked.clear()
        self.steps += self.protocol.steps
        self._world.trace.line(f"{self._world.now_us} {self.life} dies, {keep} of {unsynced}")
        if self._world.tape is not None:
            self._world.tape.died(self, keep)

    def pause(self, until_us: int) -> None:
        """Take no turn before then."""
        self._paused_until = max(self._paused_until, until_us)

    def resume(self) -> None:
        """End every pause."""
        self._paused_until = 0
        if self.up:
            self._schedule(self._world.now_us)

    # -- turns

    def put(self, item: Input) -> None:
        """Something arrives, at a replica that is up."""
        assert self.up, f"{type(item).__name__} arrives at {self.life}, which is dead"
        if isinstance(item, PeerDown):
            self.linked.pop(item.peer, None)
        if self._world.tape is not None:
            self._world.tape.arrived(self, item)
        self._inbox.append(item)
        now_us = self._world.now_us
        if self._turn_at is None or self._turn_at > now_us + self._turn_us:
            self._schedule(now_us + between(self._clock_rng, 0, self._turn_us))

    def _schedule(self, at_us: int) -> None:
        at_us = max(at_us, self._paused_until)
        if self._turn_at is None or at_us < self._turn_at:
            self._turn_at = at_us
            if at_us not in self._calls:
                self._calls.add(at_us)
                self._world.at(at_us, self._turn, self.life, at_us)

    def _turn(self, life: Life, at_us: int) -> None:
        if life is not self.life or not self.up:
            return
        self._calls.discard(at_us)
        if at_us != self._turn_at:
            return
        self._turn_at = None
        if at_us < self._paused_until:
            self._schedule(self._paused_until)
            return
        inbox = self._inbox
        if len(inbox) <= self._inputs_max:
            inputs = list(inbox)
            inbox.clear()
        else:
            inputs = [inbox.popleft() for _ in range(self._inputs_max)]
        if self._world.trace.verbose:
            self._world.trace.detail(f"{at_us} {self.me} takes {len(inputs)}")
        now = Now(self.mono_us(at_us), at_us + self._wall_offset_us)
        if self._world.tape is not None:
            self._world.tape.took(self, now.mono_us, len(inputs))
        turn = self.engine.turn(now, inputs)
        self.turns += 1
        self._carry_out(turn)
        if not self.up:
            return
        if inbox:
            self._schedule(at_us + 1)
        elif turn.wake_us is not None:
            self._schedule(max(at_us + 1, self._when(turn.wake_us)))

    def _carry_out(self, turn: Turn) -> None:
        for note in turn.notes:
            self.notes[note.event] += 1
            self._world.noted(self, note.event)
            if self._world.trace.verbose:
                self._world.trace.detail(f"{self.life} notes {note.event} {note.id} {note.detail}")
        for peers, message in turn.sends:
            self._world.send(self, peers, message)
        if turn.write is not None:
            self._write(turn.write)
        if self.up and turn.delivered > self._cursor and chance(self._clock_rng, _CONSUMES):
            self.consume(_ENTRIES_MAX)

    def consume(self, limit: int) -> None:
        """The consumer of the log reads on from where it was."""
        for entry in self.engine.entries(self._cursor, limit):
            for hook in self._world.watch.delivered:
                hook(self.life, entry.cursor, (entry.op, entry.keys, entry.payload))
            self._cursor = entry.cursor
            self.consumed += 1

    def state(self) -> tuple[bytes, ...]:
        """All that is replicated: the session table and the machine."""
        return (self.engine.applier.sessions.save(), *self.machine.save())

    # -- the disk

    def fill_disk(self, lasts_us: int) -> None:
        """The disk takes no more; when the replica has died of it, there is room after that time."""
        if self.up:
            self._room_after_us = lasts_us
            self.disk.fail("no space left")

    def _write(self, group: WriteGroup) -> None:
        try:
            self.disk.write(group)
        except StorageError:
            self._world.kill(self, self._room_after_us)
            return
        if not self._syncing:
            self._sync()

    def _sync(self) -> None:
        self._syncing = True
        rng = self._disk_rng
        lasts = self.lag_us + between(rng, 20, max(20, self._world.sync_us))
        if chance(rng, self._world.stuck):
            lasts += between(rng, 20_000, 400_000)
        self._world.at(self._world.now_us + lasts, self._synced, self.life, self.disk.unsynced[-1])

    def _synced(self, life: Life, upto: int) -> None:
        if life != self.life or not self.up:
            return
        self._syncing = False
        self.disk.sync(upto)
        self.put(Durable(mark=self.disk.durable))
        if self.disk.unsynced:
            self._sync()
