"""One connection to a replica's Redis front end: a command out, its reply back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import hiredis
import trio

from epaxos.errors import EpaxosError

if TYPE_CHECKING:
    from types import TracebackType

REPLY_BYTES_MAX: Final = 4 << 20
"""A longer reply than this is no answer to what a bench asks."""

_RECEIVE_BYTES: Final = 1 << 16


class ErrorReply(EpaxosError):
    """The replica answered with an error; the text begins with its code (`BUSY`, `UNKNOWN`, …)."""


class ConnectionLost(EpaxosError):
    """The connection ended, or stopped making sense, before the reply: the outcome is not known."""


class RespConnection:
    """A connection over any byte stream. One command at a time: replies come back in order, so a second command would
    wait for the first, and a measurement would not know which of them took the time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    async def call(self, *words: bytes | str | int) -> Any:
        """Sends one command and returns its reply: bytes, int, None or a list of these.

        Raises ErrorReply, or ConnectionLost after which the connection is of no more use.
        """
        packed: Any = words  # the stub of pack_command allows a tuple of one word only
        try:
            await self._stream.send_all(hiredis.pack_command(packed))
            reply = await self._reply()
        except (trio.BrokenResourceError, trio.ClosedResourceError, hiredis.ProtocolError) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
        if isinstance(reply, hiredis.ReplyError):
            raise ErrorReply(str(reply))
        return reply

    async def _reply(self) -> Any:
        received = 0
        while (reply := self._reader.gets()) is _NOTHING:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
            received += len(data)
            if not data or received > REPLY_BYTES_MAX:
                raise ConnectionLost("closed by the replica" if not data else "the reply is too long")
            self._reader.feed(bytes(data))
        return reply

    async def aclose(self) -> None:
        """Closes the stream."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_NOTHING: Final = object()
