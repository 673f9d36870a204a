"""Latencies in a few hundred numbers: a histogram whose buckets grow with what they hold.

Values are non-negative integers (microseconds, by custom). Up to 127 each has a bucket of its own; above, every
doubling is cut into 64 buckets, and a bucket reports its middle: wrong by at most 1/128 (0.8 %) of the value.
Histograms of several replicas or intervals add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

_SUB_BITS: Final = 6
_SUB: Final = 1 << _SUB_BITS
MAX_VALUE: Final = (1 << 40) - 1
"""Twelve days in microseconds; what is larger counts as this."""
_BUCKETS: Final = ((MAX_VALUE.bit_length() - _SUB_BITS - 1) << _SUB_BITS) + 2 * _SUB


def _bucket(value: int) -> int:
    shift = max(value.bit_length() - _SUB_BITS - 1, 0)
    return (shift << _SUB_BITS) + (value >> shift)


def _bounds(bucket: int) -> tuple[int, int]:
    """The smallest and the largest value of a bucket."""
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


class Histogram:
    """Counts values. `record` and `percentile` are cheap; nothing is ever thrown away but by `reset`."""

    __slots__ = ("_counts", "count", "high", "low", "total")

    count: int
    """How many values."""
    total: int
    """Their exact sum."""
    low: int
    """The exact smallest value; 0 when there is none."""
    high: int
    """The exact largest value; 0 when there is none."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.reset()
        for value in values:
            self.record(value)

    def reset(self) -> None:
        """Forget everything."""
        self._counts = [0] * _BUCKETS
        self.count = self.total = self.low = self.high = 0

    def record(self, value: int, count: int = 1) -> None:
        """Count `value` (a negative one as 0), `count` times."""
        if count <= 0:
            return
        value = min(max(value, 0), MAX_VALUE)
        self._counts[_bucket(value)] += count
        self.low = min(self.low, value) if self.count else value
        self.high = max(self.high, value)
        self.count += count
        self.total += value * count

    def percentile(self, percent: float) -> int:
        """The value that `percent` % of the values do not exceed (nearest rank); 0 when there is none."""
        return self.percentiles((percent,))[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Several of them, in one pass; `percents` ascend."""
        found: list[int] = []
        seen, bucket = 0, -1
        for percent in percents:
            if not 0 <= percent <= 100:
                raise ValueError(f"{percent} is not a percentage")
            rank = max(math.ceil(self.count * percent / 100), 1)
            while seen < rank <= self.count:
                bucket += 1
                seen += self._counts[bucket]
            found.append(self._middle(bucket) if self.count else 0)
        return found

    def at_most(self, value: int) -> int:
        """How many values are at most `value`, its whole bucket included."""
        return sum(self._counts[: _bucket(min(value, MAX_VALUE)) + 1]) if value >= 0 else 0

    def _middle(self, bucket: int) -> int:
        low, high = _bounds(bucket)
        return min(max((low + high) // 2, self.low), self.high)
