"""The keyspace of the key-value machine: typed values under keys, the marks of those who watch, an order for SCAN.

A string is `bytes`. The other types keep what they hold in the order in which it was put in, which conflicting commands
agree on; nothing here ever iterates in an order of hashes. An empty hash, set or list does not exist: its key goes
with its last member.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import deque
from itertools import islice
from typing import Final, TypeVar

from epaxos import replies


class Hash(dict[bytes, bytes]):
    """field -> value, in the order of the fields' arrival."""


class Set(dict[bytes, None]):
    """The members, in the order of their arrival."""


class List(deque[bytes]):
    """The elements, from left to right."""


Value = bytes | Hash | Set | List
T = TypeVar("T", bytes, Hash, Set, List)

NAMES: Final[dict[type[Value], bytes]] = {bytes: b"string", Hash: b"hash", Set: b"set", List: b"list"}
"""What TYPE says."""

MAX_VALUE_BYTES: Final = 1 << 25
"""The longest string that a command makes. Not a setting: every replica must refuse the same command."""

MAX_MARKS: Final = 1024
"""A key is watched by so many connections; one more takes the place of the oldest, whose EXEC will be refused."""

Mark = dict[bytes, None]
"""Who watches a key, in the order in which they began."""


class Refusal(Exception):
    """The command is wrong: `reply` says why. Raised before anything was changed."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def refuse(why: bytes) -> Refusal:
    """The refusal with this error, without the code ERR."""
    return Refusal(replies.error(b"ERR " + why))


WRONG_TYPE: Final = replies.error(b"WRONGTYPE Operation against a key holding the wrong kind of value")


class Store:
    """The keys. What changes one goes through `put`, `drop` or `touch`, so that those who watch it learn of it."""

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self.marks: dict[bytes, Mark] = {}
        """Who watches which key. A change of the key takes its marks away."""
        self.deletions = 0
        """How often a key went, in this life."""
        self._order = _Order(0)

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The value of `key`, or None without one. Raises Refusal when it is of another type."""
        value = self.values.get(key)
        if value is None or isinstance(value, kind):
            return value
        raise Refusal(WRONG_TYPE)

    def need(self, key: bytes, kind: type[T]) -> T:
        """As `get`, and an empty value is there afterwards if there was none; what fills it must call `touch`."""
        value = self.get(key, kind)
        if value is None:
            value = self.values[key] = kind()
        return value

    def put(self, key: bytes, value: Value) -> None:
        """Set the value of `key`, whatever it was."""
        self.values[key] = value
        self.touch(key)

    def drop(self, key: bytes) -> bool:
        """Take `key` out; was it there?"""
        if self.values.pop(key, None) is None:
            return False
        self.dropped(key)
        return True

    def dropped(self, key: bytes) -> None:
        """`key` was taken out of `values`."""
        self.deletions += 1
        self.touch(key)

    def touch(self, key: bytes) -> None:
        """The value of `key` was changed, or is to be seen as changed."""
        if self.marks:
            self.marks.pop(key, None)

    def shrunk(self, key: bytes, value: Hash | Set | List) -> None:
        """Something was taken out of `value`: without anything left it goes."""
        if value:
            self.touch(key)
        else:
            self.drop(key)

    def clear(self) -> None:
        """Take everything out."""
        for key in self.values.keys() & self.marks.keys():
            self.touch(key)
        self.deletions += len(self.values)
        self.values.clear()

    def replace(self, values: dict[bytes, Value], marks: dict[bytes, Mark]) -> None:
        """Have these values and marks instead of what there is."""
        self.values.clear()
        self.values.update(values)
        self.marks.clear()
        self.marks.update(marks)
        self._order = _Order(self.deletions)

    # -- watching

    def mark(self, key: bytes, who: bytes) -> None:
        """`who` watches `key` from now on."""
        marks = self.marks.setdefault(key, {})
        marks.setdefault(who)
        if len(marks) > MAX_MARKS:
            del marks[next(iter(marks))]

    def unmark(self, key: bytes, who: bytes) -> bool:
        """`who` watches `key` no more; did it until now, and nobody has changed the key since?"""
        marks = self.marks.get(key, {})
        if who not in marks:
            return False
        del marks[who]
        if not marks:
            del self.marks[key]
        return True

    # -- all keys in an order

    def page(self, first: int, count: int) -> tuple[list[bytes], int]:
        """About `count` keys whose place is `first` or behind it, in order, and where to go on: 0 behind the last."""
        return self._order.page(self.values, self.deletions, first, count)


class _Order:
    """The keys by place: a hash of 64 bits, so that a cursor is a number and no key has to be remembered.

    The order is a function of the keys alone. What is kept here only saves sorting them for every page: keys that
    went are passed over, keys that came stand at the end of the dictionary.
    """

    def __init__(self, deletions: int) -> None:
        self._sorted: list[tuple[int, bytes]] = []
        self._keys = 0
        self._deletions = deletions

    def page(self, values: dict[bytes, Value], deletions: int, first: int, count: int) -> tuple[list[bytes], int]:
        """See `Store.page`."""
        self._follow(values, deletions)
        keys: list[bytes] = []
        last = -1
        for at in range(bisect_left(self._sorted, (first, b"")), len(self._sorted)):
            place, key = self._sorted[at]
            if len(keys) >= count and place != last:
                return keys, place
            if key in values:
                keys.append(key)
                last = place
        return keys, 0

    def _follow(self, values: dict[bytes, Value], deletions: int) -> None:
        deleted = deletions - self._deletions
        created = len(values) - self._keys + deleted
        if created + deleted > len(self._sorted) // 8 or len(self._sorted) > 2 * len(values):
            self._sorted = sorted((_place(key), key) for key in values)
        else:
            for key in islice(reversed(values), created):
                entry = (_place(key), key)
                at = bisect_left(self._sorted, entry)
                if at == len(self._sorted) or self._sorted[at] != entry:
                    insort(self._sorted, entry)
        self._keys, self._deletions = len(values), deletions


def _place(key: bytes) -> int:
    """From 1: a cursor of 0 means the beginning, and the end."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") or 1
