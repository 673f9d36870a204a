"""What is replicated: batches of packed commands, and the relation that says which of them conflict.

**A run** is the packed form of some commands, the same bytes from the socket to the state machine::

    u32 n | u32 body_len | n x entry | body                               (all integers little-endian)
    entry = u64 key hash | u32 offset | u16 key length | u8 operation | u8 flags

`offset` points into the body, where the entry's key is followed by its payload, which ends where the next
entry begins (or the body ends); offsets are monotone. A command is one entry, or several when it has several
keys: every entry after the first carries `CONT`. Operations belong to the state machine, except those from
`SESSION_OPEN_OP` on, which are the engine's own (`session.py`).

**A batch** is a header and one run, and is the payload of one instance::

    u8 version = 1 | u8 flags = 0 | u16 origin | u32 engine entries | u64 incarnation | u64 number | run

The origin fields name the batch for ever (`BatchNumber`): a reply finds its waiting client through them, whoever
decided the batch. Engine entries are those with the engine's own operations: where there are some, the state machine is
given what the session table lets through, without them.

**Conflict** (protocol.md 1.2) is symmetric and a function of the two payloads alone: two commands conflict when
they share a key hash, or one of them touches `WHOLE` the state, unless both only read. A collision of hashes is
a false conflict: slower, never wrong. `packing.py` holds the codec, in pure Python and compiled.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from epaxos.errors import ProtocolError
from epaxos.ids import BatchNumber

VERSION: Final = 1
HEADER: Final = struct.Struct("<BBHIQQ")
RUN_HEADER: Final = struct.Struct("<II")
ENTRY: Final = struct.Struct("<QIHBB")

READ: Final = 0x01
"""The entry only reads its key: shared mode. Without it the entry is a write: exclusive."""
CONT: Final = 0x02
"""The entry belongs to the same command as the one before it."""
WHOLE: Final = 0x04
"""The entry touches the whole state: it conflicts with everything (with every write, if it is also `READ`)."""
RESERVED: Final = 0x08
OPTION_1: Final = 0x10
OPTION_2: Final = 0x20
OPTION_3: Final = 0x40
OPTION_4: Final = 0x80
"""The upper four bits are modifiers of the operation; only the state machine knows what they mean."""

SESSION_OPEN_OP: Final = 0xFD
"""The operation of the command that opens a session; a state machine never sees it."""
SESSION_OP: Final = 0xFE
"""The operation of the last entry of a command of a session; a state machine never sees it."""
BARRIER_OP: Final = 0xFF
"""The operation of a Barrier: ordered against everything; a state machine never sees it. Its payload, when it has one,
is for the session table."""

MAX_KEY_BYTES: Final = 0xFFFF
MAX_ENTRIES: Final = 1 << 16
MAX_RUN_BYTES: Final = 1 << 26
"""Hard limits of the format. `Config.limits` holds the (smaller) limits in force."""


class Entry(NamedTuple):
    """One key of one command, unpacked. `flags` never contains CONT: the codec sets it."""

    op: int
    flags: int
    key: bytes
    payload: bytes


Command = tuple[Entry, ...]
"""One command, unpacked: at least one entry; the operation is that of the first."""


def count_entries(run: bytes) -> int:
    """How many entries a sound run has."""
    entries: int = RUN_HEADER.unpack_from(run)[0]
    return entries


def is_barrier(run: bytes, at: int = 0) -> bool:
    """Is the sound run at that offset a Barrier? (Its operation is the byte before the flags of its only entry.)"""
    return run[at + RUN_HEADER.size + ENTRY.size - 2] == BARRIER_OP


def is_opening(run: bytes) -> bool:
    """Does the sound run begin with the opening of a session?"""
    return run[RUN_HEADER.size + ENTRY.size - 2] == SESSION_OPEN_OP


class Batch:
    """The payload of one instance: immutable bytes, shared by the instance, the frame and the log record."""

    __slots__ = ("data", "name", "engine_entries")

    data: bytes
    name: BatchNumber
    engine_entries: int
    """How many entries have one of the engine's own operations."""

    def __init__(self, data: bytes) -> None:
        """Parse the header of `data`. The run behind it is checked by `packing.check_batch` on receipt."""
        if len(data) < HEADER.size + RUN_HEADER.size:
            raise ProtocolError(f"batch of {len(data)} bytes is shorter than its header")
        version, flags, origin, sessions, incarnation, number = HEADER.unpack_from(data)
        if version != VERSION or flags:
            raise ProtocolError(f"batch version {version}, flags {flags}; this release knows {VERSION}, 0")
        self.data = data
        self.name = BatchNumber(origin, incarnation, number)
        self.engine_entries = sessions

    @classmethod
    def of(cls, name: BatchNumber, run: bytes, engine_entries: int = 0) -> Batch:
        """The batch that `name`s this run, which has so many engine entries (`packing.count_engine_entries`)."""
        batch = cls.__new__(cls)
        batch.name = name
        batch.data = HEADER.pack(VERSION, 0, name.origin, engine_entries, name.incarnation, name.number) + run
        batch.engine_entries = engine_entries
        return batch

    @property
    def run(self) -> bytes:
        """The packed commands, without the header (a copy)."""
        return self.data[HEADER.size :]

    @property
    def is_barrier(self) -> bool:
        """A Barrier stands alone in its batch."""
        return is_barrier(self.data, HEADER.size)

    @property
    def barrier_payload(self) -> bytes:
        """What the Barrier has to say to the session table."""
        return self.data[HEADER.size + RUN_HEADER.size + ENTRY.size :]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Batch({self.name.origin}/{self.name.incarnation}/{self.name.number}, {len(self.data)} bytes)"


class Nop(enum.Enum):
    """The type of `NOP`, the payload that does nothing."""

    NOP = "NOP"

    def __repr__(self) -> str:
        return "NOP"


NOP: Final = Nop.NOP
"""The payload of an instance whose command was given up: no keys, no dependencies, no effect."""

Payload = Batch | Nop


class Footprint(NamedTuple):
    """What a run touches, unpacked: the definition that the packed walks are tested against."""

    reads: frozenset[int]
    writes: frozenset[int]
    whole_read: bool
    whole_write: bool

    def conflicts(self, other: Footprint) -> bool:
        """The conflict relation of protocol.md 1.2."""
        mine, theirs = bool(self.writes) or self.whole_write, bool(other.writes) or other.whole_write
        if self.whole_write or other.whole_write:
            return True
        if (self.whole_read and theirs) or (other.whole_read and mine):
            return True
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)
