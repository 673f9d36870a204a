"""How busy the processors of this machine were: on a machine that has no time left, a latency is that of its queue."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

_STAT: Final = Path("/proc/stat")
_IDLE: Final = (3, 4)
"""Of the counters of a processor: idle, and idle because of a disk."""
_COUNTED: Final = 8
"""What comes behind these, guests, is part of them."""


class Spent(NamedTuple):
    """The time of all processors since the machine started, in the kernel's ticks."""

    busy: int
    all: int


def spent() -> Spent | None:
    """Up to now; None where the kernel does not tell."""
    try:
        ticks = [int(word) for word in _STAT.read_text().partition("\n")[0].split()[1:]][:_COUNTED]
    except (OSError, ValueError):
        return None
    idle = sum(ticks[each] for each in _IDLE)
    return Spent(sum(ticks) - idle, sum(ticks))


def busy_share(before: Spent | None, after: Spent | None) -> float | None:
    """Between two moments; None when the kernel did not tell, or no time has passed."""
    if before is None or after is None or after.all == before.all:
        return None
    return (after.busy - before.busy) / (after.all - before.all)
