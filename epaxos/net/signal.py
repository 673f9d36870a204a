"""A flag between two tasks: set any number of times, cleared by the one that waits for it."""

from __future__ import annotations

import trio


class Signal:
    """One task waits; anybody sets. What is set while nobody waits is not lost."""

    __slots__ = ("_lot", "_set")

    def __init__(self) -> None:
        self._set = False
        self._lot = trio.lowlevel.ParkingLot()

    def set(self) -> None:
        """Wake the waiting task, now or when it comes."""
        if not self._set:
            self._set = True
            self._lot.unpark_all()

    async def wait(self) -> None:
        """Return once the flag is set, and clear it. Always a checkpoint."""
        if self._set:
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()
        self._set = False


def now_us() -> int:
    """The monotonic clock of the running loop, in microseconds: the one that timers, deadlines and delays refer to."""
    return round(trio.current_time() * 1_000_000)
