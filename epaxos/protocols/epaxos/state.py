"""What a replica knows of each instance, how that stands in the log, and the helpers every rule uses.

`Instance` follows protocol.md 1.3 field for field. The rules are in the modules beside this one, one for each role;
they share one `State`, which also collects the effects of the current step.
"""

from __future__ import annotations

import enum
import heapq
import struct
from collections import deque
from typing import Any, Final

import cbor2

from epaxos.command import NOP, Batch, Payload
from epaxos.errors import StorageError
from epaxos.ids import Ballot, InstanceId, ReplicaId, Vector, zero
from epaxos.messages import Commit, Message
from epaxos.protocols.epaxos.deps import ConflictIndex
from epaxos.protocols.epaxos.marks import Watermarks
from epaxos.protocols.interface import (
    NEWEST,
    NOTHING,
    Decide,
    Effect,
    Frontier,
    Learn,
    LogView,
    Note,
    Now,
    ProtocolConfig,
    Random,
    Save,
    Send,
)
from epaxos.quorums import quorums

EPOCH: Final = 0
"""The only epoch until membership can change."""

RESEND_DOUBLINGS_MAX: Final = 3
"""Doublings of the time between two sendings of one message: a lost one is missed for eight round trips at most."""

RTT_SAMPLES: Final = 8
"""The round trip of a link is the shortest of so many measurements: the others waited behind something."""

RECORD_VERSION: Final = 1


class Phase(enum.IntEnum):
    """How far an instance is, at this replica. COM is terminal."""

    INIT = 0
    PRE = 1
    ACC = 2
    COM = 3


class Own(enum.Enum):
    """The local disk is one more peer: these are its answers."""

    ACK = "PreAcceptOK"
    VOTE = "AcceptOK"
    JOIN = "RecoverOK"
    VALIDATION = "ValidateOK"


class Instance:
    """One instance at one replica. `batch` is the one payload this id can have, once it is known."""

    __slots__ = (
        "id", "phase", "bal", "abal", "nop", "dep", "batch", "init_dep", "ack_dep",
        "mark", "stored_batch", "learned", "executed", "votes", "lead", "recovery",
    )  # fmt: skip

    def __init__(self, id_: InstanceId) -> None:
        self.id = id_
        self.phase = Phase.INIT
        self.bal: Ballot = 0
        """Highest ballot joined."""
        self.abal: Ballot = 0
        """Ballot of the last Accept voted for. Never touched by joining a ballot, PreAccept or Validate."""
        self.nop = False
        """The vote (ACC) or the decision (COM) is NOP; otherwise it is `batch`."""
        self.dep: Vector = ()
        """Dependencies of the latest vote or of the decision; () before the first."""
        self.batch: Batch | None = None
        self.init_dep: Vector | None = None
        """What the coordinator put into PreAccept; write-once. Set = this replica has registered the id."""
        self.ack_dep: Vector | None = None
        """What this replica answered to PreAccept; write-once, apart from `dep`."""
        # Volatile from here on.
        self.mark = 0
        """The save that holds the newest state."""
        self.stored_batch = False
        self.learned = False
        self.executed = False
        self.votes: dict[tuple[Ballot, bool, Vector], set[ReplicaId]] = {}
        self.lead: Any = None
        """`lead.Leading` while this incarnation coordinates the instance."""
        self.recovery: Any = None
        """`recover.Recovery` while this replica leads a ballot > 0 of the instance."""

    @property
    def payload(self) -> Payload | None:
        """The payload voted for or decided."""
        return NOP if self.nop else self.batch

    @property
    def led(self) -> bool:
        """Does this replica lead it, at any ballot? Then it sends again until it is answered."""
        return self.recovery is not None or (self.lead is not None and self.lead.lead0)

    def durable_state(self) -> tuple[object, ...]:
        """What a record holds, in record order."""
        return int(self.phase), self.bal, self.abal, self.nop, self.dep, self.init_dep, self.ack_dep


# -------------------------------------------------------------------------------------------------------- records
# Key: one letter, then epoch u32, lane u16, slot u64, big-endian, so that a lane's slots are one range.
#   i…  the instance: CBOR [version, phase, bal, abal, nop, dep, initDep, ackDep, kind, oq, processAt, classTerms]
#   c…  its batch, as received; written once


_KEY: Final = struct.Struct(">cIHQ")
_PHASES: Final = tuple(Phase)


def record_key(letter: bytes, id_: InstanceId) -> bytes:
    """The key of a record of `id_`; letters are those of the table above."""
    return _KEY.pack(letter, id_.epoch, id_.lane, id_.slot)


def record_id(key: bytes) -> InstanceId:
    """Of what the record under this key is."""
    _, epoch, lane, slot = _KEY.unpack(key)
    return InstanceId(epoch, slot, lane)


def encode_record(instance: Instance) -> bytes:
    """The instance record. The last four fields belong to later commit modes and hold their neutral values."""
    return cbor2.dumps([RECORD_VERSION, *instance.durable_state(), 0, 0, 0, []])


def decode_record(key: bytes, value: bytes, n: int) -> Instance:
    """The instance a record holds, without its batch. Raises StorageError for a record of another version."""
    id_ = record_id(key)
    fields = cbor2.loads(value)
    if fields[0] != RECORD_VERSION or fields[8:] != [0, 0, 0, []]:
        raise StorageError(f"instance {id_}: record version {fields[0]}; this release reads {RECORD_VERSION}")
    instance = Instance(id_)
    _, phase, instance.bal, instance.abal, instance.nop, dep, init_dep, ack_dep, *_ = fields
    instance.phase = _PHASES[phase]
    instance.dep = tuple(dep)
    instance.init_dep = None if init_dep is None else tuple(init_dep)
    instance.ack_dep = None if ack_dep is None else tuple(ack_dep)
    for vector in (instance.dep, instance.init_dep, instance.ack_dep):
        if vector and len(vector) != n:
            raise StorageError(f"instance {id_}: a vector of {len(vector)} slots in a cluster of {n}")
    return instance


# ---------------------------------------------------------------------------------------------------------- state


class State:
    """Everything one replica knows, and the effects of the step in progress."""

    def __init__(self, config: ProtocolConfig, rng: Random, log: LogView) -> None:
        self.me = config.me
        self.n = config.n
        self.window = config.window
        self.retry_us = config.retry_us
        self.eager = config.eager
        self.quorums = quorums(config.n)
        self.others = tuple(p for p in range(config.n) if p != config.me)
        self.rng = rng
        self.log = log
        self.zero = zero(config.n)
        self.index = ConflictIndex(config.n)
        self.unregistered = ConflictIndex(config.n)
        """Commands whose decision came before anything else of them: no answer to PreAccept names them, and Validate
        finds them here. Empty but after an outage."""
        self.live: dict[InstanceId, Instance] = {}
        """Instances not yet executed here, or executed and not yet durable as such. The others are in the log."""
        self.decided = Watermarks(config.n)
        self.executed = Watermarks(config.n)
        self.highest = [0] * config.n
        """Per lane, the highest slot heard of."""
        self.rtt_us = [0] * config.n
        """The shortest of the last measurements to each peer; 0 before the first."""
        self.rtts_us = [deque[int](maxlen=RTT_SAMPLES) for _ in range(config.n)]
        self.suspected: set[ReplicaId] = set()
        """Replicas whose link is down."""
        self.gone: dict[ReplicaId, int] = {}
        """Those of them that have not been heard of since, taken for dead: since when."""
        self.facts: dict[InstanceId, tuple[int, Vector]] = {}
        """Waiting facts about undecided ids: (k, dep) of the strongest (1.3, I20)."""
        self.mark = 0
        self.durable = 0
        self.now = Now(0, 0)
        self.effects: list[Effect] = []
        self.due: deque[tuple[int, InstanceId, Own, Ballot]] = deque()
        """(mark, id, what, ballot): what this replica said to itself, which counts once the mark is durable."""
        self.evictable: list[tuple[int, InstanceId]] = []
        """(mark, id) of executed instances that leave memory once the mark is durable; a heap."""

    # -- instances

    def get(self, id_: InstanceId) -> Instance | None:
        """What is known of `id_`: from memory, or from the log once it was executed."""
        instance = self.live.get(id_)
        if instance is None and id_ in self.executed:
            instance = self.load(id_)
            if instance is None:
                raise StorageError(f"instance {id_} was executed, and its record is not in the log")
        return instance

    def touch(self, id_: InstanceId) -> Instance:
        """The instance, made up as INIT when nothing is known of it."""
        instance = self.get(id_)
        if instance is None:
            instance = self.live[id_] = Instance(id_)
            if id_.slot > self.highest[id_.lane]:
                self.highest[id_.lane] = id_.slot
        return instance

    def load(self, id_: InstanceId) -> Instance | None:
        """The instance as the log holds it."""
        key = record_key(b"i", id_)
        value = self.log.get(key)
        if value is None:
            return None
        instance = decode_record(key, value, self.n)
        self._load_batch(instance)
        return instance

    def _load_batch(self, instance: Instance) -> None:
        data = self.log.get(record_key(b"c", instance.id))
        if data is not None:
            instance.batch = Batch(data)
            instance.stored_batch = True
        elif instance.init_dep is not None or (instance.phase >= Phase.ACC and not instance.nop):
            raise StorageError(f"instance {instance.id}: its batch is not in the log")

    def restore(self, executed: Frontier) -> list[Instance]:
        """Read the log back: rebuild the index and the watermarks; return what is not executed, in log order."""
        self.executed.restore(executed)
        rest = []
        for key, value in self.log.scan(b"i", b"j"):
            instance = decode_record(key, value, self.n)
            id_ = instance.id
            self._load_batch(instance)
            self.highest[id_.lane] = max(self.highest[id_.lane], id_.slot)
            if instance.init_dep is not None and instance.batch is not None:
                self.index.register(id_, instance.batch)
            if instance.phase is Phase.COM:
                self._note_unregistered(instance)
                self.decided.add(id_)
            if id_ not in self.executed:
                self.live[id_] = instance
                rest.append(instance)
        return rest

    def ran(self, ids: tuple[InstanceId, ...]) -> None:
        """The executor reports: these ran. They leave memory once their decision is in the log."""
        for id_ in ids:
            self.executed.add(id_)
            instance = self.live[id_]
            instance.executed = True
            if instance.mark <= self.durable:
                del self.live[id_]
            else:
                heapq.heappush(self.evictable, (instance.mark, id_))

    def evict(self) -> None:
        """Forget executed instances whose decision has become durable."""
        while self.evictable and self.evictable[0][0] <= self.durable:
            del self.live[heapq.heappop(self.evictable)[1]]

    # -- effects

    def save(self, instance: Instance, *, urgent: bool = True) -> int:
        """Log the instance as it is now; returns the mark."""
        self.mark += 1
        puts = [(record_key(b"i", instance.id), encode_record(instance))]
        if instance.batch is not None and not instance.stored_batch:
            puts.append((record_key(b"c", instance.id), instance.batch.data))
            instance.stored_batch = True
        instance.mark = self.mark
        self.effects.append(Save(puts=tuple(puts), mark=self.mark, urgent=urgent))
        return self.mark

    def send(self, peers: tuple[ReplicaId, ...], message: Message, after: int = NEWEST) -> None:
        """Send to peers; an empty tuple is no message."""
        if peers:
            self.effects.append(Send(peers=peers, message=message, after=after))

    def may_send_again(self, instance: Instance) -> bool:
        """Has the first sending left? While the record it rests on is under way to the disk, the gate still holds it,
        and copies would only gather behind it. A copy rests on that record and on nothing newer: `after=instance.mark`.
        """
        return instance.mark <= self.durable

    def note(self, event: str, instance: Instance, detail: str = "") -> None:
        """For the trace and the counters."""
        self.effects.append(Note(event=event, id=instance.id, detail=detail, batch=instance.batch))

    def know(self, instance: Instance, batch: Batch) -> None:
        """The payload of an id became known: an id is bound to one payload for ever, so the executor may know too."""
        if instance.batch is None:
            instance.batch = batch
        if not instance.learned:
            instance.learned = True
            self.effects.append(Learn(id=instance.id, batch=batch))

    def join(self, instance: Instance, ballot: Ballot) -> None:
        """Join `ballot`. Any ballot > 0 ends the own ballot-0 role and the own recoveries at smaller ballots (1.5)."""
        instance.bal = ballot
        if ballot and instance.lead is not None:
            instance.lead.lead0 = False
        if instance.recovery is not None and instance.recovery.ballot < ballot:
            instance.recovery = None

    def commit(self, instance: Instance, payload: Payload, dep: Vector, *, fast: bool = False) -> None:
        """The decision of an instance is known. Only the coordinator of a fast decision must have it durable first.

        The bold row of protocol.md 1.6: recovery reads "the coordinator answered and had not committed" as "there was
        no fast commit". Every other decision can be learned again from durable votes, so nothing waits for it.
        """
        instance.phase = Phase.COM
        instance.nop = payload is NOP
        instance.dep = dep
        if isinstance(payload, Batch):
            instance.batch = payload
        self._note_unregistered(instance)
        instance.votes.clear()
        instance.recovery = None
        self.facts.pop(instance.id, None)
        self.decided.add(instance.id)
        self.save(instance, urgent=fast)
        self.effects.append(Decide(id=instance.id, payload=payload, order=dep, after=NEWEST if fast else NOTHING))

    def _note_unregistered(self, instance: Instance) -> None:
        if instance.init_dep is None and instance.batch is not None and not instance.nop:
            self.unregistered.register(instance.id, instance.batch)

    def tell(self, peers: tuple[ReplicaId, ...], instance: Instance, *, short: bool = False) -> None:
        """Send the decision; `short` to peers that are known to hold the payload."""
        payload = None if short and not instance.nop else instance.payload
        self.send(peers, Commit(id=instance.id, payload=payload, dep=instance.dep))

    # -- who is there, and what is to be done

    def rests(self) -> bool:
        """Is everything that was ever heard of decided, executed and durable here?"""
        return not self.live and self.decided.low == self.highest

    def link_down(self, peer: ReplicaId) -> None:
        """The link to `peer` broke."""
        self.suspected.add(peer)
        self.gone.setdefault(peer, self.now.mono_us)

    def link_up(self, peer: ReplicaId) -> None:
        """There is a link to `peer`."""
        self.suspected.discard(peer)
        self.gone.pop(peer, None)

    def heard_of(self, peer: ReplicaId) -> None:
        """A message came from `peer`. Beyond what may have been its last words, it is a sign of life: there are links
        that are down in one direction only, and who is alive shall finish his own."""
        since_us = self.gone.get(peer)
        if since_us is not None and self.now.mono_us - since_us > max(self.retry_us, self.rtt_us[peer]):
            del self.gone[peer]

    # -- time

    def measured(self, peer: ReplicaId, rtt_us: int) -> None:
        """A ping was answered after so long. What waited behind a queue tells little of the link, and would slow
        everything that waits for the longest round trip."""
        self.rtts_us[peer].append(rtt_us)
        self.rtt_us[peer] = min(self.rtts_us[peer])

    def round_trip_us(self) -> int:
        """After how long an answer is overdue: beyond any measured round trip, and never below `retry_us`."""
        return max(self.retry_us, 2 * max(self.rtt_us))

    def is_overdue(self, sent_us: int, resent: int) -> bool:
        """Is it time to send something again? Ever later: the round trip may be longer than it was ever measured, and
        copies that gather on a slow link make it slower."""
        return self.now.mono_us - sent_us >= self.round_trip_us() << min(resent, RESEND_DOUBLINGS_MAX)
