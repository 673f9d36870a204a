"""What waits for the engine: everything that happened since its last turn, in order and bounded."""

from __future__ import annotations

from collections.abc import Callable

import trio

from epaxos.engine import Input
from epaxos.net.signal import Signal


class Inbox:
    """Filled by every task of the shell, emptied by the engine's."""

    def __init__(self, *, max_messages: int, max_bytes: int, held_up: Callable[[], bool] = lambda: False) -> None:
        """`held_up`: may no more be taken in at the moment, whatever waits here? It is asked again after a turn."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._held_up = held_up
        self._inputs: list[Input] = []
        self._bytes = 0
        self._signal = Signal()
        self._room = trio.lowlevel.ParkingLot()

    def put(self, item: Input, size_bytes: int = 0) -> None:
        """Add what happened. Whoever adds more than a little calls `room` before it goes on."""
        self._inputs.append(item)
        self._bytes += size_bytes
        self._signal.set()

    def take(self) -> list[Input]:
        """Everything since the last call; there is room again."""
        inputs, self._inputs, self._bytes = self._inputs, [], 0
        self._room.unpark_all()
        return inputs

    async def room(self) -> None:
        """Return when less waits than the bounds allow. Links are not read until then."""
        while len(self._inputs) >= self._max_messages or self._bytes >= self._max_bytes or self._held_up():
            await self._room.park()

    async def filled(self) -> None:
        """Return when something was put since the last return. A checkpoint in any case."""
        await self._signal.wait()
