"""How the words of a command become entries, where its shape alone does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from epaxos import replies
from epaxos.command import Command, Entry
from epaxos.gateway.items import Refused
from epaxos.machines import operations
from epaxos.machines.kv import INCREMENT, NOT_AN_INTEGER, SET_GET, SET_NX, SET_XX
from epaxos.machines.numbers import I64_MIN, parse_i64

SYNTAX_ERROR: Final = replies.error(b"ERR " + operations.SYNTAX_ERROR)
_NO_SUCH_DECREMENT: Final = replies.error(b"ERR decrement would overflow")

_SET_FLAGS: Final = {b"nx": SET_NX, b"xx": SET_XX, b"get": SET_GET}
_SET_CLOCK: Final = frozenset({b"ex", b"px", b"exat", b"pxat"})


def set_(op: int, flags: int, args: Sequence[bytes]) -> Command | Refused:
    """SET with options."""
    for word in args[3:]:
        option = word.lower()
        if option in _SET_CLOCK or option == b"keepttl":
            return Refused(replies.error(b"ERR SET option %b is not supported: keys do not expire" % option.upper()))
        if option not in _SET_FLAGS:
            return Refused(SYNTAX_ERROR)
        flags |= _SET_FLAGS[option]
    if flags & SET_NX and flags & SET_XX:
        return Refused(SYNTAX_ERROR)
    return (Entry(op, flags, args[1], args[2]),)


def incrby(op: int, flags: int, args: Sequence[bytes]) -> Command | Refused:
    """INCRBY."""
    increment = parse_i64(args[2])
    if increment is None:
        return Refused(NOT_AN_INTEGER)
    return (Entry(op, flags, args[1], INCREMENT.pack(increment)),)


def decrby(op: int, flags: int, args: Sequence[bytes]) -> Command | Refused:
    """DECRBY."""
    decrement = parse_i64(args[2])
    if decrement is None:
        return Refused(NOT_AN_INTEGER)
    if decrement == I64_MIN:
        return Refused(_NO_SUCH_DECREMENT)
    return (Entry(op, flags, args[1], INCREMENT.pack(-decrement)),)


def keys(op: int, flags: int, args: Sequence[bytes]) -> Command | Refused:
    """A fixed number of keys."""
    return tuple(Entry(op, flags, key, b"") for key in args[1:])
