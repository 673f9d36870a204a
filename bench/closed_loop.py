"""A closed-loop load: every client sends its next command as soon as it has the reply to the last one.

It finds how much a cluster takes, and what a command waits at each number of clients. It says nothing about latency
under a given load: clients that wait do not send, so a stall hides what would have arrived meanwhile (`bench.load` does
not). One thread and one epoll for all connections: a command costs it about ten microseconds, since it takes its time
from the same processors as the replicas.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.open_loop import Connect
from bench.tally import REASONS_MAX

KEYS: Final = 100_000
"""Each client draws from so many of its own."""
VALUE: Final = b"v" * 16
_RECEIVE_BYTES: Final = 4096
_LINE_MAX_BYTES: Final = 4096
"""A longer reply than this is no answer to a SET."""
_POLL_S: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class ClosedLoad:
    """How to load. `clients` in all, spread evenly over the replicas."""

    clients: int
    seconds: float
    """That are counted."""
    warmup_s: float
    """That are not, before them."""
    hot_share: float = 0.0
    """Of the commands, on one key for all clients."""
    seed: int = 1


@dataclass(kw_only=True)
class Closed:
    """What became of it, in the counted time."""

    seconds: float
    """How long that was in the end."""
    took_us: array[int] = field(default_factory=lambda: array("q"))
    """From sending a command to its reply, in the order of the replies."""
    errors: Counter[str] = field(default_factory=Counter)
    """Error text -> how often."""

    @property
    def per_s(self) -> float:
        """Commands answered a second."""
        return len(self.took_us) / self.seconds


class _Client:
    """One connection, with at most one command out."""

    def __init__(self, number: int, connection: socket.socket, load: ClosedLoad) -> None:
        self.socket = connection
        self.sent_ns = 0
        self.line = b""
        self._rng = Random(f"{load.seed}/{number}")
        self._number = number
        self._hot_share = load.hot_share

    def send(self) -> None:
        """The next command. It is small and the last one was answered, so the buffer of the socket has room."""
        rng = self._rng
        if self._hot_share and rng.random() < self._hot_share:
            key = b"hot:%013d" % 0
        else:
            key = b"%08d:%08d" % (self._number, int(rng.random() * KEYS))
        self.sent_ns = time.perf_counter_ns()
        self.socket.send(b"*3\r\n$3\r\nSET\r\n$17\r\n%b\r\n$16\r\n%b\r\n" % (key, VALUE))

    def receive(self) -> bytes | None:
        """The reply without its end, b"" while there is more to come, None when the connection is lost."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except OSError:
            return None
        self.line += data
        if not data or len(self.line) > _LINE_MAX_BYTES:
            return None
        if not self.line.endswith(b"\r\n"):
            return b""
        line, self.line = self.line[:-2], b""
        return line


def run(connects: Sequence[Connect], load: ClosedLoad) -> Closed:
    """Load, and count. It blocks, for a thread of its own. Raises OSError when a connection cannot be opened."""
    clients: dict[int, _Client] = {}
    poll = select.epoll()
    try:
        for number in range(load.clients):
            client = _Client(number, connects[number % len(connects)](), load)
            clients[client.socket.fileno()] = client
            poll.register(client.socket.fileno(), select.EPOLLIN)
        for client in clients.values():
            client.send()
        return _counted(poll, clients, load)
    finally:
        poll.close()
        for client in clients.values():
            client.socket.close()


def _counted(poll: select.epoll, clients: dict[int, _Client], load: ClosedLoad) -> Closed:
    first_ns = time.perf_counter_ns() + round(load.warmup_s * 1e9)
    last_ns = now_ns = first_ns + round(load.seconds * 1e9)
    result = Closed(seconds=load.seconds)
    while clients and (now_ns := time.perf_counter_ns()) < last_ns:
        for fd, _ in poll.poll(_POLL_S):
            client = clients[fd]
            line = client.receive()
            if line == b"":
                continue
            now_ns = time.perf_counter_ns()
            if line == b"+OK":
                if now_ns >= first_ns:
                    result.took_us.append((now_ns - client.sent_ns) // 1000)
            else:
                _count(result.errors, "connection lost" if line is None else line.decode(errors="replace"))
            if line is None:
                poll.unregister(fd)
                clients.pop(fd).socket.close()
            else:
                client.send()
    result.seconds = max(1e-9, (now_ns - first_ns) / 1e9)
    return result


def _count(errors: Counter[str], text: str) -> None:
    known = text in errors or len(errors) < REASONS_MAX
    errors[text if known else "(other texts)"] += 1
