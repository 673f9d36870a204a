"""A network in memory and virtual time: links that take time, fill, stall, break and refuse.

Every ordered pair of places has a `Wire`, which all connections between them share the fortunes of, those there are
and those to come. A stream is as unkind as TCP: it cuts what is sent where it likes, holds a bounded amount under way
and makes the sender wait for more, and a break loses what was under way.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from epaxos.ids import ReplicaId
from epaxos.net.signal import now_us

WINDOW_BYTES: Final = 1 << 18
"""What may be under way, or wait for a reader, in one direction of a connection."""


class Wire:
    """One direction between two places: how long it takes, how much it carries, and whether it works at all."""

    def __init__(self) -> None:
        self.delay_us = 0
        """From the last byte sent to the last byte received."""
        self.bytes_per_s: int | None = None
        """How fast bytes enter it; None: at once."""
        self.window_bytes = WINDOW_BYTES
        self.stalled = False
        """Nothing arrives, nothing breaks: what is sent waits."""
        self.cut = False
        """Connections were broken, and new ones are refused."""
        self.pipes: dict[_Pipe, None] = {}
        """Of the connections that are open, oldest first."""

    def stall(self) -> None:
        """From now on nothing arrives."""
        self.stalled = True

    def flow(self) -> None:
        """What was stalled arrives."""
        self.stalled = False
        for pipe in self.pipes:
            pipe.changed.unpark_all()

    def reset(self) -> int:
        """Break every connection there is; returns how many. What was under way is lost."""
        pipes, self.pipes = self.pipes, {}
        for pipe in pipes:
            pipe.reset()
        return len(pipes)


class _Pipe:
    """One direction of one connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.changed = trio.lowlevel.ParkingLot()
        self.broken = False
        self.ended = False
        """The sender has closed: what is under way still arrives."""
        self._pieces: deque[tuple[int, bytes]] = deque()
        """(when it arrives, bytes), in order."""
        self._held_bytes = 0
        self._free_us = 0
        """When the wire has taken what was sent so far."""
        wire.pipes[self] = None

    def reset(self) -> None:
        """Both ends learn that it is broken."""
        self.broken = True
        self._pieces.clear()
        self.wire.pipes.pop(self, None)
        self.changed.unpark_all()

    def end(self) -> None:
        """The sender sends no more."""
        self.ended = True
        self.changed.unpark_all()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        at = 0
        while at < len(data):
            # Never a little into a window that is nearly full, or pieces would become smaller for ever.
            fits_bytes = self.wire.window_bytes - min(len(data) - at, self.wire.window_bytes // 4)
            while not self.broken and not self.ended and self._held_bytes > fits_bytes:
                await self.changed.park()
            if self.ended:
                raise trio.ClosedResourceError("this end was closed")
            if self.broken:
                raise trio.BrokenResourceError("the connection is broken")
            piece = bytes(data[at : at + self.wire.window_bytes - self._held_bytes])
            at += len(piece)
            self._put(piece)

    def _put(self, piece: bytes) -> None:
        now = now_us()
        if self.wire.bytes_per_s is not None:
            self._free_us = max(self._free_us, now) + math.ceil(len(piece) * 1_000_000 / self.wire.bytes_per_s)
            now = self._free_us
        earliest_us = self._pieces[-1][0] if self._pieces else 0
        self._pieces.append((max(now + self.wire.delay_us, earliest_us), piece))
        self._held_bytes += len(piece)
        self.changed.unpark_all()

    async def receive(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise trio.BrokenResourceError("the connection is broken")
            due_us = self._pieces[0][0] if self._pieces and not self.wire.stalled else None
            if due_us is not None and due_us <= now_us():
                return self._take(max_bytes)
            if self.ended and not self._pieces:
                self.wire.pipes.pop(self, None)
                return b""
            with trio.move_on_at(math.inf if due_us is None else due_us / 1e6):
                await self.changed.park()

    def _take(self, max_bytes: int) -> bytes:
        due_us, piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft((due_us, piece[max_bytes:]))
            piece = piece[:max_bytes]
        self._held_bytes -= len(piece)
        self.changed.unpark_all()
        return piece


class VirtualStream(trio.abc.Stream):
    """One end of a connection."""

    def __init__(self, out: _Pipe, into: _Pipe) -> None:
        self._out = out
        self._into = into
        self._closed = False
        self._sending = False
        self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream`; waits while the window is full."""
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await self._out.send(data)
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream`."""
        self._check_open()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream`."""
        self._check_open()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            data = await self._into.receive(WINDOW_BYTES if max_bytes is None else max_bytes)
        finally:
            self._receiving = False
        self._check_open()
        return data

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource`: what was sent arrives, what comes later the other way breaks there."""
        if not self._closed:
            self._closed = True
            self._out.end()
            self._into.reset()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")


def stream_pair(there: Wire, back: Wire) -> tuple[VirtualStream, VirtualStream]:
    """Both ends of a new connection: what the first sends crosses `there`, what it receives `back`."""
    out, into = _Pipe(there), _Pipe(back)
    return VirtualStream(out, into), VirtualStream(into, out)


class _Listener(trio.abc.Listener[trio.abc.Stream]):
    """Takes the connections that others made to one replica."""

    def __init__(self, network: VirtualNetwork, me: ReplicaId) -> None:
        self._network = network
        self._me = me
        self.send, self._receive = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._network.listeners.pop(self._me, None)
        await self._receive.aclose()


class _Endpoint:
    """What one replica sees of the network: a `net.tcp.Network`."""

    def __init__(self, network: VirtualNetwork, me: ReplicaId) -> None:
        self._network = network
        self._me = me

    async def listen(self) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        await trio.lowlevel.checkpoint()
        return [self._network.listen(self._me)]

    async def dial(self, peer: ReplicaId) -> trio.abc.Stream:
        return await self._network.dial(self._me, peer)


class VirtualNetwork:
    """The wires between the replicas called `names`, which are numbered as these stand."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._wires = {pair: Wire() for pair in itertools.permutations(self._names, 2)}
        self.listeners: dict[ReplicaId, _Listener] = {}
        """Who can be called."""
        self.calls: list[tuple[str, str]] = []
        """Every attempt to connect: (who, whom)."""

    def at(self, me: ReplicaId) -> _Endpoint:
        """What `open_replica` takes as the network of the replica `me`."""
        return _Endpoint(self, me)

    def wire(self, source: str, target: str) -> Wire:
        """The wire from one replica to another."""
        return self._wires[source, target]

    def wires(self, *names: str) -> Iterable[Wire]:
        """The wires in both directions between any two of `names`, or of all."""
        return [self._wires[pair] for pair in itertools.permutations(names or self._names, 2)]

    def delay(self, *names: str, us: int) -> None:
        """Let everything between any two of `names`, or of all, take so long one way."""
        for wire in self.wires(*names):
            wire.delay_us = us

    def reset(self, *names: str) -> int:
        """Break the connections between any two of `names`, or of all; how many directions were broken."""
        return sum(wire.reset() for wire in self.wires(*names))

    def cut(self, *names: str) -> None:
        """Break the connections between any two of `names`, or of all, and refuse new ones."""
        for wire in self.wires(*names):
            wire.cut = True
            wire.reset()

    def heal(self) -> None:
        """Nothing is cut or stalled any more."""
        for wire in self.wires():
            wire.cut = False
            wire.flow()

    def listen(self, me: ReplicaId) -> _Listener:
        """From now on `me` can be called."""
        self.listeners[me] = _Listener(self, me)
        return self.listeners[me]

    async def dial(self, me: ReplicaId, whom: ReplicaId) -> VirtualStream:
        """A new connection, after a round trip. Raises OSError when nobody answers."""
        there = self.wire(self._names[me], self._names[whom])
        back = self.wire(self._names[whom], self._names[me])
        self.calls.append((self._names[me], self._names[whom]))
        await trio.sleep_until((now_us() + there.delay_us + back.delay_us) / 1e6)
        if there.stalled or back.stalled:
            await trio.sleep_forever()
        if there.cut or back.cut or whom not in self.listeners:
            raise ConnectionRefusedError(111, "Connection refused")
        mine, theirs = stream_pair(there, back)
        self.listeners[whom].send.send_nowait(theirs)
        return mine
