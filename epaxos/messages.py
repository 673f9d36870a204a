"""Every message replicas exchange: one class a message, one table that lists them.

A message's body is one CBOR array, `[code, field, field, …]`, followed by the raw bytes of its payload, if it
carries one. The classes below are the single description: codec, bounds, the reference page and the codec tests
are derived from their fields. Sender, incarnation and cluster are properties of the link (its handshake), so they
are not repeated; the epoch is part of every id.

Fields that later commit modes need are here from version 1, with their neutral values (`kind` 0, `oq` empty,
`process_at` and `sent_at` 0, `class_terms` empty, `late_by` 0): adding a mode is not a change of format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, dataclass_transform

from epaxos import cbor
from epaxos.command import NOP, Batch, Payload
from epaxos.errors import ProtocolError
from epaxos.ids import MAX_SLOT, Ballot, InstanceId, Lane, Vector
from epaxos.packing import check_batch
from epaxos.quorums import MAX_REPLICAS
from epaxos.value import value

WIRE_VERSION: Final = 1
"""Of messages and frames; a link uses the highest version both ends speak."""

MAX_HEADER_BYTES: Final = 0xFFFF
MAX_RANGES: Final = 64
MAX_INVALID: Final = 3072
"""At 18 bytes an invalidator at most, so that a ValidateOK always fits `MAX_HEADER_BYTES`."""
MAX_U64: Final = (1 << 64) - 1
FIRST_HINT: Final = 192
"""Codes from here on are hints: a replica that does not know one ignores it. An unknown code below is an error."""


class SlotRange(NamedTuple):
    """The slots first … last of one lane, both included."""

    lane: Lane
    first: int
    last: int


class Invalidator(NamedTuple):
    """One entry of a ValidateOK: an id that may forbid the validated one, and whether it is committed here."""

    id: InstanceId
    committed: bool


# ----------------------------------------------------------------------------------------- kinds of fields


class Kind(NamedTuple):
    """How a kind of field stands in the array. `load` raises ProtocolError for anything out of bounds."""

    name: str
    bounds: str
    dump: Callable[[Any], Any]
    load: Callable[[Any, int], Any]
    """(value from CBOR, cluster size) -> field"""


def _integer(low: int, high: int) -> Callable[[Any, int], int]:
    def load(value: Any, n: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ProtocolError(f"{value!r:.40} is not an integer from {low} to {high}")
        return value

    return load


def _array(value: Any, low: int, high: int, what: str) -> list[Any]:
    if type(value) is not list or not low <= len(value) <= high:
        raise ProtocolError(f"{what} is not an array of {low} to {high} items")
    return value


_slot = _integer(0, MAX_SLOT)
_epoch = _integer(0, (1 << 32) - 1)


def _lane(value: Any, n: int) -> int:
    return _integer(0, n - 1)(value, n)


def _load_id(value: Any, n: int) -> InstanceId:
    epoch, slot, lane = _array(value, 3, 3, "id")
    if type(slot) is not int or not 1 <= slot <= MAX_SLOT:
        raise ProtocolError(f"slot {slot!r:.40} of an id is not positive")
    return InstanceId(_epoch(epoch, n), slot, _lane(lane, n))


def _load_vector(value: Any, n: int) -> Vector:
    for slot in _array(value, n, n, "vector"):
        if type(slot) is not int or not 0 <= slot <= MAX_SLOT:
            raise ProtocolError(f"{slot!r:.40} in a vector is not a slot")
    return tuple(value)


def _load_bool(value: Any, n: int) -> bool:
    if type(value) is not bool:
        raise ProtocolError(f"{value!r:.40} is not a boolean")
    return value


def _load_empty(value: Any, n: int) -> tuple[()]:
    _array(value, 0, 0, "class terms of this version")
    return ()


def _load_ranges(value: Any, n: int) -> tuple[SlotRange, ...]:
    ranges = []
    for item in _array(value, 1, MAX_RANGES, "ranges"):
        lane, first, last = _array(item, 3, 3, "range")
        found = SlotRange(_lane(lane, n), _slot(first, n), _slot(last, n))
        if not 1 <= found.first <= found.last:
            raise ProtocolError(f"range {found.first}..{found.last} is empty")
        ranges.append(found)
    return tuple(ranges)


def _load_invalidators(value: Any, n: int) -> tuple[Invalidator, ...]:
    items = (_array(item, 2, 2, "invalidator") for item in _array(value, 0, MAX_INVALID, "invalidators"))
    return tuple(Invalidator(_load_id(id_, n), _load_bool(committed, n)) for id_, committed in items)


def _same(value: Any) -> Any:
    return value


ID = Kind("id", "[epoch, slot >= 1, lane < n]", list, _load_id)
VECTOR = Kind("vector", "n slots", list, _load_vector)
BALLOT = Kind("ballot", "u64", _same, _integer(0, MAX_U64))
TERM = Kind("term", "u64", _same, _integer(0, MAX_U64))
NUMBER = Kind("number", "u64", _same, _integer(0, MAX_U64))
SLOT = Kind("slot", "0 … 2^62-1", _same, _slot)
LANE = Kind("lane", "< n", _same, _lane)
EPOCH = Kind("epoch", "u32", _same, _epoch)
COUNT = Kind("count", f"0 … {MAX_REPLICAS}", _same, _integer(0, MAX_REPLICAS))
KIND = Kind("kind", "0 (mode M); 1 … 7 reserved", _same, _integer(0, 0))
QUORUM = Kind("bitmap", "0 (empty)", _same, _integer(0, 0))
TIME_US = Kind("time", "0 (none)", _same, _integer(0, 0))
LATE_US = Kind("lateness", "0", _same, _integer(0, 0))
TERMS = Kind("class terms", "[]", list, _load_empty)
PHASES: Final = ("INIT", "PRE", "ACC", "COM")
PHASE = Kind("phase", "0 INIT … 3 COM", _same, _integer(0, len(PHASES) - 1))
BOOL = Kind("boolean", "true or false", _same, _load_bool)
RANGES = Kind("ranges", f"1 … {MAX_RANGES} of [lane, first, last]", lambda rs: [list(r) for r in rs], _load_ranges)
INVALID = Kind(
    "invalidators",
    f"0 … {MAX_INVALID} of [id, committed]",
    lambda items: [[list(item.id), item.committed] for item in items],
    _load_invalidators,
)
PAYLOAD = Kind("payload", "0 absent, 1 NOP, 2 the batch behind the array", _same, _integer(0, 2))
_ABSENT, _NOP, _BATCH = 0, 1, 2


def _field(kind: Kind, **extra: Any) -> Any:
    return field(metadata={"kind": kind}, **extra)


@value
class Message:
    """The base of all messages. `code` is the number on the wire and never changes its meaning."""

    code: ClassVar[int]


TABLE: dict[int, type[Message]] = {}
"""code -> message. The reference page and the codec tests are generated from it."""

_M = TypeVar("_M", bound=Message)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_field,))
def _message(code: int) -> Callable[[type[_M]], type[_M]]:
    def register(cls: type[_M]) -> type[_M]:
        made = value(cls)
        assert code not in TABLE, f"code {code} is taken"
        made.code = code
        TABLE[code] = made
        return made

    return register


# ------------------------------------------------------------------------------------- EPaxos, codes 1 … 31


@_message(1)
class PreAccept(Message):
    """Coordinator to all: the command and its initial dependencies (protocol.md 2.2)."""

    id: InstanceId = _field(ID)
    payload: Batch = _field(PAYLOAD)
    init_dep: Vector = _field(VECTOR)
    kind: int = _field(KIND, default=0)
    oq: int = _field(QUORUM, default=0)
    process_at: int = _field(TIME_US, default=0)
    sent_at: int = _field(TIME_US, default=0)
    class_terms: tuple[()] = _field(TERMS, default=())


@_message(2)
class PreAcceptOK(Message):
    """Replica to coordinator: the initial dependencies and what this replica adds."""

    id: InstanceId = _field(ID)
    dep: Vector = _field(VECTOR)
    late_by: int = _field(LATE_US, default=0)


@_message(3)
class Accept(Message):
    """Owner of the ballot (the coordinator at ballot 0) to all: vote for this value."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)
    payload: Payload = _field(PAYLOAD)
    dep: Vector = _field(VECTOR)


@_message(4)
class AcceptOK(Message):
    """Replica to all: my durable vote at this ballot, in full, so that everybody may count it."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)
    nop: bool = _field(BOOL)
    dep: Vector = _field(VECTOR)


@_message(5)
class Commit(Message):
    """Any replica that knows the decision to any other. `payload` is absent when the receiver holds it."""

    id: InstanceId = _field(ID)
    payload: Payload | None = _field(PAYLOAD)
    dep: Vector = _field(VECTOR)


@_message(6)
class Recover(Message):
    """Owner of the ballot to all: join it for these slots, and tell what you know (protocol.md 3.2, step 1)."""

    epoch: int = _field(EPOCH)
    lane: Lane = _field(LANE)
    first: int = _field(SLOT)
    last: int = _field(SLOT)
    ballot: Ballot = _field(BALLOT)

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise ProtocolError(f"Recover.first: the range {self.first}..{self.last} is empty")


@_message(7)
class RecoverOK(Message):
    """Replica to the recoverer: its latest vote, and what it registered. The payload is that of the vote, or the
    registered one; `nop` tells a vote for NOP, `registered` whether `init_dep` and the fields behind it count."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)
    abal: Ballot = _field(BALLOT)
    phase: int = _field(PHASE)
    nop: bool = _field(BOOL)
    payload: Batch | None = _field(PAYLOAD)
    dep: Vector = _field(VECTOR)
    registered: bool = _field(BOOL)
    init_dep: Vector = _field(VECTOR)
    kind: int = _field(KIND, default=0)
    oq: int = _field(QUORUM, default=0)
    process_at: int = _field(TIME_US, default=0)
    class_terms: tuple[()] = _field(TERMS, default=())


@_message(8)
class Validate(Message):
    """Recoverer to its quorum: may this candidate still be decided? Registers the command (3.2, R4)."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)
    payload: Batch = _field(PAYLOAD)
    init_dep: Vector = _field(VECTOR)
    dep: Vector = _field(VECTOR)
    kind: int = _field(KIND, default=0)
    oq: int = _field(QUORUM, default=0)
    process_at: int = _field(TIME_US, default=0)
    class_terms: tuple[()] = _field(TERMS, default=())


@_message(9)
class ValidateOK(Message):
    """Replica to recoverer: the conflicting ids that stand against the candidate here."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)
    invalid: tuple[Invalidator, ...] = _field(INVALID)


@_message(10)
class Waiting(Message):
    """Recoverer to all, repeated: k replicas other than the coordinator pre-accepted id with dep (3.2, V4)."""

    id: InstanceId = _field(ID)
    k: int = _field(COUNT)
    dep: Vector = _field(VECTOR)


@_message(11)
class Nack(Message):
    """Reply to a request whose ballot is too small: the ballot this replica has joined."""

    id: InstanceId = _field(ID)
    ballot: Ballot = _field(BALLOT)


@_message(12)
class CommitQuery(Message):
    """Any replica to any: send me the decisions you know of these slots. Answered by Commit or silence.
    `fresh`: the link that this came on has just come up; what the sender said before may be lost."""

    epoch: int = _field(EPOCH)
    ranges: tuple[SlotRange, ...] = _field(RANGES)
    fresh: bool = _field(BOOL, default=False)


# Codes 13, 14 and 15 are kept free for collection (two) and for epochs that end: protocol.md 6.


# --------------------------------------------------------------------- Raft, codes 32 … 63; a slot is a log index


@_message(32)
class RequestVote(Message):
    """Candidate to all: vote for me in `term`. `pre` asks only whether you would, and changes nothing; `transfer` says
    that the leader itself wants this election."""

    term: int = _field(TERM)
    last_index: int = _field(SLOT)
    last_term: int = _field(TERM)
    pre: bool = _field(BOOL)
    transfer: bool = _field(BOOL)


@_message(33)
class Vote(Message):
    """Voter to candidate: my vote of `term`, or, when not granted, the term I am in."""

    term: int = _field(TERM)
    granted: bool = _field(BOOL)
    pre: bool = _field(BOOL)


@_message(34)
class AppendEntries(Message):
    """Leader to follower: the entry behind the one named, and how far the log is committed. Without a payload it is a
    heartbeat, or the news of a commitment; `round` 0 wants no answer but a refusal."""

    term: int = _field(TERM)
    prev_index: int = _field(SLOT)
    prev_term: int = _field(TERM)
    entry_term: int = _field(TERM)
    payload: Payload | None = _field(PAYLOAD)
    commit: int = _field(SLOT)
    round: int = _field(SLOT)


@_message(35)
class AppendOK(Message):
    """Follower to leader: my log is yours up to `index`; or, when not `ok`, it has no such entry at `index`, and yours
    may agree with it at `hint` at most."""

    term: int = _field(TERM)
    ok: bool = _field(BOOL)
    index: int = _field(SLOT)
    hint: int = _field(SLOT)
    hint_term: int = _field(TERM)
    round: int = _field(SLOT)


@_message(36)
class Forward(Message):
    """Any replica to the leader: a batch of its clients, to be appended to the log."""

    payload: Batch = _field(PAYLOAD)


@_message(37)
class ReadIndex(Message):
    """Any replica to the leader: how far must I have executed to answer this read?"""

    incarnation: int = _field(NUMBER)
    number: int = _field(NUMBER)


@_message(38)
class ReadIndexOK(Message):
    """Leader to whoever asked: what was committed when a majority still followed me."""

    incarnation: int = _field(NUMBER)
    number: int = _field(NUMBER)
    index: int = _field(SLOT)


@_message(39)
class TimeoutNow(Message):
    """Leader to the follower that is to lead: begin an election at once."""

    term: int = _field(TERM)


# ------------------------------------------------------------------------------------------------------ the codec


def kinds(cls: type[Message]) -> tuple[tuple[str, Kind], ...]:
    """The fields of a message class and their kinds, in wire order."""
    return tuple((f.name, f.metadata["kind"]) for f in dataclasses.fields(cls))


def encode(message: Message) -> tuple[bytes, bytes]:
    """(CBOR array, raw payload or b"") of a message."""
    array: list[Any] = [message.code]
    raw = b""
    for name, kind in _FIELDS[type(message)]:
        value = getattr(message, name)
        if kind is PAYLOAD:
            if value is None:
                array.append(_ABSENT)
            elif value is NOP:
                array.append(_NOP)
            else:
                array.append(_BATCH)
                raw = value.data
        else:
            array.append(kind.dump(value))
    return cbor.dumps(array), raw


def decode(header: bytes, raw: bytes, n: int) -> Message | None:
    """The message in `header` (a CBOR array) and `raw`, for a cluster of `n` replicas.

    None for an unknown hint. Raises ProtocolError, saying which field is wrong, for anything that `encode` does not
    produce.
    """
    array = cbor.loads(header)
    if type(array) is not list or not array or type(array[0]) is not int:
        raise ProtocolError("a message is an array that begins with its code")
    cls = TABLE.get(array[0])
    if cls is None:
        if array[0] >= FIRST_HINT:
            return None
        raise ProtocolError(f"unknown message code {array[0]}")
    fields = _FIELDS[cls]
    if len(array) != len(fields) + 1:
        raise ProtocolError(f"{cls.__name__} has {len(fields)} fields, not {len(array) - 1}")
    values: dict[str, Any] = {}
    used = False
    for (name, kind), item in zip(fields, array[1:], strict=True):
        try:
            value = kind.load(item, n)
            if kind is PAYLOAD:
                used = used or value == _BATCH
                value = _payload(cls, value, raw)
        except ProtocolError as error:
            raise ProtocolError(f"{cls.__name__}.{name}: {error}") from None
        values[name] = value
    if raw and not used:
        raise ProtocolError(f"{cls.__name__} carries {len(raw)} bytes behind it that no field names")
    return cls(**values)


def _payload(cls: type[Message], tag: int, raw: bytes) -> Payload | None:
    if tag == _BATCH:
        check_batch(raw)
        return Batch(raw)
    allowed = _TAGS[cls]
    if tag not in allowed:
        raise ProtocolError(f"payload {('absent', 'NOP')[tag]} is not allowed here")
    return NOP if tag == _NOP else None


_FIELDS: Final = {cls: kinds(cls) for cls in TABLE.values()}
_TAGS: Final[dict[type[Message], frozenset[int]]] = {
    cls: frozenset(
        {_BATCH}
        | ({_NOP} if cls in (Accept, Commit, AppendEntries) else set())
        | ({_ABSENT} if cls in (Commit, RecoverOK, AppendEntries) else set())
    )
    for cls in TABLE.values()
}
