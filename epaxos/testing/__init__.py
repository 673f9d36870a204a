"""The public test kit: whole clusters in virtual time under faults, invariants, histories and their checkers.

`__all__` is what people rely on: `check_machine` tries a state machine of one's own without a cluster, `simulate` under
hostile schedules, and `History` with `Load` record and judge what clients of a running cluster saw.

Beside these: `epaxos.testing.seeds` runs simulated clusters, `epaxos.testing.linearizability` judges the history of one
object and `epaxos.testing.cycles` that of commands on several, `epaxos.testing.conformance` holds what every store must
do, `epaxos.testing.byhand` is a cluster in which every event is the caller's, and `epaxos.testing.mutants` puts bugs in
to see whether all of this finds them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from epaxos.testing.history import History, Load
    from epaxos.testing.machines import MachineFault, MachineReport, check_machine
    from epaxos.testing.simulation import Simulated, simulate

__all__ = [
    "History",
    "Load",
    "MachineFault",
    "MachineReport",
    "Simulated",
    "check_machine",
    "simulate",
]

_HOMES: Final = {
    "History": "history",
    "Load": "history",
    "MachineFault": "machines",
    "MachineReport": "machines",
    "Simulated": "simulation",
    "check_machine": "machines",
    "simulate": "simulation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
