"""Where links come from: TCP between the addresses of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol as Interface

import trio

from epaxos.config import Address, Config
from epaxos.errors import ConfigError
from epaxos.ids import ReplicaId


class Network(Interface):
    """How one replica reaches the others."""

    async def listen(self) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Where the others reach this replica. Raises ConfigError when that is not possible."""

    async def dial(self, peer: ReplicaId) -> trio.abc.Stream:
        """A new connection to `peer`. Raises OSError."""


class TcpNetwork:
    """The `peer` addresses of a configuration."""

    def __init__(self, config: Config, me: ReplicaId) -> None:
        self._addresses = [replica.peer for replica in config.replicas]
        self._me = me

    async def listen(self) -> Sequence[trio.SocketListener]:
        """As `Network.listen`."""
        return await listen_on(self._addresses[self._me])

    async def dial(self, peer: ReplicaId) -> trio.SocketStream:
        """As `Network.dial`."""
        address = self._addresses[peer]
        return await trio.open_tcp_stream(address.host, address.port)


async def listen_on(address: Address) -> Sequence[trio.SocketListener]:
    """Listen on one address. Raises ConfigError when it is in use, or not of this machine."""
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}") from error
