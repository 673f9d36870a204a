"""Which twin is in use: the compiled module, or the pure Python one that means the same.

Every Cython module has a pure twin under the same tests. The compiled one is taken when it was built, unless the
environment says `EPAXOS_PURE=1`; `epaxos --version` says what was chosen.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final, TypeVar

FORCED_PURE: Final = os.environ.get("EPAXOS_PURE", "") not in ("", "0")

_chosen: dict[str, str] = {}

T = TypeVar("T")


def choose(module: str, name: str, pure: T) -> T:
    """`name` from the compiled module `epaxos._ext.<module>` if it is to be had, else `pure`."""
    compiled: Any = None
    if not FORCED_PURE:
        try:
            compiled = getattr(importlib.import_module(f"epaxos._ext.{module}"), name)
        except ModuleNotFoundError:
            compiled = None
    _chosen[f"{module}.{name}"] = "pure" if compiled is None else "compiled"
    return pure if compiled is None else compiled


def in_use() -> dict[str, str]:
    """module.name -> "compiled" or "pure", for everything chosen so far."""
    return dict(_chosen)


def summary() -> str:
    """One word for people: compiled, pure, or mixed."""
    kinds = set(_chosen.values())
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "pure"
