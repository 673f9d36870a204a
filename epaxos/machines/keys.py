"""Operations on keys of any type, and on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from epaxos import replies
from epaxos.machines.glob import matcher
from epaxos.machines.numbers import parse_i64
from epaxos.machines.operations import NOT_AN_INTEGER, SYNTAX_ERROR, Call
from epaxos.machines.store import NAMES, refuse

_PAGE: Final = 10
"""About so many keys a page of SCAN, unless COUNT says otherwise."""
_CURSOR_MAX: Final = (1 << 64) - 1
_CURSOR_DIGITS: Final = 21
"""So many digits, the first not zero, are beyond every cursor."""


def type_(call: Call) -> bytes:
    """TYPE."""
    value = call.store.values.get(call.key)
    return replies.status(b"none" if value is None else NAMES[type(value)])


def rename(call: Call) -> bytes:
    """RENAME."""
    _move(call, replace=True)
    return replies.OK


def renamenx(call: Call) -> bytes:
    """RENAMENX."""
    return replies.integer(_move(call, replace=False))


def _move(call: Call, *, replace: bool) -> bool:
    """Was the value moved? It was not if it was not to replace another."""
    source, target = call.keys
    value = call.store.values.get(source)
    if value is None:
        raise refuse(b"no such key")
    if source == target:
        return replace
    if not replace and target in call.store.values:
        return False
    call.store.drop(target)
    call.store.drop(source)
    call.store.put(target, value)
    return True


def dbsize(call: Call) -> bytes:
    """DBSIZE."""
    return replies.integer(len(call.store.values))


def keys(call: Call) -> bytes:
    """KEYS, in the order of the keys."""
    matches = matcher(call.words[0])
    return replies.array(replies.bulk(key) for key in sorted(call.store.values) if matches(key))


def randomkey(call: Call) -> bytes:
    """RANDOMKEY: the first in the order of SCAN, since every replica must find the same one."""
    found, _ = call.store.page(0, 1)
    return replies.bulk(found[0]) if found else replies.NIL


def flush(call: Call) -> bytes:
    """FLUSHALL, FLUSHDB."""
    if call.words and (len(call.words) > 1 or call.words[0].lower() not in (b"async", b"sync")):
        raise refuse(SYNTAX_ERROR)
    call.store.clear()
    return replies.OK


# ---------------------------------------------------------------------------------------------------------- scanning


class Wanted(NamedTuple):
    """What a scan asks for."""

    keys: int
    match: bytes
    kind: bytes | None


def scan(call: Call) -> bytes:
    """SCAN: a key that is there all the time is returned, and none twice."""
    cursor = parse_cursor(call.words[0])
    wanted = scan_options(call.words[1:], kinds=True)
    found, next_ = call.store.page(cursor, wanted.keys)
    matches = matcher(wanted.match)
    shown = [key for key in found if matches(key)]
    if wanted.kind is not None:
        shown = [key for key in shown if NAMES[type(call.store.values[key])] == wanted.kind]
    return scan_reply(next_, shown)


def scan_reply(next_: int, found: Sequence[bytes]) -> bytes:
    """A page, and where the next begins."""
    return replies.array((replies.bulk(b"%d" % next_), replies.array(map(replies.bulk, found))))


def parse_cursor(text: bytes) -> int:
    """A cursor. Raises Refusal."""
    if not text:
        return 0
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    value = int(digits.lstrip(b"0")[:_CURSOR_DIGITS] or b"0") if digits.isdigit() else _CURSOR_MAX + 1
    if value > _CURSOR_MAX:
        raise refuse(b"invalid cursor")
    return (-value if text[:1] == b"-" else value) & _CURSOR_MAX


def scan_options(words: Sequence[bytes], *, kinds: bool) -> Wanted:
    """What stands behind the cursor; TYPE only where there are `kinds`. Raises Refusal."""
    wanted = Wanted(_PAGE, b"*", None)
    for at in range(0, len(words), 2):
        option = words[at].lower()
        if at + 1 == len(words) or option not in (b"count", b"match", b"type") or (option == b"type" and not kinds):
            raise refuse(SYNTAX_ERROR)
        value = words[at + 1]
        if option == b"count":
            count = parse_i64(value)
            if count is None:
                raise refuse(NOT_AN_INTEGER)
            if count < 1:
                raise refuse(SYNTAX_ERROR)
            wanted = wanted._replace(keys=count)
        else:
            wanted = wanted._replace(match=value) if option == b"match" else wanted._replace(kind=value.lower())
    return wanted
