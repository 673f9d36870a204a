"""What the answers of the replica at hand are made from."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol as Interface


class Host(Interface):
    """What the answers need of the replica."""

    def now_us(self) -> int:
        """The monotonic clock."""

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


@dataclass(slots=True)
class Traffic:
    """What came and went, since the start or since the counters began anew."""

    connections: int = 0
    turned_away: int = 0
    """Of them: there were too many."""
    input_bytes: int = 0
    output_bytes: int = 0
    _second: int = 0
    _commands: int = 0
    """In that second of the clock."""
    _before: int = 0
    """In the one before it."""

    def count(self, commands: int, now_us: int) -> None:
        """So many commands came."""
        self._begin(now_us // 1_000_000)
        self._commands += commands

    def commands_per_s(self, now_us: int) -> int:
        """How many came in the last full second."""
        self._begin(now_us // 1_000_000)
        return self._before

    def reset(self) -> None:
        """Begin the counters anew."""
        self.connections = self.turned_away = self.input_bytes = self.output_bytes = 0

    def _begin(self, second: int) -> None:
        if second != self._second:
            self._before = self._commands if second == self._second + 1 else 0
            self._second, self._commands = second, 0


@dataclass(frozen=True, slots=True)
class Server:
    """What is the same for all connections."""

    host: Host
    password: bytes | None
    max_clients: int
    count_keys: Callable[[], int]
    port: int
    """Where it listens for clients; 0 where that is no port."""
    traffic: Traffic

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
