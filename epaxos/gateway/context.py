"""What the answers of the replica at hand are made from."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol as Interface


class Host(Interface):
    """What the answers need of the replica."""

    def status(self) -> Mapping[str, object]:
        """Counters and watermarks for people, JSON-able."""

    def prometheus(self) -> str:
        """`status`, and the latencies, in Prometheus's text format."""

    def reset_stats(self) -> None:
        """Begin the counters anew."""


@dataclass(slots=True)
class Client:
    """One connection, as its client may see and shape it."""

    id: int
    dialect: int = 2
    """Of the protocol: RESP2 or RESP3."""
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""
    authenticated: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """What is the same for all connections."""

    host: Host
    password: bytes | None
    max_clients: int
    count_keys: Callable[[], int]

    def client(self, number: int) -> Client:
        """A new connection."""
        return Client(number, authenticated=self.password is None)

    def is_password(self, password: bytes) -> bool:
        """Is this the password?"""
        return self.password is not None and hmac.compare_digest(password, self.password)


class Context(NamedTuple):
    """What an answer is made from."""

    server: Server
    client: Client
    clients: int
    """Connections of this replica."""
    args: Sequence[bytes]


Answer = Callable[[Context], bytes]
