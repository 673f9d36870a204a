"""The handshake, carried out on a stream; `handshake.py` holds its bytes and its rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from epaxos.errors import ProtocolError
from epaxos.net import handshake
from epaxos.net.handshake import Hello


class Refused(ProtocolError):
    """One end does not talk to the other; the message says which, and why."""


class Greeting(NamedTuple):
    """A handshake that both ends accepted."""

    theirs: Hello
    rest: bytes
    """What was received behind it: the first bytes of the frames."""


async def greet(stream: trio.abc.Stream, mine: Hello, judge: Callable[[Hello], Awaitable[str]]) -> Greeting:
    """Exchange hellos and verdicts; `judge` says why not to talk to a hello, or nothing.

    Raises Refused when either end refuses, after both know why; ProtocolError for anything else than a handshake, and
    whatever the stream raises. Sets no time limit of its own.
    """
    bytes_ = _Bytes(stream)
    await stream.send_all(handshake.encode_hello(mine))
    prefix = await bytes_.take(handshake.PREFIX.size)
    body = await bytes_.take(handshake.body_length(prefix))
    who = "the other end"
    try:
        theirs = handshake.decode_hello(prefix, body)
        who = theirs.name
        objection = await judge(theirs)
    except ProtocolError as error:
        objection = str(error)
    await stream.send_all(handshake.encode_verdict(objection))
    # Their verdict is read also when ours is already bad: closing with unread bytes would reset the connection, and
    # they might never see why.
    length = handshake.verdict_length(await bytes_.take(handshake.VERDICT.size))
    refusal = handshake.decode_verdict(await bytes_.take(length))
    if objection:
        raise Refused(f"{who} is refused: {objection}")
    if refusal:
        raise Refused(f"{who} refuses us: {refusal}")
    return Greeting(theirs, bytes_.rest)


class _Bytes:
    """Takes exact numbers of bytes from a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.rest = b""

    async def take(self, count: int) -> bytes:
        while len(self.rest) < count:
            data = await self._stream.receive_some(4096)
            if not data:
                raise ProtocolError("closed during the handshake")
            self.rest += data
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken
