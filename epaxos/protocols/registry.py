"""Which protocols there are: the one place that names them, behind the one switch in `cluster.toml`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from epaxos.errors import ConfigError
from epaxos.execution.graph import GraphExecutor
from epaxos.execution.interface import Executor
from epaxos.execution.total import TotalExecutor
from epaxos.protocols.epaxos.protocol import EPaxos
from epaxos.protocols.epaxos.view import EPaxosView
from epaxos.protocols.interface import LogView, Protocol, ProtocolConfig, Random
from epaxos.protocols.raft.protocol import Raft
from epaxos.protocols.raft.view import RaftView
from epaxos.protocols.view import View

Factory = Callable[[ProtocolConfig, Random, LogView], tuple[Protocol, Executor]]


def _epaxos(config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
    return EPaxos(config, rng, log), GraphExecutor(config.n)


def _raft(config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
    return Raft(config, rng, log), TotalExecutor(config.n)


PROTOCOLS: Final[dict[str, Factory]] = {"epaxos": _epaxos, "raft": _raft}
VIEWS: Final[dict[str, View]] = {"epaxos": EPaxosView(), "raft": RaftView()}
"""How each shows its state to people."""


def build(name: str, config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
    """The protocol of that name and the executor that understands its orders. Raises ConfigError for an unknown one."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name!r} is unknown; this release has {', '.join(sorted(PROTOCOLS))}")
    return PROTOCOLS[name](config, rng, log)
