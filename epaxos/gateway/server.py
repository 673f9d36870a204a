"""The Redis front end of a replica: connections in, runs to the replica, replies back in order.

A connection has a reader, which parses what it received and hands it on, and a writer, which sends what can be sent:
all replies up to the first command without one, in one go, once a turn. Runs may be answered in pieces and out of
order. While `pipeline_commands` commands of a connection are unanswered, or `client_reply_bytes` of its replies are
unsent, its reader does not parse, then does not read, and then TCP stops the client. The replies to what it had sent by
then may still be many times as long: with more than `client_output_bytes` of them unsent the connection is closed, and
with more than `client_output_total_bytes` unsent to all clients the one to which most is. So whoever sends and never
reads holds a bounded amount of memory, and all of them together do. Within that a reply is not bounded by itself: it is
as long as the values asked for.
"""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol as Interface

import trio

from epaxos import replies
from epaxos.errors import Rejected, Unknown
from epaxos.gateway import context, local, sessions
from epaxos.gateway.items import Broken, Foreign, Local, ParseLimits, Refused, Run, Step, Unheard
from epaxos.gateway.resp import Parser, halts
from epaxos.gateway.transaction import Transactions
from epaxos.limits import LimitsConfig
from epaxos.observe.log import Log
from epaxos.submission import NOBODY, Waiter

READ_BYTES: Final = 64 * 1024
"""How much is read from a connection at once."""

KEEPALIVE_S: Final = 300
"""After such a silence the system asks whether the client's machine is still there; the value is that of Redis."""

TOO_MANY_CLIENTS: Final = replies.error(b"ERR max number of clients reached")
_CLOSING_US: Final = 1_000_000
"""How long a client that is turned away has to take the reason."""


class Replica(context.Host, sessions.Namer, Interface):
    """What a front end needs of the replica behind it (`epaxos.replica.Replica`, or a fake in tests)."""

    def new_stream(self) -> int:
        """A number for a connection: conflicting commands of one stream take effect in order."""

    def submit(self, waiter: Waiter, stream: int, run: bytes, count: int, deadline_us: int) -> None:
        """See `submission.Submit`."""

    def cancel(self, waiter: Waiter) -> None:
        """See `submission.Cancel`."""

    def now_us(self) -> int:
        """The monotonic clock that deadlines are counted on."""


class Pending:
    """The replies to some consecutive commands of a connection, as they come in. The `Waiter` of a run."""

    __slots__ = ("_connection", "_dialect", "_instead", "_parts", "_taken", "commands", "unanswered")

    def __init__(self, connection: Connection, commands: int, dialect: int, instead: bytes | None = None) -> None:
        """`instead` is what the client is told when its one command was applied; None: the machine's reply."""
        self.commands = commands
        self._instead = instead
        self.unanswered = commands
        self._connection = connection
        self._dialect = dialect
        self._parts: dict[int, tuple[int, bytes]] = {}
        self._taken = 0

    def reply(self, first: int, count: int, data: bytes) -> None:
        """See `submission.Waiter`."""
        data = data if self._instead is None else self._instead
        self.settle(first, count, replies.to_resp3(data) if self._dialect == 3 else data)

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """See `submission.Waiter`."""
        self.settle(first, count, replies.failure(error) * count)

    def settle(self, first: int, count: int, data: bytes) -> None:
        """These commands have these replies."""
        assert count > 0 and first + count <= self.commands, (first, count, self.commands)
        assert first >= self._taken and first not in self._parts, (first, self._taken)
        self._parts[first] = (count, data)
        self.unanswered -= count
        self._connection.replied(self, count, len(data))

    def take(self) -> tuple[int, list[bytes]]:
        """How many further commands have their replies now, with none missing before them; and these."""
        taken, parts = self._taken, []
        while part := self._parts.pop(self._taken, None):
            self._taken += part[0]
            parts.append(part[1])
        return self._taken - taken, parts

    @property
    def complete(self) -> bool:
        """Has every reply been taken?"""
        return self._taken == self.commands


class Connection:
    """One client. `serve` returns when it is gone."""

    def __init__(self, gateway: Gateway, stream: trio.abc.Stream, client: context.Client) -> None:
        self._gateway = gateway
        self._replica = gateway.replica
        self._stream = stream
        self._client = client
        self._number = self._replica.new_stream()
        self._parser = Parser(self._replica.secret)
        self._transactions = Transactions(
            self._replica.secret, gateway.parse_limits(client), lambda item: gateway.answer(client, item)
        )
        self._queue: deque[Pending] = deque()
        self._outstanding = 0
        """Commands whose replies have not been handed to the writer."""
        self.unsent = 0
        """Bytes of replies that have not been sent."""
        self._closed = False
        """Nobody listens any more."""
        self._scope = trio.CancelScope()
        """Of everything done for it."""
        self._ending = False
        """No further command is taken."""
        self._work = trio.Event()
        self._room = trio.Event()

    async def serve(self) -> None:
        """Answer commands until either side ends it."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._read)
        finally:
            self._close()
            for pending in self._queue:
                if pending.unanswered:
                    self._replica.cancel(pending)
            self._queue.clear()
            for item in self._transactions.forget():
                self._take(item)

    def cut_off(self) -> None:
        """End it, for what its client leaves unread."""
        self._close()
        self._scope.cancel()
        self._gateway.unread(self._client, self.unsent)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._gateway.left(self)

    # -------------------------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        while not self._ending:
            try:
                received = await self._stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                received = b""
            if not received:
                self._scope.cancel()
                return
            self._gateway.traffic.input_bytes += len(received)
            await self._take_all(bytes(received))

    async def _take_all(self, received: bytes) -> None:
        """Take everything that is complete."""
        while not self._ending:
            items = self._parser.feed(received, self._gateway.parse_limits(self._client))
            for item in items:
                await self._wait_for_room()
                for admitted in local.admit(self._client, item):
                    for each in self._transactions.take(admitted):
                        self._take(each)
                if self._ending:
                    self._work.set()
                    break
            if not (items and self._parser.held and halts(items[-1])):
                break
            received = b""

    async def _wait_for_room(self) -> None:
        limits = self._gateway.limits
        while self._outstanding >= limits.pipeline_commands or self.unsent >= limits.client_reply_bytes:
            self._room = trio.Event()
            await self._room.wait()

    def _take(self, item: Step) -> None:
        if isinstance(item, Local) and sessions.is_of_sessions(item):
            asked = sessions.ask(item.args, self._replica, self._gateway.parse_limits(self._client))
            if isinstance(asked, sessions.Asked):
                self._submit(asked.run, 1, self._pend(1, asked.reply))
                return
            item = asked
        if isinstance(item, Run):
            self._submit(item.run, item.commands, self._pend(item.commands))
            return
        if isinstance(item, Unheard):
            self._submit(item.run, 1, NOBODY)
            return
        if isinstance(item, Foreign):
            self._ending = True
            self._scope.cancel()
            self._gateway.foreign(self._client, item.word)
            return
        pending = self._pend(1)
        self._ending = isinstance(item, Broken) or (isinstance(item, Local) and item.args[0].lower() == b"quit")
        reply = item.reply if isinstance(item, Refused | Broken) else self._gateway.answer(self._client, item)
        pending.settle(0, 1, reply)

    def _submit(self, run: bytes, commands: int, waiter: Waiter) -> None:
        deadline_us = self._replica.now_us() + self._gateway.limits.request_timeout_ms * 1_000
        self._replica.submit(waiter, self._number, run, commands, deadline_us)

    def _pend(self, commands: int, instead: bytes | None = None) -> Pending:
        self._gateway.traffic.count(commands, self._replica.now_us())
        pending = Pending(self, commands, self._client.dialect, instead)
        self._queue.append(pending)
        self._outstanding += commands
        return pending

    # -------------------------------------------------------------------------------------------------------- writing

    def replied(self, pending: Pending, commands: int, size: int) -> None:
        """So many more bytes of replies can be sent, or could if those of earlier commands were there."""
        if self._closed:
            return
        self.unsent += size
        self._gateway.owes(size)
        if self._closed:
            return
        if self.unsent > self._gateway.limits.client_output_bytes and (commands > 1 or self.unsent > size):
            self.cut_off()
        elif self._queue[0] is pending:
            self._work.set()

    async def _write(self) -> None:
        while True:
            data = self._collect()
            if data:
                try:
                    await self._stream.send_all(data)
                except trio.BrokenResourceError:
                    self._scope.cancel()
                    return
                self._sent(len(data))
            elif self._ending and not self._queue:
                self._scope.cancel()
                return
            else:
                self._work = trio.Event()
                await self._work.wait()

    def _sent(self, size: int) -> None:
        self._gateway.traffic.output_bytes += size
        if not self._closed:
            self.unsent -= size
            self._gateway.owes(-size)
            self._room.set()

    def _collect(self) -> bytes:
        """All replies that can be sent, in order."""
        parts: list[bytes] = []
        while self._queue:
            commands, taken = self._queue[0].take()
            parts += taken
            self._outstanding -= commands
            if not self._queue[0].complete:
                break
            self._queue.popleft()
        return b"".join(parts)


class Gateway:
    """The clients of one replica.

    With a `password` nothing is done for a client that has not shown it; `count_keys` says how many keys there are,
    `port` where it listens, and `log` is told of clients that are cut off.
    """

    def __init__(
        self,
        replica: Replica,
        limits: LimitsConfig,
        *,
        password: bytes | None = None,
        count_keys: Callable[[], int] = lambda: 0,
        port: int = 0,
        log: Log | None = None,
    ) -> None:
        self.replica = replica
        self.limits = limits
        self._log = log
        self._parse_limits = {
            (dialect, stranger): ParseLimits.of(limits)._replace(dialect=dialect, stranger=stranger)
            for dialect in (2, 3)
            for stranger in (False, True)
        }
        self.connections = 0
        self._listening: set[Connection] = set()
        self._unsent = 0
        """Bytes of replies that have not been sent to them."""
        self.traffic = context.Traffic()
        self._server = context.Server(replica, password, limits.connections, count_keys, port, self.traffic)
        self._ids = itertools.count(1)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte until it is closed."""
        if isinstance(stream, trio.SocketStream):
            _keep_alive(stream)
        async with stream:
            self.traffic.connections += 1
            if self.connections >= self.limits.connections:
                self.traffic.turned_away += 1
                await _turn_away(stream)
                return
            self.connections += 1
            connection = Connection(self, stream, self._server.client(next(self._ids)))
            self._listening.add(connection)
            try:
                await connection.serve()
            finally:
                self.connections -= 1

    def parse_limits(self, client: context.Client) -> ParseLimits:
        """What is accepted from this client at present."""
        return self._parse_limits[client.dialect, not client.authenticated]

    def owes(self, size: int) -> None:
        """So many more bytes have to be sent to some client, or fewer. It may be cut off, or another."""
        self._unsent += size
        while self._unsent > self.limits.client_output_total_bytes:
            max(self._listening, key=lambda each: each.unsent).cut_off()

    def left(self, connection: Connection) -> None:
        """It listens no more."""
        self._listening.remove(connection)
        self._unsent -= connection.unsent

    def unread(self, client: context.Client, unsent_bytes: int) -> None:
        """This client is cut off, for so much that it has not read."""
        if self._log is not None:
            self._log.event("client_closed", "too many replies unread", client=client.id, unsent_bytes=unsent_bytes)

    def foreign(self, client: context.Client, word: bytes) -> None:
        """This client is cut off, for it is none."""
        if self._log is not None:
            self._log.event("client_closed", "it speaks HTTP: a web page?", client=client.id, word=word.decode("ascii"))

    def answer(self, client: context.Client, item: Local) -> bytes:
        """The reply to a command that needs no other replica."""
        return local.answer(context.Context(self._server, client, self.connections, item.args))


def _keep_alive(stream: trio.SocketStream) -> None:
    """Have the system notice a client whose machine is gone, or its place would be taken for ever."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)


async def _turn_away(stream: trio.abc.Stream) -> None:
    with trio.move_on_after(_CLOSING_US / 1e6):
        try:
            await stream.send_all(TOO_MANY_CLIENTS)
        except trio.BrokenResourceError:
            return


async def serve_clients(
    replica: Replica,
    listeners: Sequence[trio.SocketListener],
    *,
    limits: LimitsConfig,
    password: bytes | None = None,
    count_keys: Callable[[], int] = lambda: 0,
    log: Log | None = None,
) -> None:
    """Serve Redis clients of `replica` on `listeners` until cancelled; see `Gateway`."""
    port = listeners[0].socket.getsockname()[1]
    gateway = Gateway(replica, limits, password=password, count_keys=count_keys, port=port, log=log)
    await trio.serve_listeners(gateway.serve, list(listeners))
