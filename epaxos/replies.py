"""Replies in the two dialects of the Redis protocol, and our words where Redis has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from epaxos.errors import Rejected, Unknown

OK: Final = b"+OK\r\n"
NIL: Final = b"$-1\r\n"
"""Nothing, as RESP2 says it."""
NIL_ARRAY: Final = b"*-1\r\n"
"""Nothing, in place of an array, as RESP2 says it."""
NULL: Final = b"_\r\n"
"""Nothing, as RESP3 says it."""

_TO_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")


def status(text: bytes) -> bytes:
    """A status line."""
    return b"+%b\r\n" % text


def error(text: bytes) -> bytes:
    """An error, whose first word is its code. It is one line whatever the client put into it."""
    return b"-%b\r\n" % text.translate(_TO_SPACES)


def integer(value: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % value


def bulk(value: bytes | None) -> bytes:
    """A string of bytes, or nothing (as RESP2 says it)."""
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(replies: Iterable[bytes]) -> bytes:
    """An array of replies."""
    replies = list(replies)
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def mapping(pairs: Sequence[tuple[bytes, bytes]], dialect: int) -> bytes:
    """A map from replies to replies; RESP2 has no maps and writes them as flat arrays."""
    flat = b"".join(key + value for key, value in pairs)
    return (b"%%%d\r\n" % len(pairs) if dialect == 3 else b"*%d\r\n" % (2 * len(pairs))) + flat


def members(values: Sequence[bytes], dialect: int) -> bytes:
    """Strings in no order that means anything; RESP2 has no sets and writes them as arrays."""
    return (b"~%d\r\n" if dialect == 3 else b"*%d\r\n") % len(values) + b"".join(map(bulk, values))


def text(value: bytes, dialect: int) -> bytes:
    """Text for people; RESP3 says so."""
    return b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value) if dialect == 3 else bulk(value)


def null(dialect: int) -> bytes:
    """Nothing."""
    return NULL if dialect == 3 else NIL


def failure(outcome: Rejected | Unknown) -> bytes:
    """The reply to a command whose outcome is not a result: it says whether the command may have been applied."""
    why = str(outcome).encode()
    if isinstance(outcome, Unknown):
        return error(b"UNKNOWN %b: may or may not have been applied" % why)
    if outcome.reason == "busy":
        return error(b"BUSY try again: not applied")
    if outcome.reason == "no_quorum":
        return error(b"NOQUORUM %b: not applied" % (outcome.detail.encode() or b"no majority answers"))
    return error(b"REJECTED %b: not applied" % why)


def to_resp3(replies: bytes) -> bytes:
    """Replies of the key-value machine to a client that speaks RESP3: nothing is said otherwise there.

    The other types that only RESP3 has are in them already, since the commands said so.
    """
    if NIL not in replies and NIL_ARRAY not in replies:
        return replies
    parts: list[bytes] = []
    start = at = 0
    while at < len(replies):
        end = replies.index(b"\r\n", at) + 2
        if replies[at:end] in (NIL, NIL_ARRAY):
            parts += (replies[start:at], NULL)
            start = end
        elif replies[at] in b"$=":
            end += int(replies[at + 1 : end - 2]) + 2
        at = end
    return b"".join((*parts, replies[start:]))
