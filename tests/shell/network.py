"""A network in memory: replicas call each other by id, and tests cut, stall and listen in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from epaxos.ids import ReplicaId

Accept = Callable[[trio.abc.Stream], Awaitable[None]]


class MemoryNetwork:
    """Connections between replicas, all in one process."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._accept: dict[ReplicaId, Accept] = {}
        self.calls: list[tuple[ReplicaId, ReplicaId]] = []
        """Every attempt to connect: (who, whom)."""
        self.cut: set[frozenset[ReplicaId]] = set()
        """Pairs that cannot connect at the moment."""
        self.open: list[tuple[frozenset[ReplicaId], tuple[trio.StapledStream, trio.StapledStream]]] = []

    def listen(self, me: ReplicaId, accept: Accept) -> None:
        """From now on `me` answers."""
        self._accept[me] = accept

    async def dial(self, me: ReplicaId, whom: ReplicaId) -> trio.abc.Stream:
        """The stream of `me` on a new connection to `whom`. Raises OSError when nobody answers."""
        self.calls.append((me, whom))
        await trio.lowlevel.checkpoint()
        pair = frozenset((me, whom))
        if whom not in self._accept or pair in self.cut:
            raise ConnectionRefusedError(111, "Connection refused")
        mine, theirs = trio.testing.memory_stream_pair()
        self.open.append((pair, (mine, theirs)))
        self._nursery.start_soon(self._accept[whom], theirs)
        return mine

    def break_links(self, a: ReplicaId, b: ReplicaId) -> None:
        """Everything between the two ends now: both see the end of their stream."""
        for pair, ends in self.open:
            if pair == {a, b}:
                for end in ends:
                    end.send_stream.close()


class Stalled(trio.abc.Stream):
    """A stream whose other end has stopped reading: what is sent from `stall` on waits for ever."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.stalled = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stalled:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
