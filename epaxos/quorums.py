"""Every quorum size there is, and nothing else.

`n` replicas survive `f` crashes, and the fast path still works under `e` of them
(EPaxos*, OPODIS 2025: `n >= max(2e + f - 1, 2f + 1)`, `e <= f`). `tests/unit/test_quorums.py` checks the
arithmetic by brute force for n = 1 … 13.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

MAX_REPLICAS = 13


class Quorums(NamedTuple):
    """The sizes for one cluster size, all counting the coordinator or recoverer itself."""

    n: int
    f: int
    """Crashes survived."""
    e: int
    """Crashes (or disagreeing replies) under which the fast path still works."""
    slow: int
    """n - f: Accept, recovery and read-barrier quorums; two of them always meet."""
    fast: int
    """n - e: the fast quorum; any slow quorum meets it in enough members to recover its decision."""
    majority: int
    """More than half: elections and log replication."""


@cache
def quorums(n: int) -> Quorums:
    """The quorums of `n` replicas. Raises ValueError outside 1 … 13."""
    if not 1 <= n <= MAX_REPLICAS:
        raise ValueError(f"a cluster has 1 to {MAX_REPLICAS} replicas, not {n}")
    f = (n - 1) // 2
    e = min(f, (n - f + 1) // 2)
    return Quorums(n=n, f=f, e=e, slow=n - f, fast=n - e, majority=n // 2 + 1)
