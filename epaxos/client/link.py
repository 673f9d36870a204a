"""One connection of a client to one replica: commands out, replies back in their order.

A command is handed to the connection once. When the connection is lost behind it, its outcome is `Unknown`; one that
was not handed over yet has none, and may go elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import hiredis
import trio

from epaxos.errors import EpaxosError, ProtocolError, Rejected, Unknown
from epaxos.session import NOT_KEPT

Word = str | bytes | int
"""A word of a command; text is sent as UTF-8, integers in decimal."""

NOTHING: Final = object()
"""The outcome of a call that was not sent."""

_READ_BYTES: Final = 64 * 1024
_NOT_APPLIED: Final = ": not applied"
_UNCLEAR: Final = ": may or may not have been applied"
_TURNED_AWAY: Final = "ERR max number of clients reached"


class ResponseError(EpaxosError):
    """The command is wrong, in the words of Redis; it had no effect. `code` is the first of them."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


class Applied(Unknown):
    """It was applied by an earlier copy, and nobody knows its result any more."""


class Call:
    """One command and what became of it."""

    __slots__ = ("data", "done", "outcome")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = trio.Event()
        self.outcome: Any = NOTHING
        """The reply, or an exception; `NOTHING` once it is `done` means that it was not sent."""

    def settle(self, outcome: Any) -> None:
        self.outcome = outcome
        self.done.set()


class Link:
    """One connection to one replica. Replies come in the order of the commands."""

    def __init__(self, name: str, stream: trio.abc.Stream) -> None:
        self.name = name
        self.lost = False
        self._stream = stream
        self._waiting: deque[Call] = deque()
        """Not handed to the connection yet."""
        self._sent: deque[Call] = deque()
        """Handed to the connection, in whole or in part: without a reply, nobody knows."""
        self._greeting: Call | None = None
        self._work = trio.Event()
        self._retired = False
        self._life = trio.CancelScope()

    def retire(self) -> None:
        """No further command is put; the connection is closed when those under way have their replies."""
        self._retired = True
        self._end_if_done()

    def end(self) -> None:
        """Close the connection now, whatever is under way."""
        self._life.cancel()

    def _end_if_done(self) -> None:
        if self._retired and not self._sent and not self._waiting:
            self.end()

    async def ask(self, data: bytes) -> Any:
        """Send the command when its turn comes; its `Call.outcome`. Cancelled before that, it is not sent."""
        call = self._put(data)
        try:
            await call.done.wait()
        except BaseException:
            if call in self._waiting:
                self._waiting.remove(call)
            raise
        return call.outcome

    def greet(self, data: bytes) -> None:
        """Send what shows the password, before anything else."""
        self._greeting = self._put(data)

    def meaning(self, outcome: EpaxosError) -> EpaxosError:
        """What to raise for this outcome: a replica that wants a password, and was shown one, was shown a wrong one."""
        if self._greeting is not None and isinstance(outcome, ResponseError) and outcome.code == "NOAUTH":
            return ResponseError(f"WRONGPASS the password of the configuration is not that of {self.name}")
        return outcome

    def _put(self, data: bytes) -> Call:
        call = Call(data)
        self._waiting.append(call)
        self._work.set()
        return call

    async def run(self) -> None:
        """Send and receive until the connection is lost, then settle every command."""
        why: BaseException | None = None
        try:
            with self._life:
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
                call.settle(NOTHING)

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
        reader = hiredis.Reader(notEnoughData=NOTHING, errors="replace")
        while True:
            try:
                received = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError as error:
                return error
            if not received:
                return None
            reader.feed(bytes(received))
            try:
                while (reply := reader.gets()) is not NOTHING:
                    if isinstance(reply, hiredis.ReplyError) and str(reply) == _TURNED_AWAY:
                        self._unsend()
                        return None
                    if not self._sent:
                        return ProtocolError("a reply to no command", peer=self.name)
                    self._sent.popleft().settle(_failure(reply) if isinstance(reply, hiredis.ReplyError) else reply)
            except hiredis.ProtocolError as error:
                return ProtocolError(str(error), peer=self.name)
            self._end_if_done()

    def _unsend(self) -> None:
        """The replica reads nothing from this connection: what was sent to it may be sent elsewhere."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


def _failure(reply: hiredis.ReplyError) -> EpaxosError:
    """The exception that an error reply stands for (see `replies.py`)."""
    text = str(reply)
    code, _, why = text.partition(" ")
    if code == "UNKNOWN":
        why = why.removesuffix(_UNCLEAR)
        return Applied(why) if why == NOT_KEPT else Unknown(why)
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
