"""Operations on strings that are not compiled: the frequent ones are in `kv.py`, in two twins."""

from __future__ import annotations

from fractions import Fraction

from epaxos import replies
from epaxos.machines.numbers import format_float, is_infinite, parse_float, round_float
from epaxos.machines.operations import Call
from epaxos.machines.store import MAX_VALUE_BYTES, refuse


def getdel(call: Call) -> bytes:
    """GETDEL."""
    value = call.store.get(call.key, bytes)
    call.store.drop(call.key)
    return replies.bulk(value)


def getrange(call: Call) -> bytes:
    """GETRANGE, SUBSTR."""
    first, last = call.integer(0), call.integer(1)
    value = call.value(bytes)
    if first < 0 and last < 0 and first > last:
        return replies.bulk(b"")
    first, last = (max(at + len(value), 0) if at < 0 else at for at in (first, last))
    return replies.bulk(value[first : last + 1])


def setrange(call: Call) -> bytes:
    """SETRANGE: bytes that nobody wrote are zero."""
    offset = call.integer(0)
    if offset < 0:
        raise refuse(b"offset is out of range")
    part = call.words[1]
    value = call.value(bytes)
    if not part:
        return replies.integer(len(value))
    if offset + len(part) > MAX_VALUE_BYTES:
        raise refuse(b"string exceeds maximum allowed size (proto-max-bulk-len)")
    after = value[:offset].ljust(offset, b"\0") + part + value[offset + len(part) :]
    call.store.put(call.key, after)
    return replies.integer(len(after))


def incrbyfloat(call: Call) -> bytes:
    """INCRBYFLOAT."""
    before = call.store.get(call.key, bytes)
    value = _float(b"0" if before is None else before)
    increment = _float(call.words[0])
    after = None if value is None or increment is None else round_float(value + increment)
    if after is None:
        raise refuse(b"increment would produce NaN or Infinity")
    text = format_float(after)
    call.store.put(call.key, text)
    return replies.bulk(text)


def _float(text: bytes) -> Fraction | None:
    """The number; None for infinity. Raises Refusal."""
    value = parse_float(text)
    if value is None and not is_infinite(text):
        raise refuse(b"value is not a valid float")
    return value
