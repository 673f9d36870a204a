"""Operations on lists."""

from __future__ import annotations

from itertools import islice

from epaxos import replies
from epaxos.machines.operations import Call, wrong_arity
from epaxos.machines.store import List, refuse


def lpush(call: Call) -> bytes:
    """LPUSH: the new length."""
    found = call.store.need(call.key, List)
    found.extendleft(call.words)
    return _grown(call, found)


def rpush(call: Call) -> bytes:
    """RPUSH: the new length."""
    found = call.store.need(call.key, List)
    found.extend(call.words)
    return _grown(call, found)


def lpushx(call: Call) -> bytes:
    """LPUSHX: only to a list that is there."""
    return lpush(call) if call.value(List) else replies.integer(0)


def rpushx(call: Call) -> bytes:
    """RPUSHX: only to a list that is there."""
    return rpush(call) if call.value(List) else replies.integer(0)


def _grown(call: Call, found: List) -> bytes:
    call.store.touch(call.key)
    return replies.integer(len(found))


def lpop(call: Call) -> bytes:
    """LPOP."""
    return _pop(call, "lpop")


def rpop(call: Call) -> bytes:
    """RPOP."""
    return _pop(call, "rpop")


def _pop(call: Call, name: str) -> bytes:
    if len(call.words) > 1:
        raise wrong_arity(name)
    outside = b"value is out of range, must be positive"
    count = call.integer(0, outside) if call.words else 1
    if count < 0:
        raise refuse(outside)
    found = call.value(List)
    if not found:
        return replies.NIL_ARRAY if call.words else replies.NIL
    take = found.popleft if name == "lpop" else found.pop
    gone = [take() for _ in range(min(count, len(found)))]
    if gone:
        call.store.shrunk(call.key, found)
    return replies.array(map(replies.bulk, gone)) if call.words else replies.bulk(gone[0])


def llen(call: Call) -> bytes:
    """LLEN."""
    return replies.integer(len(call.value(List)))


def lrange(call: Call) -> bytes:
    """LRANGE."""
    first, last = call.integer(0), call.integer(1)
    found = call.value(List)
    first, end = _bounds(first, last, len(found))
    return replies.array(map(replies.bulk, islice(found, first, end)))


def lindex(call: Call) -> bytes:
    """LINDEX."""
    found = call.value(List)
    if not found:
        return replies.NIL
    at = call.integer(0)
    return replies.bulk(found[at] if -len(found) <= at < len(found) else None)


def lset(call: Call) -> bytes:
    """LSET."""
    found = call.value(List)
    if not found:
        raise refuse(b"no such key")
    at = call.integer(0)
    if not -len(found) <= at < len(found):
        raise refuse(b"index out of range")
    found[at] = call.words[1]
    call.store.touch(call.key)
    return replies.OK


def ltrim(call: Call) -> bytes:
    """LTRIM."""
    first, last = call.integer(0), call.integer(1)
    found = call.value(List)
    if not found:
        return replies.OK
    first, end = _bounds(first, last, len(found))
    kept = list(islice(found, first, end))
    found.clear()
    found.extend(kept)
    call.store.shrunk(call.key, found)
    return replies.OK


def _bounds(first: int, last: int, length: int) -> tuple[int, int]:
    """As the bounds of a slice: both ends are included, and count from the right when they are negative."""
    first = max(first + length, 0) if first < 0 else min(first, length)
    last = last + length if last < 0 else min(last, length - 1)
    return first, max(last + 1, first)
