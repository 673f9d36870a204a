"""Region matrices, and what physics and each protocol make of them.

`load("gryff5")` or `load("./mine.toml")` gives a `Matrix` of round trips; `topology.bounds` computes from it the
latencies that no implementation of a protocol can beat. `python -m topology` prints both.
"""

from __future__ import annotations

from topology.matrix import Matrix, builtin_names, load

__all__ = ["Matrix", "builtin_names", "load"]
