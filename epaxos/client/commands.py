"""The commands of the key-value store as methods, whatever runs the program: trio, asyncio, or nothing.

Keys and values are bytes or text (sent as UTF-8); values come back as bytes, None when there is none.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, overload

from epaxos.client.link import Word
from epaxos.errors import ProtocolError

Key = str | bytes
T = TypeVar("T")
K = TypeVar("K", str, bytes)


def _expect(kind: type[T], reply: object) -> T:
    if not isinstance(reply, kind):
        raise ProtocolError(f"a reply of type {type(reply).__name__} where {kind.__name__} was expected")
    return reply


def _expect_value(reply: object) -> bytes | None:
    return None if reply is None else _expect(bytes, reply)


class Commands(abc.ABC):
    """What a client can ask.

    Every method raises `Rejected` when the command was certainly not applied, `Unknown` when it may have been,
    `ResponseError` when it is wrong, `ProtocolError` when a reply makes no sense.
    """

    @abc.abstractmethod
    async def execute(self, *words: Word) -> Any:
        """Any command, by its words; its reply as int, bytes, None or a list of these."""

    async def ping(self) -> None:
        """Ask the replica for a sign of life."""
        _expect(bytes, await self.execute("PING"))

    async def get(self, key: Key) -> bytes | None:
        """The value of `key`."""
        return _expect_value(await self.execute("GET", key))

    @overload
    async def set(
        self, key: Key, value: Word, *, nx: bool = False, xx: bool = False, get: Literal[False] = False
    ) -> bool: ...

    @overload
    async def set(
        self, key: Key, value: Word, *, nx: bool = False, xx: bool = False, get: Literal[True]
    ) -> bytes | None: ...

    async def set(
        self, key: Key, value: Word, *, nx: bool = False, xx: bool = False, get: bool = False
    ) -> bool | bytes | None:
        """Set the value of `key`: only if there is none (`nx`), only if there is one (`xx`).

        Returns whether it was set; with `get`, the value before.
        """
        options = [word for word, chosen in (("NX", nx), ("XX", xx), ("GET", get)) if chosen]
        before = _expect_value(await self.execute("SET", key, value, *options))
        return before if get else before is not None

    async def setnx(self, key: Key, value: Word) -> bool:
        """Set the value of `key` if there is none; whether it was set."""
        return _expect(int, await self.execute("SETNX", key, value)) == 1

    async def getset(self, key: Key, value: Word) -> bytes | None:
        """Set the value of `key`; the value before."""
        return _expect_value(await self.execute("GETSET", key, value))

    async def delete(self, *keys: Key) -> int:
        """Delete keys, all at one moment; how many there were."""
        return _expect(int, await self.execute("DEL", *keys))

    async def exists(self, *keys: Key) -> int:
        """How many of these keys have a value; one that is named twice counts twice."""
        return _expect(int, await self.execute("EXISTS", *keys))

    async def incr(self, key: Key) -> int:
        """Add one to the integer at `key`; the result."""
        return _expect(int, await self.execute("INCR", key))

    async def decr(self, key: Key) -> int:
        """Subtract one from the integer at `key`; the result."""
        return _expect(int, await self.execute("DECR", key))

    async def incrby(self, key: Key, increment: int) -> int:
        """Add to the integer at `key`; the result."""
        return _expect(int, await self.execute("INCRBY", key, increment))

    async def decrby(self, key: Key, decrement: int) -> int:
        """Subtract from the integer at `key`; the result."""
        return _expect(int, await self.execute("DECRBY", key, decrement))

    async def append(self, key: Key, value: Word) -> int:
        """Append to the value of `key`; its length afterwards, in bytes."""
        return _expect(int, await self.execute("APPEND", key, value))

    async def strlen(self, key: Key) -> int:
        """The length of the value of `key`, in bytes."""
        return _expect(int, await self.execute("STRLEN", key))

    async def mget(self, *keys: Key) -> list[bytes | None]:
        """The values of these keys at one moment."""
        return [_expect_value(value) for value in _expect(list, await self.execute("MGET", *keys))]

    async def mset(self, values: Mapping[K, Word]) -> None:
        """Set the values of all these keys at one moment."""
        words = [word for pair in values.items() for word in pair]
        _expect(bytes, await self.execute("MSET", *words))
