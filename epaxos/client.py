"""The native client: one connection to the nearest replica, shared by any number of tasks.

    async with epaxos.Client("cluster.toml", near="CA") as kv:
        await kv.set("k", "v")

Commands go out in the order in which they were issued, without waiting for one another's replies. A command is sent
once: when the connection is lost behind it, its outcome is `Unknown`. One that was not sent yet goes to the next
replica of the list, which is the order of `cluster.toml` rotated to begin at `near`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

import hiredis
import trio

from epaxos.config import Address, Config
from epaxos.errors import EpaxosError, ProtocolError, Rejected, Unknown

Word = str | bytes | int
"""A word of a command; text is sent as UTF-8, integers in decimal."""

Key = str | bytes
Connect = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Opens a connection, or raises OSError."""

_READ_BYTES: Final = 64 * 1024
_NOTHING: Final = object()
_NOT_APPLIED: Final = ": not applied"
_UNCLEAR: Final = ": may or may not have been applied"
_TURNED_AWAY: Final = "ERR max number of clients reached"

T = TypeVar("T")
K = TypeVar("K", str, bytes)


class ResponseError(EpaxosError):
    """The command is wrong, in the words of Redis; it had no effect. `code` is the first of them."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


async def open_tcp(address: Address) -> trio.abc.Stream:
    """A TCP connection to a replica."""
    return await trio.open_tcp_stream(address.host, address.port)


class _Call:
    """One command and what became of it."""

    __slots__ = ("data", "done", "outcome")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = trio.Event()
        self.outcome: Any = _NOTHING
        """The reply, or an exception; `_NOTHING` once `done` means that it was not sent."""

    def settle(self, outcome: Any) -> None:
        self.outcome = outcome
        self.done.set()


class _Link:
    """One connection to one replica. Replies come in the order of the commands."""

    def __init__(self, name: str, stream: trio.abc.Stream) -> None:
        self.name = name
        self.lost = False
        self._stream = stream
        self._waiting: deque[_Call] = deque()
        """Not handed to the connection yet."""
        self._sent: deque[_Call] = deque()
        """Handed to the connection, in whole or in part: without a reply, nobody knows."""
        self._work = trio.Event()

    def put(self, call: _Call) -> None:
        """Send the command when its turn comes."""
        self._waiting.append(call)
        self._work.set()

    def withdraw(self, call: _Call) -> None:
        """Nobody waits for this command any more: it is not sent, if it was not yet."""
        if call in self._waiting:
            self._waiting.remove(call)

    async def run(self) -> None:
        """Send and receive until the connection is lost, then settle every command."""
        why: BaseException | None = None
        try:
            async with self._stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._send, nursery.cancel_scope)
                why = await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self.lost = True
            for call in self._sent:
                unknown = Unknown(f"the connection to {self.name} was lost after the command was sent")
                unknown.__cause__ = why
                call.settle(unknown)
            for call in self._waiting:
                call.settle(_NOTHING)

    async def _send(self, scope: trio.CancelScope) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            data = b"".join(call.data for call in self._waiting)
            self._sent += self._waiting
            self._waiting.clear()
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                scope.cancel()
                return

    async def _receive(self) -> BaseException | None:
        """Match replies with commands; returns why there are no more."""
        reader = hiredis.Reader(notEnoughData=_NOTHING, errors="replace")
        while True:
            try:
                received = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError as error:
                return error
            if not received:
                return None
            reader.feed(bytes(received))
            try:
                while (reply := reader.gets()) is not _NOTHING:
                    if isinstance(reply, hiredis.ReplyError) and str(reply) == _TURNED_AWAY:
                        self._unsend()
                        return None
                    if not self._sent:
                        return ProtocolError("a reply to no command", peer=self.name)
                    self._sent.popleft().settle(_failure(reply) if isinstance(reply, hiredis.ReplyError) else reply)
            except hiredis.ProtocolError as error:
                return ProtocolError(str(error), peer=self.name)

    def _unsend(self) -> None:
        """The replica reads nothing from this connection: what was sent to it may be sent elsewhere."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


def _failure(reply: hiredis.ReplyError) -> EpaxosError:
    """The exception that an error reply stands for (see `gateway/replies.py`)."""
    text = str(reply)
    code, _, why = text.partition(" ")
    if code == "UNKNOWN":
        return Unknown(why.removesuffix(_UNCLEAR))
    why = why.removesuffix(_NOT_APPLIED)
    if code == "BUSY":
        return Rejected("busy", why)
    if code == "NOQUORUM":
        return Rejected("no_quorum", why)
    if code == "REJECTED":
        reason, _, detail = why.partition(": ")
        return Rejected(reason, detail) if reason in Rejected.REASONS else Rejected("closed", why)
    return ResponseError(text)


def encode(words: tuple[Word, ...]) -> bytes:
    """A command in the form of an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, str | bytes | int):
            raise TypeError(f"a word of a command is bytes, text or an integer, not {type(word).__name__}")
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _expect(kind: type[T], reply: object) -> T:
    if not isinstance(reply, kind):
        raise ProtocolError(f"a reply of type {type(reply).__name__} where {kind.__name__} was expected")
    return reply


def _expect_value(reply: object) -> bytes | None:
    return None if reply is None else _expect(bytes, reply)


class Client:
    """A client of a cluster, as an asynchronous context manager. Its methods may be called from many tasks at once.

    Keys and values are bytes or text (sent as UTF-8); values come back as bytes, None when there is none.

    Every method raises `Rejected` when the command was certainly not applied, `Unknown` when it may have been,
    `ResponseError` when it is wrong, `ProtocolError` when a reply makes no sense. A cancelled command's outcome is
    unknown too, unless it was waiting to be sent; it is never sent again.
    """

    def __init__(
        self,
        config: Config | str | Path,
        near: str | None = None,
        *,
        connect: Connect = open_tcp,
        connect_timeout_ms: int = 3_000,
    ) -> None:
        """`config` is the cluster or the path of its file; `near` names the replica to prefer, the first if None.

        A replica that does not accept a connection within `connect_timeout_ms` is passed over. Raises ConfigError.
        """
        self._config = config if isinstance(config, Config) else Config.load(config)
        self._next = 0 if near is None else self._config.id_of(near)
        """Where to look for a replica when there is no connection."""
        self._connect = connect
        self._connect_timeout_ms = connect_timeout_ms
        self._nursery_manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None
        self._link: _Link | None = None
        self._connecting = trio.Lock()

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        nursery, self._nursery = self._nursery, None
        assert nursery is not None
        nursery.cancel_scope.cancel()
        await self._nursery_manager.__aexit__(None, None, None)  # what the body raised passes by, as it is

    async def execute(self, *words: Word) -> Any:
        """Any command, by its words; its reply as int, bytes, None or a list of these."""
        if not words:
            raise ValueError("a command has at least one word")
        call = _Call(encode(words))
        for _ in range(self._config.n + 1):
            link = await self._connected()
            link.put(call)
            try:
                await call.done.wait()
            except BaseException:
                link.withdraw(call)
                raise
            if isinstance(call.outcome, EpaxosError):
                raise call.outcome
            if call.outcome is not _NOTHING:
                return call.outcome
            call.done = trio.Event()
        raise Rejected("closed", "every connection was lost before the command was sent")

    async def _connected(self) -> _Link:
        """The connection in use, or a new one to the nearest replica that can be reached, from the next one on."""
        async with self._connecting:
            if self._nursery is None:
                raise Rejected("closed", "the client is used outside of its `async with`")
            if self._link is not None and not self._link.lost:
                return self._link
            failures = []
            for turn in range(self._config.n):
                at = (self._next + turn) % self._config.n
                replica = self._config.replicas[at]
                try:
                    with trio.fail_after(self._connect_timeout_ms / 1_000):
                        stream = await self._connect(replica.client)
                except (OSError, trio.TooSlowError) as error:
                    failures.append(f"{replica.name}: {error or 'no answer'}")
                    continue
                self._next = (at + 1) % self._config.n
                self._link = _Link(replica.name, stream)
                self._nursery.start_soon(self._link.run)
                return self._link
            raise Rejected("closed", f"no replica can be reached ({'; '.join(failures)})")

    # ------------------------------------------------------------------------------------------------------- commands

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
