"""One replica in frozen time: the protocol that ships, its disk, and what waits for the disk.

The duties of the engine (`protocols/interface.py`) are done here in their simplest form: saves reach the disk as one
prefix, and what leaves waits for the urgent saves before it. Execution and admission are left out; no rule of commit
and recovery looks at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from epaxos.command import Batch, Payload
from epaxos.ids import InstanceId, ReplicaId, Vector
from epaxos.messages import Commit, CommitQuery, Message, SlotRange
from epaxos.protocols.epaxos.deps import PyConflictIndex
from epaxos.protocols.epaxos.protocol import TICK, EPaxos
from epaxos.protocols.interface import (
    NEWEST,
    ClearTimer,
    Decide,
    Durable,
    Effect,
    Frontier,
    Note,
    Now,
    Propose,
    ProtocolConfig,
    Receive,
    Save,
    Send,
    SetTimer,
    Start,
    Timer,
    Wake,
)

NOW: Final = Now(0, 0)
WINDOW: Final = 64
OUTSIDE: Final = -1
"""The target of what no replica receives."""


class FastCommit(NamedTuple):
    """Not a message: the mark that this replica has decided `id` on the fast path."""

    id: InstanceId
    dep: Vector


class Decided(NamedTuple):
    """Not a message: the mark that this replica has told its executor of a decision."""

    id: InstanceId
    payload: Payload
    dep: Vector


Mark = FastCommit | Decided
What = Message | FastCommit | Decided
"""What a replica says, or leaves as a mark of itself."""
Said = tuple[ReplicaId, What]
"""(target, what)"""


class Submit(NamedTuple):
    """A client's batch."""

    batch: Batch


class Deliver(NamedTuple):
    """A message from `source` arrives."""

    source: ReplicaId
    message: Message


class Fire(NamedTuple):
    """A timer that is set comes due."""

    timer: Timer


class Recover(NamedTuple):
    """Some timing makes this replica recover the id now."""

    id: InstanceId


class Resend(NamedTuple):
    """This replica sends again what was not answered: no news where nothing is ever lost."""


class Sync(NamedTuple):
    """The oldest save that waits reaches the disk."""


class Crash(NamedTuple):
    """The power goes, `keep` of the saves that wait having reached the disk; and comes back."""

    keep: int


Event = Submit | Deliver | Fire | Recover | Resend | Sync | Crash


class Move(NamedTuple):
    """One event at one replica."""

    replica: ReplicaId
    event: Event


class _NoChance:
    """Jitter is a choice of the explorer's, so nobody may draw."""

    def random(self) -> float:
        raise AssertionError("a draw in frozen time")

    def randrange(self, start: int, stop: int, /) -> int:
        raise AssertionError("a draw in frozen time")


class _Records:
    """A `LogView` of the durable records."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, self.records[key]) for key in sorted(self.records) if first <= key < last])


class Site:
    """One replica. `take` changes it; `copy` first to keep the one before."""

    __slots__ = (
        "me",
        "n",
        "slow_disk",
        "mortal",
        "asked",
        "log",
        "protocol",
        "saves",
        "held",
        "urgent",
        "durable",
        "timers",
    )

    def __init__(self, me: ReplicaId, n: int, *, slow_disk: bool, mortal: bool, asked: bool) -> None:
        self.me = me
        self.n = n
        self.slow_disk = slow_disk
        self.mortal = mortal
        """May it still crash? If not, nobody will read its disk."""
        self.asked = asked
        """Is a CommitQuery of every peer for every id always under way?"""
        self.log = _Records({})
        self._begin()

    def _begin(self) -> list[Said]:
        config = ProtocolConfig(me=self.me, n=self.n, window=WINDOW, retry_us=1)
        self.protocol = EPaxos(config, _NoChance(), self.log)
        self.protocol.state.index = PyConflictIndex(self.n)  # the twin that is small when it is nearly empty
        self.saves: tuple[Save, ...] = ()
        """Not on disk yet, oldest first."""
        self.held: tuple[tuple[int, ReplicaId, What], ...] = ()
        """(mark it waits for, target, what)"""
        self.urgent = 0
        """Mark of the newest urgent save."""
        self.durable = 0
        self.timers: frozenset[Timer] = frozenset()
        nothing = Frontier((0,) * self.n, frozenset())
        return self._carry_out(self.protocol.step(NOW, Start(incarnation=1, executed=nothing)))

    def copy(self) -> Site:
        """The same replica, to go its own way."""
        twin: Site = Site.__new__(Site)
        for name in Site.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.log = _Records(self.log.records.copy())
        twin.protocol = self.protocol.copy(twin.log)
        return twin

    def digest(self) -> bytes:
        """A hash that is equal for replicas that answer everything alike."""
        rest: list[object] = [self.me, sorted(map(repr, self.timers))]
        if self.slow_disk or self.mortal:
            rest.append([(save.mark - self.durable, save.urgent) for save in self.saves if self.slow_disk])
            rest.append([(mark - self.durable, target, what) for mark, target, what in self.held])
        if self.mortal:
            rest.append([(save.puts, save.drops, save.urgent) for save in self.saves])
            rest.append(sorted(self.log.records.items()))
        return hashlib.blake2b(self.protocol.digest() + repr(rest).encode(), digest_size=16).digest()

    # -- events

    def take(self, event: Event) -> list[Said]:
        """One event, and what leaves because of it."""
        match event:
            case Submit(batch):
                effects = self.protocol.step(NOW, Propose(batch=batch, deadline_us=0))
            case Deliver(source, message):
                effects = self.protocol.step(NOW, Receive(peer=source, message=message))
            case Fire(timer):
                self.timers -= {timer}
                effects = self.protocol.step(NOW, Wake(timer=timer))
            case Recover(id_):
                effects = self.protocol.recover(NOW, id_)
            case Resend():
                effects = self.protocol.resend(NOW)
            case Sync():
                return self._sync(self.saves[0].mark)
            case Crash(keep):
                self._store(self.saves[:keep])
                return self._begin()
        return self._carry_out(effects)

    def _carry_out(self, effects: list[Effect]) -> list[Said]:
        said: list[Said] = []
        for effect in effects:
            said += self._effect(effect)
        if not self.slow_disk and self.urgent > self.durable:
            said += self._sync(self.urgent)
        return said

    def _effect(self, effect: Effect) -> list[Said]:
        match effect:
            case Save():
                self.saves = *self.saves, effect
                if effect.urgent:
                    self.urgent = effect.mark
            case Send(peers=peers, message=message, after=after):
                short = isinstance(message, Commit) and message.payload is None
                if not (short and self.asked):  # the whole one goes as well
                    return self._hold(after, [(peer, message) for peer in peers])
            case Decide(id=id_, payload=payload, order=tuple() as dep, after=after):
                mark = self._hold(after, [(OUTSIDE, Decided(id_, payload, dep))])
                return mark + self._tell_everybody(id_) if self.asked else mark
            case Note(event="fast_commit", id=InstanceId() as id_):
                instance = self.protocol.state.live[id_]
                return self._hold(NEWEST, [(OUTSIDE, FastCommit(id_, instance.dep))])
            case SetTimer(timer=timer):
                if timer != TICK:
                    self.timers |= {timer}
            case ClearTimer(timer=timer):
                self.timers -= {timer}
            case _:
                pass
        return []

    def _tell_everybody(self, id_: InstanceId) -> list[Said]:
        """Let the queries for this id arrive: it has just been decided."""
        query = CommitQuery(epoch=id_.epoch, ranges=(SlotRange(id_.lane, id_.slot, id_.slot),))
        peers = [peer for peer in range(self.n) if peer != self.me]
        answers = [self.protocol.step(NOW, Receive(peer=peer, message=query)) for peer in peers]
        return [one for effects in answers for effect in effects for one in self._effect(effect)]

    def _hold(self, after: int, what: list[Said]) -> list[Said]:
        mark = self.urgent if after == NEWEST else after
        if mark <= self.durable:
            return what
        self.held = *self.held, *((mark, *one) for one in what)
        return []

    # -- the disk

    def _store(self, saves: tuple[Save, ...]) -> None:
        for save in saves:
            self.log.records.update(save.puts)
            for key in save.drops:
                self.log.records.pop(key, None)

    def _sync(self, upto: int) -> list[Said]:
        done = tuple(save for save in self.saves if save.mark <= upto)
        self._store(done)
        self.saves = self.saves[len(done) :]
        self.durable = upto
        said: list[Said] = [(target, what) for mark, target, what in self.held if mark <= upto]
        self.held = tuple(one for one in self.held if one[0] > upto)
        return said + self._carry_out(self.protocol.step(NOW, Durable(mark=upto)))

    # -- timers

    def drop_idle_timers(self) -> None:
        """A timer that changes nothing now never will: what it hurries is over, and does not begin again."""
        if self.timers:
            before = self.protocol.digest()
            self.timers = frozenset(timer for timer in self.timers if self._after(timer) != before)

    def _after(self, timer: Timer) -> bytes:
        twin = self.protocol.copy(self.log)
        twin.step(NOW, Wake(timer=timer))
        return twin.digest()
