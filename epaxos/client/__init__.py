"""The native client: the nearest replica, and every command exactly once.

    async with epaxos.Client("cluster.toml", near="CA") as kv:
        await kv.set("k", "v")

Commands go out in the order in which they were issued, without waiting for one another's replies, over one connection.
When that is lost, or the replica refuses a command for reasons of its own, or cannot say what became of it, the client
asks the next replica of the list, which is the order of `cluster.toml` rotated to begin at `near`, and comes back to
`near` once it serves again. Commands that only read are asked again as they are, others in a session
(`epaxos/session.py`), so that they take effect once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trio

from epaxos.client.commands import Commands as Commands
from epaxos.client.link import Applied, ResponseError as ResponseError, Word as Word, encode as encode
from epaxos.client.route import QUESTION, Connect, Route, open_tcp
from epaxos.config import Config
from epaxos.errors import Rejected, Unknown
from epaxos.gateway.table import TABLE, Spec
from epaxos.session import WINDOW, Numbers

_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_GOODBYE_S: Final = 1.0
"""How long a client that leaves waits for its session to be closed; otherwise idleness ends it."""


class _Session:
    """A session of this client, whose numbers are waited for: there are `WINDOW` above the floor."""

    def __init__(self, handle: bytes) -> None:
        self.handle = handle
        self._numbers = Numbers()
        self._room = trio.Semaphore(WINDOW)

    @property
    def floor(self) -> int:
        """Everything up to here has its outcome."""
        return self._numbers.floor

    @property
    def last(self) -> int:
        """The highest number that was taken."""
        return self._numbers.last

    async def take(self) -> int:
        """A number of its own for a command, as soon as there is room; first come, first served."""
        await self._room.acquire()
        return self._numbers.take()

    def done(self, number: int) -> None:
        """The outcome of this number is known, or of no interest."""
        before = self.floor
        self._numbers.done(number)
        for _ in range(before, self.floor):
            self._room.release()


class Client(Commands):
    """A client of a cluster, as an asynchronous context manager. Its methods may be called from many tasks at once.

    A cancelled command's outcome is unknown, unless it was waiting to be sent. At most 1024 commands that write are
    under way; further ones wait, for as long as their callers do.
    """

    def __init__(
        self,
        config: Config | str | Path,
        near: str | None = None,
        *,
        retry_ms: int = 30_000,
        fifo: bool = False,
        connect: Connect = open_tcp,
        connect_timeout_ms: int = 3_000,
    ) -> None:
        """`config` is the cluster or the path of its file; `near` names the replica to prefer, the first if None.

        An unknown outcome is asked after for `retry_ms`, and then raised as `Unknown`; so long at most is it too that a
        busy replica is asked again, and that other replicas are asked what one refuses for reasons of its own. With 0
        no session is opened, nothing is sent twice, and what happened comes at once. A replica that does not accept a
        connection within `connect_timeout_ms` is passed over.

        With `fifo`, commands that read or write take effect in the order in which they were issued, or not at all: each
        waits for the outcome of the one before, and one whose outcome stayed unknown has no effect any later.

        Raises ConfigError, and ValueError for `fifo` without a session.
        """
        if fifo and not retry_ms:
            raise ValueError("fifo takes a session, and with retry_ms=0 there is none")
        self._route = Route(Config.of(config), near, connect=connect, connect_timeout_ms=connect_timeout_ms)
        self._retry_s = retry_ms / 1_000
        self._fifo = fifo
        self._turn = trio.Lock()
        """Of a FIFO client's commands, first come, first served."""
        self._session: _Session | None = None
        self._opening = trio.Lock()

    async def __aenter__(self) -> Self:
        await self._route.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._session is not None and self._route.connected:
                with trio.move_on_after(_GOODBYE_S):
                    await self._close(self._session)
        finally:  # also when it is cancelled
            await self._route.close()

    async def execute(self, *words: Word) -> Any:
        """Any command, by its words; its reply as int, bytes, None or a list of these."""
        if not words:
            raise ValueError("a command has at least one word")
        flags = _flags(words[0])
        if _is_of_a_connection(words[0]):
            raise ValueError(f"{words[0]!r} changes a connection, and everybody who uses this client shares one")
        if self._fifo and ("readonly" in flags or "write" in flags):
            async with self._turn:
                return await self._in_order(words, harmless="readonly" in flags)
        if "readonly" in flags and self._retry_s:
            return await self._ask_again(words)
        if "write" in flags and self._retry_s:
            return await self._exactly_once(words)
        return await self._route.ask(words)

    # -- asking again

    async def _ask_again(self, words: tuple[Word, ...]) -> Any:
        """A command that may be applied any number of times."""
        return await self._insist(lambda: words, harmless=True)

    async def _insist(self, words: Callable[[], tuple[Word, ...]], *, harmless: bool) -> Any:
        """Ask until something is certain or the time is over. Of a command that is `harmless` no copy is a doubt."""
        end_s = trio.current_time() + self._retry_s
        pause_s = _PAUSE_S
        doubt: Unknown | None = None
        while True:
            failure: Rejected | Unknown
            try:
                return await self._route.ask(words(), until_s=end_s)
            except Applied:
                raise
            except Unknown as unknown:
                failure = unknown
                doubt = None if harmless else unknown
            except Rejected as rejected:
                if doubt is None and rejected.reason != "busy":
                    raise
                if rejected.reason == "session_closed":
                    raise Unknown("the session ended before the outcome was known") from rejected
                failure = doubt or rejected
            if trio.current_time() + pause_s >= end_s:
                raise failure
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def _in_order(self, words: tuple[Word, ...], *, harmless: bool) -> Any:
        """The next command of a FIFO client; one that is `harmless` is made anew when its result is not kept."""
        try:
            return await self._exactly_once(words)
        except Applied:
            if not harmless:
                raise
            return await self._exactly_once(words)

    async def _exactly_once(self, words: tuple[Word, ...]) -> Any:
        """A command that takes effect once, however often it is sent."""
        session = await self._in_session()
        try:
            return await self._numbered(session, words)
        except Rejected as error:
            if error.reason != "session_closed":
                raise
        # It had ended before anything of this command was sent in it.
        self._forget(session)
        return await self._numbered(await self._in_session(), words)

    async def _numbered(self, session: _Session, words: tuple[Word, ...]) -> Any:
        if self._fifo:
            await self._close_gap(session)
        number = await session.take()
        replied = False
        try:
            reply = await self._call(session, number, words)
            replied = True
            return reply
        finally:
            if replied or not self._fifo:
                session.done(number)

    async def _close_gap(self, session: _Session) -> None:
        """In a FIFO session a number waits for the one before to take effect. When that had no reply, a question gets
        its number: either the question takes effect in its place, or it is a copy of what did."""
        if session.floor == session.last:
            return
        try:
            await self._call(session, session.last, QUESTION)
        except (ResponseError, Applied):  # of the command that took effect
            pass
        except Unknown as unknown:
            raise Rejected("out_of_order", "what became of the command before is not known") from unknown
        session.done(session.last)

    async def _call(self, session: _Session, number: int, words: tuple[Word, ...]) -> Any:
        return await self._insist(
            lambda: ("EPAXOS", "CALL", session.handle, number, session.floor, *words), harmless=False
        )

    # -- the session

    async def _in_session(self) -> _Session:
        async with self._opening:
            if self._session is None:
                kind = ("FIFO",) if self._fifo else ()
                self._session = _Session(await self._ask_again(("EPAXOS", "SESSION", "OPEN", *kind)))
            return self._session

    def _forget(self, session: _Session) -> None:
        if self._session is session:
            self._session = None

    async def _close(self, session: _Session) -> None:
        try:
            await self._route.ask(("EPAXOS", "SESSION", "CLOSE", session.handle))
        except (Rejected, Unknown):
            return


_OF_A_CONNECTION: Final = frozenset({b"hello", b"quit", b"reset"})


def _spec(word: Word) -> Spec | None:
    name = word if isinstance(word, bytes) else str(word).encode()
    return TABLE.get(name.lower())


def _flags(word: Word) -> tuple[str, ...]:
    spec = _spec(word)
    return spec.flags if spec is not None else ()


def _is_of_a_connection(word: Word) -> bool:
    """Does the command mean a connection, as those of transactions do?"""
    spec = _spec(word)
    return spec is not None and (spec.group == "transactions" or spec.name.encode() in _OF_A_CONNECTION)
