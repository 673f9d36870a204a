"""What became of every command of a load, and the percentiles that may be claimed from it."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

BEYOND_MIN: Final = 10
"""A percentile is claimed only with at least so many samples beyond it; fewer would make it an anecdote."""

REASONS_MAX: Final = 16
"""So many different error texts are kept apart; a server that invents one a command must not fill the memory."""


def rank(count: int, share: float) -> int | None:
    """Where the `share` quantile stands (from 0) among `count` sorted samples, by nearest rank; None when fewer than
    `BEYOND_MIN` lie beyond it."""
    if not 0 < share < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {share}")
    position = max(0, math.ceil(round(count * share, 6)) - 1)
    return position if count - 1 - position >= BEYOND_MIN else None


def percentile(ascending: Sequence[int], share: float) -> int | None:
    """The `share` quantile of samples sorted in ascending order, or None when it may not be claimed."""
    position = rank(len(ascending), share)
    return None if position is None else ascending[position]


def _samples() -> array[int]:
    return array("q")


@dataclass(kw_only=True)
class Tally:
    """The commands of one site. Every planned command ends in exactly one of: answered (a sample in `cold_us` or
    `hot_us`), rejected, unknown, other, unsent."""

    cold_us: array[int] = field(default_factory=_samples)
    """Latencies from the intended send time to the reply, of commands on keys of their own."""
    hot_us: array[int] = field(default_factory=_samples)
    """The same for commands on the hot key."""
    cold_due_us: array[int] = field(default_factory=_samples)
    """The intended send times of those in `cold_us`, from the start of the load."""
    hot_due_us: array[int] = field(default_factory=_samples)
    """The same of those in `hot_us`."""
    lag_us: array[int] = field(default_factory=_samples)
    """How late each command left: the harness's own delay, which the latencies include."""
    rejected: int = 0
    """Certainly not applied: refused by the replica, or never sent because there was no connection."""
    unknown: int = 0
    """May or may not be applied: the replica said so, the connection broke, or the reply did not come in time."""
    other: int = 0
    """Any other error reply: the load itself is wrong, or the replica is."""
    unsent: int = 0
    """Never left before the load was cut off: every lane was waiting for a reply."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Error text -> how often."""

    def answer(self, due_us: int, took_us: int, hot: bool) -> None:
        """Counts one command that was answered so long after its intended send time."""
        (self.hot_due_us if hot else self.cold_due_us).append(due_us)
        (self.hot_us if hot else self.cold_us).append(took_us)

    @property
    def answered(self) -> int:
        return len(self.cold_us) + len(self.hot_us)

    @property
    def failed(self) -> int:
        return self.rejected + self.unknown + self.other + self.unsent

    @property
    def settled(self) -> int:
        """All commands whose end is known, the failed among them."""
        return self.answered + self.failed

    def because(self, text: str) -> None:
        """Counts one error text, up to `REASONS_MAX` different ones; the rest go under one name."""
        known = text in self.reasons or len(self.reasons) < REASONS_MAX
        self.reasons[text if known else "(other texts)"] += 1

    def ascending_us(self) -> list[int]:
        """All latencies, sorted."""
        return sorted([*self.cold_us, *self.hot_us])
