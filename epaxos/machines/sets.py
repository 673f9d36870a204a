"""Operations on sets. Members are listed, and taken out by SPOP, in the order of their arrival."""

from __future__ import annotations

from itertools import islice

from epaxos import replies
from epaxos.machines.glob import matcher
from epaxos.machines.keys import parse_cursor, scan_options, scan_reply
from epaxos.machines.operations import SYNTAX_ERROR, Call
from epaxos.machines.store import Set, refuse


def sadd(call: Call) -> bytes:
    """SADD: how many members are new."""
    found = call.store.need(call.key, Set)
    before = len(found)
    found.update(dict.fromkeys(call.words))
    if len(found) > before:
        call.store.touch(call.key)
    return replies.integer(len(found) - before)


def srem(call: Call) -> bytes:
    """SREM: how many members went."""
    found = call.value(Set)
    before = len(found)
    for member in call.words:
        found.pop(member, None)
    if len(found) < before:
        call.store.shrunk(call.key, found)
    return replies.integer(before - len(found))


def sismember(call: Call) -> bytes:
    """SISMEMBER."""
    return replies.integer(call.words[0] in call.value(Set))


def smismember(call: Call) -> bytes:
    """SMISMEMBER."""
    found = call.value(Set)
    return replies.array(replies.integer(member in found) for member in call.words)


def smembers(call: Call) -> bytes:
    """SMEMBERS."""
    return replies.members(list(call.value(Set)), 3 if call.typed else 2)


def scard(call: Call) -> bytes:
    """SCARD."""
    return replies.integer(len(call.value(Set)))


def spop(call: Call) -> bytes:
    """SPOP: the members that came first, since every replica must take the same."""
    if len(call.words) > 1:
        raise refuse(SYNTAX_ERROR)
    if not call.words:
        gone = _pop(call, 1)
        return replies.bulk(gone[0]) if gone else replies.NIL
    outside = b"value is out of range, must be positive"
    count = call.integer(0, outside)
    if count < 0:
        raise refuse(outside)
    return replies.members(_pop(call, count), 3 if call.typed else 2)


def _pop(call: Call, count: int) -> list[bytes]:
    found = call.value(Set)
    gone = list(islice(found, min(count, len(found))))
    for member in gone:
        del found[member]
    if gone:
        call.store.shrunk(call.key, found)
    return gone


def sscan(call: Call) -> bytes:
    """SSCAN: everything in one page, as Redis does for small sets."""
    parse_cursor(call.words[0])
    found = call.store.get(call.key, Set)
    if found is None:
        return scan_reply(0, ())
    matches = matcher(scan_options(call.words[1:], kinds=False).match)
    return scan_reply(0, [member for member in found if matches(member)])
