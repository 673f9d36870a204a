"""Which replica a client talks to: the nearest one that can be reached, over one connection at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import trio

from epaxos.client.link import NOTHING, Call, Link, Word, encode
from epaxos.config import Address, Config
from epaxos.errors import EpaxosError, Rejected

Connect = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Opens a connection, or raises OSError."""


async def open_tcp(address: Address) -> trio.abc.Stream:
    """A TCP connection to a replica."""
    return await trio.open_tcp_stream(address.host, address.port)


class Route:
    """The way to the cluster."""

    def __init__(self, config: Config, near: str | None, *, connect: Connect, connect_timeout_ms: int) -> None:
        self._config = config
        self._next = 0 if near is None else config.id_of(near)
        """Where to look for a replica when there is no connection."""
        self._connect = connect
        self._connect_timeout_ms = connect_timeout_ms
        self._running = AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        self._connecting = trio.Lock()

    async def open(self) -> None:
        """From here on commands may be asked."""
        self._nursery = await self._running.enter_async_context(trio.open_nursery())

    async def close(self) -> None:
        """End the connection; the outcome of what is under way is unknown."""
        nursery, self._nursery = self._nursery, None
        assert nursery is not None
        nursery.cancel_scope.cancel()
        await self._running.aclose()

    @property
    def connected(self) -> bool:
        """Is there a connection?"""
        return self._link is not None and not self._link.lost

    def turn_away(self) -> None:
        """The replica in use could not say what became of a command: further ones go to the next."""
        link, self._link = self._link, None
        if link is not None:
            link.retire()

    async def ask(self, words: tuple[Word, ...]) -> Any:
        """Send a command once, and wait for its reply. Raises what the reply or its absence means."""
        call = Call(encode(words))
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
            if call.outcome is not NOTHING:
                return call.outcome
            call.done = trio.Event()
        raise Rejected("closed", "every connection was lost before the command was sent")

    async def _connected(self) -> Link:
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
                if self._nursery is None:
                    await trio.aclose_forcefully(stream)
                    raise Rejected("closed", "the client was left while it connected")
                self._next = (at + 1) % self._config.n
                self._link = Link(replica.name, stream)
                if self._config.password is not None:
                    self._link.put(Call(encode(("AUTH", self._config.password))))
                self._nursery.start_soon(self._link.run)
                return self._link
            raise Rejected("closed", f"no replica can be reached ({'; '.join(failures)})")
