"""The commands of the Redis front end: one table, from which everything that knows a command by name is driven.

`plan` turns the words of one command into what happens with it: a packed command to be replicated, a command for the
replica at hand (`Local`), or an error (`Refused`) in Redis's own words. The compiled parser packs the plain shapes by
itself, by the same table, and asks `plan` about everything else.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from epaxos.command import ENTRY, MAX_ENTRIES, READ, RUN_HEADER, Command, Entry
from epaxos.errors import Rejected
from epaxos.gateway import replies
from epaxos.gateway.items import Local, ParseLimits, Refused
from epaxos.machines.kv import INCREMENT, SET_GET, SET_NX, SET_XX, Op, parse_i64


class Shape(enum.IntEnum):
    """How the words behind the name become entries."""

    LOCAL = 0
    """Not at all: the replica at hand answers."""
    KEY = 1
    """One key; the payload is the same for every such command."""
    KEY_VALUE = 2
    """One key and its payload."""
    KEYS = 3
    """Keys, one or more, without a payload."""
    PAIRS = 4
    """Keys, each with its payload."""
    CUSTOM = 5
    """By a function."""


Encoder = Callable[["Spec", Sequence[bytes]], Command | Refused]


class Spec(NamedTuple):
    """One command."""

    name: str
    arity: int
    """The number of words with the name, or its negative when there may be more."""
    flags: tuple[str, ...]
    """As `COMMAND INFO` says them."""
    keys: tuple[int, int, int]
    """The positions of the first and last key and the step between keys; (0, 0, 0) without keys."""
    group: str
    since: str
    summary: str
    shape: Shape = Shape.LOCAL
    op: int = 0
    entry_flags: int = 0
    """Of every entry: `READ` for a command that only reads, and options of the operation."""
    payload: bytes = b""
    """Of a `KEY` command."""
    encode: Encoder | None = None
    """Of a `CUSTOM` command; of a `KEY_VALUE` command, what to do with further words."""


# ------------------------------------------------------------------------------------------------------- error replies

_SHOWN_BYTES: Final = 128
"""An unknown command is repeated to its sender up to so many bytes, and its arguments likewise."""

_SYNTAX_ERROR: Final = replies.error(b"ERR syntax error")
_NOT_AN_INTEGER: Final = replies.error(b"ERR value is not an integer or out of range")
_NO_SUCH_DECREMENT: Final = replies.error(b"ERR decrement would overflow")


def _shown(word: bytes, limit: int = _SHOWN_BYTES) -> bytes:
    """As much of a word as an error repeats: Redis stops at a NUL."""
    return word.partition(b"\0")[0][:limit]


def unknown_command(args: Sequence[bytes]) -> bytes:
    """The reply to a command that is not in the table."""
    shown = b""
    for arg in args[1:]:
        if len(shown) >= _SHOWN_BYTES:
            break
        shown += b"'%b' " % _shown(arg, _SHOWN_BYTES - len(shown))
    return replies.error(b"ERR unknown command '%b', with args beginning with: %b" % (_shown(args[0]), shown))


def unknown_subcommand(name: str, subcommand: bytes) -> bytes:
    """The reply to a second word that the command does not know."""
    return replies.error(b"ERR unknown subcommand '%b'. Try %b HELP." % (_shown(subcommand), name.upper().encode()))


def wrong_arity(name: str) -> bytes:
    """The reply to too few or too many words."""
    return replies.error(b"ERR wrong number of arguments for '%b' command" % name.encode())


def arity_fits(arity: int, words: int) -> bool:
    """Is this a number of words that `arity` allows?"""
    return words == arity if arity > 0 else words >= -arity


# ------------------------------------------------------------------------------------------------------------ encoders

_SET_FLAGS: Final = {b"nx": SET_NX, b"xx": SET_XX, b"get": SET_GET}
_SET_EXPIRY: Final = frozenset({b"ex", b"px", b"exat", b"pxat", b"keepttl"})


def _encode_set(spec: Spec, args: Sequence[bytes]) -> Command | Refused:
    flags = spec.entry_flags
    for word in args[3:]:
        option = word.lower()
        if option in _SET_EXPIRY:
            return Refused(replies.error(b"ERR SET option %b is not supported: keys do not expire" % option.upper()))
        if option not in _SET_FLAGS:
            return Refused(_SYNTAX_ERROR)
        flags |= _SET_FLAGS[option]
    if flags & SET_NX and flags & SET_XX:
        return Refused(_SYNTAX_ERROR)
    return (Entry(spec.op, flags, args[1], args[2]),)


def _encode_incrby(spec: Spec, args: Sequence[bytes]) -> Command | Refused:
    increment = parse_i64(args[2])
    if increment is None:
        return Refused(_NOT_AN_INTEGER)
    return (Entry(spec.op, spec.entry_flags, args[1], INCREMENT.pack(increment)),)


def _encode_decrby(spec: Spec, args: Sequence[bytes]) -> Command | Refused:
    decrement = parse_i64(args[2])
    if decrement is None:
        return Refused(_NOT_AN_INTEGER)
    if decrement == -(1 << 63):
        return Refused(_NO_SUCH_DECREMENT)
    return (Entry(spec.op, spec.entry_flags, args[1], INCREMENT.pack(-decrement)),)


# ----------------------------------------------------------------------------------------------------------- the table

_ONE: Final = (1, 1, 1)
_ALL: Final = (1, -1, 1)
_EVERY_OTHER: Final = (1, -1, 2)
_NONE: Final = (0, 0, 0)
_READS: Final = ("readonly", "fast")
_WRITES: Final = ("write", "denyoom")
_ANSWERS: Final = ("loading", "stale", "fast")
_STRING: Final = "string"
_GENERIC: Final = "generic"
_CONNECTION: Final = "connection"
_SERVER: Final = "server"

# fmt: off
_SPECS: Final = (
    Spec("get", 2, _READS, _ONE, _STRING, "1.0.0", "Get the value of a key",
         Shape.KEY, Op.GET, READ),
    Spec("set", -3, _WRITES, _ONE, _STRING, "1.0.0", "Set the value of a key (NX, XX, GET)",
         Shape.KEY_VALUE, Op.SET, encode=_encode_set),
    Spec("setnx", 3, _WRITES, _ONE, _STRING, "1.0.0", "Set the value of a key that does not exist",
         Shape.KEY_VALUE, Op.SETNX),
    Spec("getset", 3, _WRITES, _ONE, _STRING, "1.0.0", "Set the value of a key and return the one before",
         Shape.KEY_VALUE, Op.SET, SET_GET),
    Spec("del", -2, ("write",), _ALL, _GENERIC, "1.0.0", "Delete keys",
         Shape.KEYS, Op.DEL),
    Spec("exists", -2, _READS, _ALL, _GENERIC, "1.0.0", "Count the keys that exist",
         Shape.KEYS, Op.EXISTS, READ),
    Spec("incr", 2, _WRITES, _ONE, _STRING, "1.0.0", "Increment the integer value of a key by one",
         Shape.KEY, Op.INCRBY, payload=INCREMENT.pack(1)),
    Spec("decr", 2, _WRITES, _ONE, _STRING, "1.0.0", "Decrement the integer value of a key by one",
         Shape.KEY, Op.INCRBY, payload=INCREMENT.pack(-1)),
    Spec("incrby", 3, _WRITES, _ONE, _STRING, "1.0.0", "Increment the integer value of a key",
         Shape.CUSTOM, Op.INCRBY, encode=_encode_incrby),
    Spec("decrby", 3, _WRITES, _ONE, _STRING, "1.0.0", "Decrement the integer value of a key",
         Shape.CUSTOM, Op.INCRBY, encode=_encode_decrby),
    Spec("append", 3, _WRITES, _ONE, _STRING, "2.0.0", "Append to the value of a key",
         Shape.KEY_VALUE, Op.APPEND),
    Spec("strlen", 2, _READS, _ONE, _STRING, "2.2.0", "Get the length of the value of a key",
         Shape.KEY, Op.STRLEN, READ),
    Spec("mget", -2, _READS, _ALL, _STRING, "1.0.0", "Get the values of keys, all at one moment",
         Shape.KEYS, Op.MGET, READ),
    Spec("mset", -3, _WRITES, _EVERY_OTHER, _STRING, "1.0.1", "Set the values of keys, all at one moment",
         Shape.PAIRS, Op.MSET),
    Spec("ping", -1, _ANSWERS, _NONE, _CONNECTION, "1.0.0", "Ping this replica"),
    Spec("echo", 2, _ANSWERS, _NONE, _CONNECTION, "1.0.0", "Repeat the given string"),
    Spec("quit", -1, _ANSWERS, _NONE, _CONNECTION, "1.0.0", "Close the connection"),
    Spec("select", 2, _ANSWERS, _NONE, _CONNECTION, "1.0.0", "Select the database: there is 0 only"),
    Spec("hello", -1, _ANSWERS, _NONE, _CONNECTION, "6.0.0", "Choose the dialect of the protocol: 2 or 3"),
    Spec("client", -2, _ANSWERS, _NONE, _CONNECTION, "2.4.0", "About this connection"),
    Spec("info", -1, _ANSWERS, _NONE, _SERVER, "1.0.0", "About this replica, for people"),
    Spec("command", -1, _ANSWERS, _NONE, _SERVER, "2.8.13", "The commands of this server"),
    Spec("config", -2, _ANSWERS, _NONE, _SERVER, "2.0.0", "What Redis clients ask of a configuration"),
    Spec("epaxos", -2, _ANSWERS, _NONE, _SERVER, "0.1.0", "STATUS of this replica, RESETSTATS, SESSION, CALL"),
)
# fmt: on

TABLE: Final = {spec.name.encode(): spec for spec in _SPECS}
"""Every command, by its name in lower case."""


# ---------------------------------------------------------------------------------------------------------- the plan


def plan(args: Sequence[bytes], limits: ParseLimits) -> Command | Local | Refused:
    """What happens with the command of these words (at least one)."""
    spec = TABLE.get(args[0].lower())
    if spec is None:
        return Refused(unknown_command(args))
    if not arity_fits(spec.arity, len(args)):
        return Refused(wrong_arity(spec.name))
    if spec.shape is Shape.LOCAL:
        return Local(list(args))
    command = _encode(spec, args)
    return command if isinstance(command, Refused) else too_large(command, limits) or command


def _encode(spec: Spec, args: Sequence[bytes]) -> Command | Refused:
    op, flags = spec.op, spec.entry_flags
    if spec.encode is not None:
        return spec.encode(spec, args)
    if spec.shape is Shape.KEY:
        return (Entry(op, flags, args[1], spec.payload),)
    if spec.shape is Shape.KEY_VALUE:
        return (Entry(op, flags, args[1], args[2]),)
    if spec.shape is Shape.KEYS:
        return tuple(Entry(op, flags, key, b"") for key in args[1:])
    if len(args) % 2 == 0:
        return Refused(wrong_arity(spec.name))
    return tuple(Entry(op, flags, key, value) for key, value in zip(args[1::2], args[2::2], strict=True))


def packed_bytes(command: Command) -> int:
    """What the command adds to a run."""
    return sum(ENTRY.size + len(entry.key) + len(entry.payload) for entry in command)


def too_large(command: Command, limits: ParseLimits) -> Refused | None:
    """The reply to a command that exceeds a bound, else None."""
    for entry in command:
        if len(entry.key) > limits.key_bytes:
            return _over(f"a key of {len(entry.key)} bytes", limits.key_bytes)
        if len(entry.payload) > limits.value_bytes:
            return _over(f"a value of {len(entry.payload)} bytes", limits.value_bytes)
    if len(command) > MAX_ENTRIES:
        return _over(f"a command of {len(command)} keys", MAX_ENTRIES)
    size = RUN_HEADER.size + packed_bytes(command)
    return _over(f"a command of {size} bytes", limits.run_bytes) if size > limits.run_bytes else None


def _over(what: str, limit: int) -> Refused:
    return Refused(replies.failure(Rejected("too_large", f"{what}, {limit} are allowed")))
