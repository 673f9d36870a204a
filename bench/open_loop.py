"""An open-loop load: commands leave when a seeded generator says, whether or not earlier ones were answered.

The send times are drawn beforehand (`bench.load`), and latency runs from the *intended* time to the reply. A replica
that stops for a second is therefore charged with that second by every command that should have left in it (no
coordinated omission), and what the harness itself loses is charged too, never hidden. What did not succeed is counted
by what is known of it. One thread for all sites, which the system runs before the replicas where it may, since clients
stand elsewhere: a command costs it some ten microseconds of the processors that the replicas run on.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

import trio

from bench.load import NOT_APPLIED, OUTCOME_UNKNOWN, Arrival, Shape
from bench.tally import Tally
from topology.lab.namespaces import prompt

Connect = Callable[[], socket.socket]
"""Opens one connection to the replica beside the client. Raises OSError when there is none to be had."""

STOPS_WITHIN_S: Final = 0.05
"""How long the thread looks away when nothing is to be done."""
_RECEIVE_BYTES: Final = 4096
_LINE_MAX_BYTES: Final = 4096
"""A longer reply than this is no answer to a SET."""


@dataclass(frozen=True)
class Site:
    """The load of one site: the commands of each of its clients, and where they are counted."""

    connect: Connect
    plan: Sequence[Sequence[Arrival]]
    tally: Tally


async def run(sites: Sequence[Site], shape: Shape, *, start_s: float) -> None:
    """Sends the plans of all sites from the moment `start_s` of trio's clock, and counts every command.

    Returns when all are settled, at the latest two reply timeouts after the last intended time; what has not left by
    then is counted as unsent, and what is still out as unknown. So it is when this is cancelled. Raises nothing that a
    replica could cause.
    """
    wire_start_s = time.perf_counter() + start_s - trio.current_time()
    stop = threading.Event()

    async def stop_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stop.set()

    def thread() -> None:
        with prompt(), Sockets() as wire:
            OpenLoop(sites, shape, wire, wire_start_s).run(stop.is_set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_when_cancelled)
        await trio.to_thread.run_sync(thread)
        nursery.cancel_scope.cancel()


class Wire(Protocol):
    """A clock, and sockets to wait for."""

    def now(self) -> float:
        """In seconds."""

    def add(self, each: socket.socket) -> None:
        """Wait for that one too."""

    def drop(self, each: socket.socket) -> None:
        """No longer."""

    def wait(self, until_s: float) -> list[socket.socket]:
        """Those that have something to read, as soon as there are any, and none at that moment."""


class Sockets:
    """Those of the machine, and its clock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def now(self) -> float:
        """As `Wire.now`."""
        return time.perf_counter()

    def add(self, each: socket.socket) -> None:
        """As `Wire.add`."""
        self._selector.register(each, selectors.EVENT_READ)

    def drop(self, each: socket.socket) -> None:
        """As `Wire.drop`."""
        self._selector.unregister(each)

    def wait(self, until_s: float) -> list[socket.socket]:
        """As `Wire.wait`, to the microsecond: a selector by itself waits whole milliseconds."""
        select.select((self._selector,), (), (), max(0.0, until_s - self.now()))
        return [key.fileobj for key, _ in self._selector.select(0) if isinstance(key.fileobj, socket.socket)]


class _Client:
    """One arrival stream, and its connections. A command leaves late only when every connection waits for a reply."""

    def __init__(self, site: Site, lanes: int) -> None:
        self.connect = site.connect
        self.tally = site.tally
        self.free = [_Lane(self) for _ in range(lanes)]
        self.late: deque[Arrival] = deque()
        """Due, and not sent yet."""


class _Lane:
    """A connection, with at most one command out."""

    def __init__(self, client: _Client) -> None:
        self.client = client
        self.socket: socket.socket | None = None
        self.out: Arrival | None = None
        self.line = b""


class OpenLoop:
    """The load of all sites. `run` blocks; it is for a thread of its own."""

    def __init__(self, sites: Sequence[Site], shape: Shape, wire: Wire, start_s: float) -> None:
        self._wire = wire
        self._start_s = start_s
        self._timeout_s = shape.reply_timeout_s
        self._end_s = start_s + shape.duration_s + 2 * shape.reply_timeout_s
        self._value = b"v" * shape.value_bytes
        self._lanes: dict[socket.socket, _Lane] = {}
        """Those that are connected."""
        self._out: deque[tuple[float, _Lane, Arrival]] = deque()
        """(when it is given up, who waits, for what), the oldest first; some were answered."""
        self._clients: list[_Client] = []
        agenda = []
        for site in sites:
            for arrivals in site.plan:
                client = _Client(site, min(shape.lanes, len(arrivals)))
                self._clients.append(client)
                agenda += [(arrival.at_us, len(self._clients), client, arrival) for arrival in arrivals]
        agenda.sort(key=lambda each: each[:2])
        self._agenda = deque((client, arrival) for _, _, client, arrival in agenda)
        self._unsettled = len(agenda)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Send and count, until all is settled, the time is over, or somebody says so."""
        wire = self._wire
        try:
            self._open()
            while self._unsettled and not stopped() and (now_s := wire.now()) < self._end_s:
                self._send_due(now_s)
                for each in wire.wait(self._next_s(now_s)):
                    if each in self._lanes:
                        self._receive(each, self._lanes[each])
                self._give_up(wire.now())
        finally:
            self._cut_off()

    def _open(self) -> None:
        """All connections, before the first command is due; one that is refused is tried again when it is needed."""
        for client in self._clients:
            for lane in client.free:
                with suppress(OSError):
                    self._connect(lane)

    def _connect(self, lane: _Lane) -> socket.socket:
        lane.socket = connection = lane.client.connect()
        connection.setblocking(False)
        self._lanes[connection] = lane
        self._wire.add(connection)
        return connection

    def _next_s(self, now_s: float) -> float:
        """When something is due at the latest."""
        next_s = now_s + STOPS_WITHIN_S
        if self._agenda:
            next_s = min(next_s, self._due_s(self._agenda[0][1]))
        if self._out:
            next_s = min(next_s, self._out[0][0])
        return next_s

    def _send_due(self, now_s: float) -> None:
        while self._agenda and self._due_s(self._agenda[0][1]) <= now_s:
            client, arrival = self._agenda.popleft()
            client.late.append(arrival)
            self._send_late(client)

    def _send_late(self, client: _Client) -> None:
        while client.late and client.free:
            self._send(client.free.pop(), client.late.popleft())

    def _send(self, lane: _Lane, arrival: Arrival) -> None:
        tally = lane.client.tally
        lane.out = arrival
        try:
            connection = lane.socket or self._connect(lane)
        except OSError as error:
            tally.rejected += 1
            self._settled(lane, f"no connection: {error.strerror or error}")
            return
        tally.lag_us.append(self._since_us(arrival))
        try:
            connection.send(_set(arrival.key, self._value))
        except OSError as error:
            self._lost(lane, error.strerror or str(error))
        else:
            self._out.append((self._wire.now() + self._timeout_s, lane, arrival))

    def _due_s(self, arrival: Arrival) -> float:
        return self._start_s + arrival.at_us / 1e6

    def _since_us(self, arrival: Arrival) -> int:
        """How long ago it should have left."""
        return max(0, round((self._wire.now() - self._due_s(arrival)) * 1e6))

    def _receive(self, connection: socket.socket, lane: _Lane) -> None:
        data, why = b"", "closed by the replica"
        try:
            data = connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            why = error.strerror or str(error)
        lane.line += data
        if not data:
            self._lost(lane, why)
        elif lane.out is None:
            self._lost(lane, "a reply that nobody asked for")
        elif lane.line.endswith(b"\r\n"):
            self._answer(lane, lane.out)
        elif len(lane.line) > _LINE_MAX_BYTES:
            self._lost(lane, "the reply is too long")
        self._send_late(lane.client)

    def _answer(self, lane: _Lane, arrival: Arrival) -> None:
        line, lane.line = lane.line[:-2], b""
        tally = lane.client.tally
        if line == b"+OK":
            tally.answer(arrival.at_us, self._since_us(arrival), arrival.hot)
            self._settled(lane)
            return
        text = line[1:].decode(errors="replace")
        code = text.partition(" ")[0]
        if code in NOT_APPLIED:
            tally.rejected += 1
        elif code == OUTCOME_UNKNOWN:
            tally.unknown += 1
        else:
            tally.other += 1
        self._settled(lane, text)

    def _lost(self, lane: _Lane, why: str) -> None:
        """The connection is over. Between two commands that is no loss."""
        self._close(lane)
        if lane.out is not None:
            lane.client.tally.unknown += 1
            self._settled(lane, f"connection lost: {why}")

    def _give_up(self, now_s: float) -> None:
        """On what was not answered in time: its connection may not carry another command."""
        while self._out and (self._out[0][0] <= now_s or self._out[0][1].out is not self._out[0][2]):
            _, lane, arrival = self._out.popleft()
            if lane.out is arrival:
                self._close(lane)
                lane.client.tally.unknown += 1
                self._settled(lane, "no reply in time")
                self._send_late(lane.client)

    def _settled(self, lane: _Lane, because: str | None = None) -> None:
        """The command is counted, and the lane is free."""
        if because is not None:
            lane.client.tally.because(because)
        lane.out = None
        self._unsettled -= 1
        lane.client.free.append(lane)

    def _close(self, lane: _Lane) -> None:
        connection, lane.socket, lane.line = lane.socket, None, b""
        if connection is not None:
            del self._lanes[connection]
            self._wire.drop(connection)
            connection.close()

    def _cut_off(self) -> None:
        """What has not left is unsent, and what is still out unknown."""
        for client, _ in self._agenda:
            client.tally.unsent += 1
        for client in self._clients:
            client.tally.unsent += len(client.late)
        for lane in list(self._lanes.values()):
            if lane.out is not None:
                lane.client.tally.unknown += 1
                lane.client.tally.because("cut off")
            self._close(lane)


def _set(key: bytes, value: bytes) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)
