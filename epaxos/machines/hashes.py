"""Operations on hashes. Fields are listed in the order of their arrival."""

from __future__ import annotations

from epaxos import replies
from epaxos.machines.glob import matcher
from epaxos.machines.keys import parse_cursor, scan_options, scan_reply
from epaxos.machines.numbers import I64_MAX, I64_MIN, parse_i64
from epaxos.machines.operations import OVERFLOW, Call, wrong_arity
from epaxos.machines.store import Hash, refuse


def hset(call: Call) -> bytes:
    """HSET: how many fields are new."""
    return replies.integer(_put(call, "hset"))


def hmset(call: Call) -> bytes:
    """HMSET."""
    _put(call, "hmset")
    return replies.OK


def _put(call: Call, name: str) -> int:
    if len(call.words) % 2:
        raise wrong_arity(name)
    found = call.store.need(call.key, Hash)
    before = len(found)
    found.update(zip(call.words[::2], call.words[1::2], strict=True))
    call.store.touch(call.key)
    return len(found) - before


def hsetnx(call: Call) -> bytes:
    """HSETNX."""
    found = call.store.need(call.key, Hash)
    field, value = call.words
    if field in found:
        return replies.integer(0)
    found[field] = value
    call.store.touch(call.key)
    return replies.integer(1)


def hget(call: Call) -> bytes:
    """HGET."""
    return replies.bulk(call.value(Hash).get(call.words[0]))


def hmget(call: Call) -> bytes:
    """HMGET."""
    found = call.value(Hash)
    return replies.array(replies.bulk(found.get(field)) for field in call.words)


def hgetall(call: Call) -> bytes:
    """HGETALL."""
    pairs = [(replies.bulk(field), replies.bulk(value)) for field, value in call.value(Hash).items()]
    return replies.mapping(pairs, 3 if call.typed else 2)


def hkeys(call: Call) -> bytes:
    """HKEYS."""
    return replies.array(map(replies.bulk, call.value(Hash)))


def hvals(call: Call) -> bytes:
    """HVALS."""
    return replies.array(map(replies.bulk, call.value(Hash).values()))


def hlen(call: Call) -> bytes:
    """HLEN."""
    return replies.integer(len(call.value(Hash)))


def hexists(call: Call) -> bytes:
    """HEXISTS."""
    return replies.integer(call.words[0] in call.value(Hash))


def hstrlen(call: Call) -> bytes:
    """HSTRLEN."""
    return replies.integer(len(call.value(Hash).get(call.words[0], b"")))


def hdel(call: Call) -> bytes:
    """HDEL: how many fields went."""
    found = call.value(Hash)
    gone = sum(found.pop(field, None) is not None for field in call.words)
    if gone:
        call.store.shrunk(call.key, found)
    return replies.integer(gone)


def hincrby(call: Call) -> bytes:
    """HINCRBY."""
    field, increment = call.words[0], call.integer(1)
    before = parse_i64(call.value(Hash).get(field, b"0"))
    if before is None:
        raise refuse(b"hash value is not an integer")
    after = before + increment
    if not I64_MIN <= after <= I64_MAX:
        raise refuse(OVERFLOW)
    call.store.need(call.key, Hash)[field] = b"%d" % after
    call.store.touch(call.key)
    return replies.integer(after)


def hscan(call: Call) -> bytes:
    """HSCAN: everything in one page, as Redis does for small hashes."""
    parse_cursor(call.words[0])
    found = call.store.get(call.key, Hash)
    if found is None:
        return scan_reply(0, ())
    matches = matcher(scan_options(call.words[1:], kinds=False).match)
    return scan_reply(0, [word for pair in found.items() if matches(pair[0]) for word in pair])
