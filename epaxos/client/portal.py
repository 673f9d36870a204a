"""A thread with a trio client in it, for programs that run something else: asyncio, or nothing.

The client, its connection and its session live in that thread, whatever many threads or loops ask of it.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import trio

from epaxos.client import Client
from epaxos.client.link import Word
from epaxos.config import Config
from epaxos.errors import Rejected, Unknown

_OUTSIDE: Final = "the client is used outside of its `with`"


class Portal:
    """One client in a thread of its own, from `start` to `stop`."""

    def __init__(self, config: Config | str | Path, near: str | None, retry_ms: int, fifo: bool) -> None:
        """As `Client`. Raises ConfigError."""
        self._client = Client(config, near, retry_ms=retry_ms, fifo=fifo)
        self._thread = threading.Thread(target=self._run, name="epaxos-client", daemon=True)
        self._ready: Future[None] = Future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._open: set[Future[Any]] = set()
        self._fifo = fifo
        self._in_order: deque[tuple[tuple[Word, ...], Future[Any], trio.CancelScope]] = deque()
        """What a FIFO client has still to ask; somebody waits for each of them."""
        self._work = trio.Event()

    def start(self) -> None:
        """Start the thread; returns when commands may be asked."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Close the client and end the thread; what is under way has an unknown outcome."""
        self._soon(self._end)
        self._thread.join()

    def ask(self, words: tuple[Word, ...]) -> Future[Any]:
        """Any command; what comes of it. A future that is cancelled leaves the outcome unknown."""
        future: Future[Any] = Future()
        if not self._soon(self._begin, words, future):
            future.set_exception(Rejected("closed", _OUTSIDE))
        return future

    # -- in the thread

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        try:
            async with self._client, trio.open_nursery() as self._nursery:
                if self._fifo:
                    self._nursery.start_soon(self._answer_in_order)
                self._token = trio.lowlevel.current_trio_token()
                self._ready.set_result(None)
                await trio.sleep_forever()
        finally:  # also when something is wrong with the client itself: whoever waits is not to wait for ever
            self._nursery = None
            for future in tuple(self._open):
                self._settle(future, Unknown("the client was closed before there was a reply"))

    def _soon(self, what: Any, *args: Any) -> bool:
        """Call `what(*args)` in the thread; is there one?"""
        if self._token is None:
            return False
        try:
            self._token.run_sync_soon(what, *args)
        except trio.RunFinishedError:
            return False
        return True

    def _begin(self, words: tuple[Word, ...], future: Future[Any]) -> None:
        if self._nursery is None:
            self._settle(future, Rejected("closed", _OUTSIDE))
            return
        scope = trio.CancelScope()
        future.add_done_callback(lambda _: self._soon(scope.cancel))
        self._open.add(future)
        if self._fifo:
            self._in_order.append((words, future, scope))
            self._work.set()
        else:
            self._nursery.start_soon(self._answer, words, future, scope)

    async def _answer_in_order(self) -> None:
        """One after the other: tasks that are started together run in any order."""
        while True:
            while self._in_order:
                await self._answer(*self._in_order.popleft())
            self._work = trio.Event()
            await self._work.wait()

    async def _answer(self, words: tuple[Word, ...], future: Future[Any], scope: trio.CancelScope) -> None:
        with scope:
            try:
                reply = await self._client.execute(*words)
            except Exception as error:  # noqa: BLE001  # whatever it is, its caller is told
                self._settle(future, error)
            else:
                self._settle(future, reply)
        if scope.cancelled_caught:
            self._open.discard(future)

    def _settle(self, future: Future[Any], outcome: Any) -> None:
        self._open.discard(future)
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _end(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
