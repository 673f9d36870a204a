"""What an open-loop load sends, and when: drawn beforehand, whatever becomes of it. `bench.open_loop` sends it."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

NOT_APPLIED: Final = frozenset({"BUSY", "REJECTED", "NOQUORUM"})
"""The error codes of a command that was certainly not applied."""

OUTCOME_UNKNOWN: Final = "UNKNOWN"

ZIPF_MAX: Final = 10.0
ZIPF_KEYS_MAX: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The load at one site. Raises ValueError for what cannot be drawn."""

    clients: int
    """Independent arrival streams."""
    rate_per_s: float
    """Commands a second of each client."""
    duration_s: float
    """From the first intended send time to the last."""
    even: bool = False
    """Leave at equal intervals instead of at random: for who asks how long there was no answer, so that the answer is
    not how long there was no command."""
    hot_share: float = 0.0
    """This share of the site's commands, to the nearest command, goes to the one hot key."""
    hot_key: bytes = b"hot"
    zipf: float | None = None
    """Draws the keys of all other commands from `zipf_keys` that all sites share, the k-th as often as 1/k to this
    power; None: each client draws from its own."""
    zipf_keys: int = 10_000
    key_space: int = 1 << 40
    """Each client draws its other keys from so many of its own; a small number makes it conflict with itself."""
    value_bytes: int = 16
    lanes: int = 4
    """Connections of a client, so commands it may have outstanding. Too few and commands leave late, which counts in
    their latency; too many and the replica is asked to hold connections that are never used."""
    reply_timeout_s: float = 10.0
    """A command not answered by then is counted as unknown. Long enough that only a fault reaches it."""

    def __post_init__(self) -> None:
        for name in ("clients", "rate_per_s", "duration_s", "key_space", "value_bytes", "lanes", "reply_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number more than 0, not {getattr(self, name)}")
        if self.zipf is not None and not (0 <= self.zipf <= ZIPF_MAX and 1 <= self.zipf_keys <= ZIPF_KEYS_MAX):
            raise ValueError(f"Zipf takes an exponent from 0 to {ZIPF_MAX} and from 1 to {ZIPF_KEYS_MAX} keys")
        if not 0 <= self.hot_share <= 1:
            raise ValueError(f"hot_share is a share between 0 and 1, not {self.hot_share}")

    @property
    def commands_per_client(self) -> int:
        return max(1, round(self.rate_per_s * self.duration_s))

    @property
    def commands(self) -> int:
        return self.clients * self.commands_per_client


class Arrival(NamedTuple):
    """One command to come: when it should leave, in microseconds from the start of the load, and the key it writes."""

    at_us: int
    key: bytes
    hot: bool


def draw(shape: Shape, site: str, seed: str) -> list[list[Arrival]]:
    """The commands of each client of `site` in order of time: a function of the arguments and of nothing else.

    Arrivals are Poisson given their number, unless they are `even`: `commands_per_client` times drawn uniformly and
    sorted. Fixing the number is what makes the share of the hot key exact, and every site and every run comparable.
    """
    hot_count = round(shape.hot_share * shape.commands)
    hot = set(Random(f"{seed}/{site}/hot").sample(range(shape.commands), hot_count))
    ranks = _zipf(shape)
    return [_draw_client(shape, site, client, seed, hot, ranks) for client in range(shape.clients)]


def _zipf(shape: Shape) -> list[float]:
    """The weights of the shared keys, summed up; nothing without Zipf."""
    if shape.zipf is None:
        return []
    return list(accumulate((rank + 1) ** -shape.zipf for rank in range(shape.zipf_keys)))


def _draw_client(
    shape: Shape, site: str, client: int, seed: str, hot: set[int], ranks: Sequence[float]
) -> list[Arrival]:
    rng = Random(f"{seed}/{site}/{client}")

    def key() -> bytes:
        if ranks:
            return b"zipf:%d" % bisect(ranks, rng.random() * ranks[-1], hi=len(ranks) - 1)
        return b"%s:%d:%d" % (site.encode(), client, rng.randrange(shape.key_space))

    count = shape.commands_per_client
    duration_us = max(1, round(shape.duration_s * 1e6))
    if shape.even:
        phase = rng.random()
        times_us = [int((at + phase) * duration_us / count) for at in range(count)]
    else:
        times_us = sorted(rng.randrange(duration_us) for _ in range(count))
    return [
        Arrival(at_us, shape.hot_key, True) if client * count + at in hot else Arrival(at_us, key(), False)
        for at, at_us in enumerate(times_us)
    ]
