"""A leaderless, geo-distributed replication engine: a replicated command log, and a key-value store on top of it.

    async with epaxos.open_replica(config, "CA", machine, data="./ca") as replica:
        reply = await replica.propose(command, writes=[b"a"])

`__all__` is the public surface; a name is imported when it is first used, so that `epaxos --help` need not wait for
the network stack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from epaxos._version import VERSION

if TYPE_CHECKING:
    from epaxos.client import Client, ResponseError
    from epaxos.client.foreign import AsyncioClient, SyncClient
    from epaxos.config import Config
    from epaxos.errors import (
        ConfigError,
        EpaxosError,
        MachineError,
        ProtocolError,
        Rejected,
        StorageError,
        Unknown,
    )
    from epaxos.log import LogEntry
    from epaxos.machines.interface import StateMachine
    from epaxos.replica import Replica, open_replica

__all__ = [
    "AsyncioClient",
    "Client",
    "Config",
    "ConfigError",
    "EpaxosError",
    "LogEntry",
    "MachineError",
    "ProtocolError",
    "Rejected",
    "Replica",
    "ResponseError",
    "StateMachine",
    "StorageError",
    "SyncClient",
    "Unknown",
    "__version__",
    "open_replica",
]

__version__: Final = VERSION

_HOMES: Final = {
    "AsyncioClient": "epaxos.client.foreign",
    "Client": "epaxos.client",
    "Config": "epaxos.config",
    "ConfigError": "epaxos.errors",
    "EpaxosError": "epaxos.errors",
    "LogEntry": "epaxos.log",
    "MachineError": "epaxos.errors",
    "ProtocolError": "epaxos.errors",
    "Rejected": "epaxos.errors",
    "Replica": "epaxos.replica",
    "ResponseError": "epaxos.client",
    "StateMachine": "epaxos.machines.interface",
    "StorageError": "epaxos.errors",
    "SyncClient": "epaxos.client.foreign",
    "Unknown": "epaxos.errors",
    "open_replica": "epaxos.replica",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
