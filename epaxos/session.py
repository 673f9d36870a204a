"""Exactly-once sessions, as they stand in the log: names, stamps, and the commands that open and end them.

A client that lost its connection does not know whether its command was applied. In a session it simply sends it once
more, to any replica: every command carries a *stamp* (session, number, floor), and of all copies of one number one
takes effect (`execution/sessions.py`, protocol.md 4.6). The stamp is one more entry behind those of the command, on the
session's own key, so the order that the rules rest on comes from the footprints that every protocol knows:

- a command of a session reads that key, the command that opens the session writes it: no replica executes one in
  front of the other;
- in a FIFO session every command writes it: they are ordered among themselves;
- sessions end in a Barrier only, whose payload names them: it is ordered against everything.

A command that only reads is not stamped, except in a FIFO session: it may be sent again as it is, and two copies of it
must not need an order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import cbor2

from epaxos.command import HEADER, READ, SESSION_OP, SESSION_OPEN_OP, Command, Entry
from epaxos.errors import ProtocolError, Rejected
from epaxos.packing import barrier_run, decode_run, encode_run

WINDOW: Final = 1024
"""How far a number may be ahead of the floor that its command carries: it bounds what is kept of a session."""

RESULT_BYTES: Final = 64 * 1024
"""A longer result is not kept for copies of its command. Not a setting: every replica must keep the same ones."""
NOT_KEPT: Final = "applied earlier; its result is not kept"
"""What copies of it are told, and those of a command whose number is not above the floor."""

_KEY: Final = struct.Struct("<HQQ")
_KEY_PREFIX: Final = b"\x00session"
_STAMP: Final = struct.Struct("<QQ")
_FIFO: Final = b"\x01"


class SessionId(NamedTuple):
    """A session's name for ever: the life of the replica that gave it, and a number that is given once a life."""

    origin: int
    incarnation: int
    number: int

    @property
    def key(self) -> bytes:
        """The key that stands for the session in footprints."""
        return _KEY_PREFIX + _KEY.pack(*self)

    @classmethod
    def of_key(cls, key: bytes) -> SessionId:
        """The inverse of `key`. Raises ProtocolError."""
        if len(key) != len(_KEY_PREFIX) + _KEY.size or not key.startswith(_KEY_PREFIX):
            raise ProtocolError(f"{key!r} is not the key of a session")
        return cls(*_KEY.unpack_from(key, len(_KEY_PREFIX)))

    def __str__(self) -> str:
        return f"{self.origin}.{self.incarnation}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> SessionId:
        """The inverse of `str`. Raises ValueError."""
        parts = [int(part) if part.isdecimal() else -1 for part in text.split(".")]
        origin, incarnation, number = parts if len(parts) == 3 else (-1, -1, -1)
        if not (0 <= origin < 1 << 16 and 0 <= incarnation < 1 << 64 and 0 <= number < 1 << 64):
            raise ValueError(f"{text!r} names no session")
        return cls(origin, incarnation, number)


def check_number(number: int, first: int = 1) -> int:
    """`number`, if it may be one of a session. Raises ValueError."""
    if not first <= number < 1 << 63:
        raise ValueError(f"{number} is no number of a session: they begin at 1")
    return number


class Stamp(NamedTuple):
    """What makes a command one of a session."""

    session: SessionId
    number: int
    """From 1; every command of the session has its own, and every copy of the command the same."""
    floor: int
    """The client has the outcome of every number up to this one, and asks for none of them again."""
    fifo: bool = False
    """The session's commands execute in the order of their numbers."""


class Ended(NamedTuple):
    """A session that a Barrier ends."""

    session: SessionId
    unless_after: int | None
    """It goes on if a number above this was executed: the session was not idle after all. None: it ends."""


def stamped(command: Command, stamp: Stamp) -> Command:
    """The command as one of a session. Raises Rejected("malformed") when it cannot be one."""
    if not stamp.floor < stamp.number <= stamp.floor + WINDOW:
        raise Rejected("malformed", f"number {stamp.number} is not within {WINDOW} above the floor {stamp.floor}")
    if not stamp.fifo and all(entry.flags & READ for entry in command):
        raise Rejected("malformed", "a command that only reads has a place in FIFO sessions only: send it as it is")
    flags = 0 if stamp.fifo else READ
    return (*command, Entry(SESSION_OP, flags, stamp.session.key, _STAMP.pack(stamp.number, stamp.floor)))


def open_run(secret: bytes, session: SessionId, *, fifo: bool = False) -> bytes:
    """The run of the command that opens a session."""
    return encode_run(secret, ((Entry(SESSION_OPEN_OP, 0, session.key, _FIFO if fifo else b""),),))


def end_run(ended: Iterable[Ended]) -> bytes:
    """The run of the Barrier that ends these sessions."""
    return barrier_run(cbor2.dumps([[*one.session, one.unless_after] for one in ended]))


# ---------------------------------------------------------------------------------------------------------- reading


class Opening(NamedTuple):
    """What a command that opens a session says."""

    session: SessionId
    fifo: bool


def marks(data: bytes) -> list[Stamp | Opening | None]:
    """For each command of a batch: its stamp, what it opens, or None when it is of no session."""
    return [mark_of(command) for command in decode_run(data, HEADER.size)]


def mark_of(command: Command) -> Stamp | Opening | None:
    """Its stamp, what it opens, or None when it is of no session."""
    last = command[-1]
    if last.op == SESSION_OPEN_OP:
        return Opening(SessionId.of_key(last.key), last.payload == _FIFO)
    if last.op == SESSION_OP and len(last.payload) == _STAMP.size:
        number, floor = _STAMP.unpack(last.payload)
        return Stamp(SessionId.of_key(last.key), number, floor, not last.flags & READ)
    return None


def ended_in(payload: bytes) -> list[Ended]:
    """What a Barrier's payload says; an empty one ends nothing. Raises ProtocolError."""
    if not payload:
        return []
    try:
        rows = cbor2.loads(payload)
        return [Ended(SessionId(origin, incarnation, number), last) for origin, incarnation, number, last in rows]
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise ProtocolError(f"a Barrier's payload does not name sessions: {error}") from error


# ----------------------------------------------------------------------------------------------- the client's part


class Numbers:
    """The numbers of one session as its client gives them out. Pure: the client's own concern is when to ask."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """The highest number given out."""
        self._open: dict[int, None] = {}

    @property
    def floor(self) -> int:
        """Everything up to here has its outcome."""
        return next(iter(self._open), self.last + 1) - 1

    @property
    def full(self) -> bool:
        """Must an outcome arrive before there is a further number?"""
        return self.last - self.floor >= WINDOW

    def take(self) -> int:
        """One more number, open until `done`. Raises Rejected("busy") when the window is full."""
        if self.full:
            raise Rejected("busy", f"{WINDOW} numbers of the session are in use")
        self.last += 1
        self._open[self.last] = None
        return self.last

    def done(self, number: int) -> None:
        """The outcome of this number is known, or of no interest: it is never asked for again."""
        self._open.pop(number, None)
