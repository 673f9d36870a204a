"""The one interface between a replication protocol and everything else. Read this first.

A protocol is a pure function of (state, event, now): it receives `Event`s through `Protocol.step` and answers with
`Effect`s, which are values. It never waits, reads a clock, touches a file or draws randomness it was not handed. The
engine (`epaxos/engine.py`) carries the effects out and owns everything that is the same for every protocol: batching,
the durability gate, execution, the state machine, replies, timers.

**Duties of the engine** (what a protocol may rely on)

1. Effects are carried out in the order of the list; `Save`s reach the disk in that order, as one prefix.
2. A `Send` or `Decide` leaves only when every *urgent* `Save` emitted before it is durable, unless its `after`
   names an earlier mark. So the safe thing is the default, and any exception is visible in the protocol's source.
3. `Durable(mark)` arrives once everything saved up to `mark` is durable. The local disk is one more peer: a
   protocol counts its own vote when `Durable` says so, not when it emits the `Save`.
4. Messages may be lost, duplicated, delayed and reordered; `PeerUp`/`PeerDown` are hints, never facts.
5. `Executed` lists ids in the order they ran here, each exactly once in the life of the data directory.

**Duties of a protocol**

1. `Start` is the first event. What must survive a restart is what the protocol reads back through its `LogView`.
2. A record that a `Decide` rests on is saved before the `Decide` in the effect order.
3. An id is decided at most once per incarnation, and with the same payload and order everywhere and for ever.
4. Every batch proposed here is answered: by a `Decide` that carries it, or by `Settle`.
5. Whatever is sent and matters is sent again until answered: links lose.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterator, Mapping
from typing import ClassVar, Final, NamedTuple, Protocol as Interface

from epaxos.command import Batch, Payload
from epaxos.errors import Rejected, Unknown
from epaxos.ids import BatchNumber, InstanceId, ReplicaId, Vector
from epaxos.messages import Message
from epaxos.value import value


class Now(NamedTuple):
    """The time of an event, in integer microseconds."""

    mono_us: int
    """Monotonic: for timers and durations only."""
    wall_us: int
    """Wall clock: for timestamps that other replicas compare; it may jump."""


Order = Vector | int
"""Where a decision stands: its dependencies (leaderless) or its log index (total order)."""

Timer = Hashable
"""The name of a timer: any hashable value with a stable repr."""

NEWEST: Final = -1
"""`after=NEWEST`: everything urgent that was saved so far. The default, and the safe choice."""
NOTHING: Final = 0
"""`after=NOTHING`: leaves at once. Say in the source why nothing it reveals needs the disk."""


class LogView(Interface):
    """A synchronous, read-only view of the *durable* records. Keys and values are bytes, keys ordered."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) with first <= key < last, in key order."""
        ...


class Frontier(NamedTuple):
    """An executed set: a watermark a lane, plus the ids above it (protocol.md 6.2). Closed under dependencies."""

    watermark: Vector
    beyond: frozenset[InstanceId]

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, InstanceId) and (id_.slot <= self.watermark[id_.lane] or id_ in self.beyond)


# ---------------------------------------------------------------------------------------------------------- events


@value
class Start:
    """The first event. `incarnation` is 1 in the first life of this data directory, and greater in every later one.

    `executed` is what the durable apply marks say ran in an earlier life; it has been applied again already. The
    protocol decides again what its log holds as decided and `executed` lacks.
    """

    incarnation: int
    executed: Frontier


@value
class Propose:
    """A batch of commands that clients of this replica submitted; `batch.name.origin` is this replica.

    At most as many batches are outstanding as `Credit` granted. Past `deadline_us`, a batch of which the protocol knows
    that it was not applied is settled, and never submitted again. One that has left, and may have been, may be sent
    until it is decided, if it takes effect once however often that is (Raft): its first copy is under way anyhow.
    """

    batch: Batch
    deadline_us: int
    """Monotonic; the soonest among its commands."""


@value
class Read:
    """Commands that only read, to be answered without being logged, by `Serve`.

    Only delivered to a protocol with `reads_apart`; the others get reads inside `Propose`.
    """

    batch: Batch
    deadline_us: int
    """Monotonic; the last among its commands."""


@value
class Receive:
    """A message, decoded and checked against the table of messages. `peer` is authenticated by the handshake."""

    peer: ReplicaId
    message: Message


@value
class Wake:
    """The timer of that name is due. It is no longer set."""

    timer: Timer


@value
class Durable:
    """Everything saved up to and including `mark` is on stable storage."""

    mark: int


@value
class PeerUp:
    """A link to `peer` was established: what was in flight before may be lost."""

    peer: ReplicaId


@value
class PeerDown:
    """The link to `peer` broke. The peer may be alive."""

    peer: ReplicaId


@value
class Rtt:
    """A measured round trip to `peer`, in microseconds."""

    peer: ReplicaId
    rtt_us: int


@value
class Executed:
    """These ids ran here, in this order, since the last such event; Nops count."""

    ids: tuple[InstanceId, ...]


@value
class Blocked:
    """Execution waits for these ids since before this turn: learn them, or recover them.

    Repeated while it lasts (at most once per `limits.blocked_us`); the protocol paces what it does about it.
    """

    ids: tuple[InstanceId, ...]


Event = Start | Propose | Read | Receive | Wake | Durable | PeerUp | PeerDown | Rtt | Executed | Blocked


# --------------------------------------------------------------------------------------------------------- effects


@value
class Save:
    """Put and delete durable records, atomically. `Durable(mark)` answers; marks grow by the protocol's counting.

    A save that is not `urgent` rides with the next sync (the engine sees to it that one comes) and nothing waits
    for it: for records whose loss is harmless, such as a follower's commit.
    """

    puts: tuple[tuple[bytes, bytes], ...]
    mark: int
    drops: tuple[bytes, ...] = ()
    urgent: bool = True


@value
class Send:
    """Send `message` to each of `peers` (never to oneself)."""

    peers: tuple[ReplicaId, ...]
    message: Message
    after: int = NEWEST


@value
class Learn:
    """The executor may know from now on what this undecided id touches."""

    id: InstanceId
    batch: Batch


@value
class Decide:
    """`payload` is decided for `id`, at `order`. It may come from any replica's proposal.

    For a NOP, `order` is the zero vector, or the index.
    """

    id: InstanceId
    payload: Payload
    order: Order
    after: int = NEWEST


@value
class Serve:
    """The `Read` of that name may be answered once execution has reached `order` on the keys it touches."""

    name: BatchNumber
    order: Order


@value
class Settle:
    """The batch or read of that name will not be decided from here: certainly not applied, or unknown."""

    name: BatchNumber
    outcome: Rejected | Unknown


@value
class Credit:
    """The protocol takes `n` more batches (the admission window of protocol.md 4.4); a negative `n` takes back what was
    granted and has not been used."""

    n: int


@value
class SetTimer:
    """Wake me with `timer` at `at_us` (monotonic), replacing an earlier setting of the same name."""

    timer: Timer
    at_us: int


@value
class ClearTimer:
    """Forget the timer of that name, if it is set."""

    timer: Timer


@value
class Note:
    """Something worth tracing happened: `event` in snake_case, about `id`. Costs little when nobody listens."""

    event: str
    id: InstanceId | None = None
    detail: str = ""
    batch: Batch | None = None


Effect = Save | Send | Learn | Decide | Serve | Settle | Credit | SetTimer | ClearTimer | Note


class Random(Interface):
    """The generator a protocol is handed; a fork of the seed in simulation."""

    def random(self) -> float: ...

    def randrange(self, start: int, stop: int, /) -> int: ...


class ProtocolConfig(NamedTuple):
    """What every protocol is told about itself."""

    me: ReplicaId
    n: int
    window: int
    """W: own batches submitted and not yet executed here, at most."""
    retry_us: int
    """What to assume of a round trip that was never measured, and the shortest time before anything is sent again."""
    preferred: ReplicaId | None = None
    """Who should lead, of a protocol that has a leader; None leaves it to chance."""
    eager: bool = False
    """Recover what is needed without asking for it first, and on the smallest legal quorum: in simulation only."""


class Protocol(abc.ABC):
    """One object per replica. Subclasses hold the rules of one protocol and nothing else."""

    reads_apart: ClassVar[bool] = False
    """Does the protocol answer read-only batches without logging them (`Read` and `Serve`)?"""

    @abc.abstractmethod
    def step(self, now: Now, event: Event) -> list[Effect]:
        """Take one event. Pure: the same state and event give the same effects."""

    @abc.abstractmethod
    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        """The decision of `id_`, from memory or from the log; None when this replica does not know one."""

    @abc.abstractmethod
    def status(self) -> Mapping[str, object]:
        """Counters and watermarks for people, JSON-able.

        Among them, in whatever shape the protocol counts, `known` says how far it has heard of anything, and `executed`
        how far that has run here: the two are equal when all is at rest.
        """

    @abc.abstractmethod
    def digest(self) -> bytes:
        """A hash of the whole state, equal for equal states: for the simulator and the model checker."""
