"""The native client for programs that do not run trio. The methods are those of `Client`, by the same names.

async with epaxos.AsyncioClient("cluster.toml", near="CA") as kv:      # asyncio
    await kv.set("k", "v")

with epaxos.SyncClient("cluster.toml", near="CA") as kv:               # no event loop at all
    kv.set("k", "v")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from epaxos.client.commands import Commands
from epaxos.client.link import Word
from epaxos.client.portal import Portal
from epaxos.config import Config
from epaxos.errors import Unknown

P = ParamSpec("P")
T = TypeVar("T")


class AsyncioClient(Commands):
    """The client for asyncio, as an asynchronous context manager. A cancelled command's outcome is unknown."""

    def __init__(
        self, config: Config | str | Path, near: str | None = None, *, retry_ms: int = 30_000, fifo: bool = False
    ) -> None:
        """As `Client`."""
        self._portal = Portal(config, near, retry_ms, fifo)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._portal.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._portal.stop)

    async def execute(self, *words: Word) -> Any:
        """As `Client.execute`."""
        return await asyncio.wrap_future(self._portal.ask(words))


class _Waiting(Commands):
    """Commands whose coroutines never give way: they wait, in the thread that runs them."""

    def __init__(self, portal: Portal, timeout_s: float | None) -> None:
        self._portal = portal
        self._timeout_s = timeout_s

    async def execute(self, *words: Word) -> Any:
        """As `Client.execute`. Raises Unknown when there is no reply in time."""
        future = self._portal.ask(words)
        try:
            return future.result(self._timeout_s)
        except (TimeoutError, CancelledError):
            if future.cancel() or future.cancelled():
                raise Unknown(f"no reply within {self._timeout_s:g} s") from None
            return future.result()


def _waiting(
    method: Callable[Concatenate[Commands, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    """`method`, for those who wait."""

    @wraps(method)
    def wait(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked: Coroutine[Any, Any, T] = getattr(self.commands, method.__name__)(*args, **kwargs)
        try:
            asked.send(None)
        except StopIteration as finished:
            result: T = finished.value
            return result
        raise AssertionError(f"{method.__name__} gave way")

    return wait


class SyncClient:
    """The client for programs without an event loop, as a context manager; it may be used from many threads."""

    def __init__(
        self,
        config: Config | str | Path,
        near: str | None = None,
        *,
        retry_ms: int = 30_000,
        fifo: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """As `Client`. A command without a reply after `timeout_s` is `Unknown`; None waits as long as it takes."""
        self._portal = Portal(config, near, retry_ms, fifo)
        self.commands: Commands = _Waiting(self._portal, timeout_s)

    def __enter__(self) -> Self:
        self._portal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal.stop()

    execute = _waiting(Commands.execute)
    ping = _waiting(Commands.ping)
    get = _waiting(Commands.get)
    set = _waiting(Commands.set)
    setnx = _waiting(Commands.setnx)
    getset = _waiting(Commands.getset)
    delete = _waiting(Commands.delete)
    exists = _waiting(Commands.exists)
    incr = _waiting(Commands.incr)
    decr = _waiting(Commands.decr)
    incrby = _waiting(Commands.incrby)
    decrby = _waiting(Commands.decrby)
    append = _waiting(Commands.append)
    strlen = _waiting(Commands.strlen)
    mget = _waiting(Commands.mget)
    mset = _waiting(Commands.mset)
