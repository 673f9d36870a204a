"""One seed makes the whole run: every source of chance is a named fork of it.

Forks are independent of each other and of the order in which they are asked for, so a new draw in one ("disk")
leaves the others ("net", "clock", "workload", "faults", "core.0" …) as they were: a change of the fault model does
not turn every seed into another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Forks:
    """Generators by name, all from one seed. Asking twice for a name gives the same generator, as it stands."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._forks: dict[str, Random] = {}

    def __getitem__(self, name: str) -> Random:
        fork = self._forks.get(name)
        if fork is None:
            digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=16).digest()
            fork = self._forks[name] = Random(int.from_bytes(digest, "little"))
        return fork


def chance(rng: Random, probability: float) -> bool:
    """True with `probability`; draws once, whatever the probability is, so that a knob does not shift the rest."""
    return rng.random() < probability


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of `items`, by one draw."""
    return items[int(rng.random() * len(items))]


def between(rng: Random, low: int, high: int) -> int:
    """An integer low … high, both included, by one draw."""
    return low + int(rng.random() * (high - low + 1))


def log_between(rng: Random, low: int, high: int) -> int:
    """An integer low … high (low > 0), each order of magnitude as likely as the next, by one draw."""
    return int(low * (high / low) ** rng.random())
