"""A Redis server, and connections that hear every byte of a reply.

They are plain blocking sockets: a comparison runs in one thread, one request after the other.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cluster import free_ports

WITHIN_S = 60.0
"""No server takes so long for anything."""

STRING_LIMIT = 1 << 25
"""The longest string of ours; Redis is told to have the same."""


def packed(*words: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Talk:
    """One connection. Replies are the very bytes that came, cut where each of them ends."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WITHIN_S)
        self._socket.settimeout(WITHIN_S)
        self._buffer = bytearray()
        self._at = 0

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._socket.sendall(data)

    def reply(self) -> bytes:
        """The next reply. Raises EOFError at the end of the connection."""
        start = self._at
        self._skip()
        reply = bytes(self._buffer[start : self._at])
        if self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0
        return reply

    def ask(self, *words: bytes) -> bytes:
        """One command, one reply."""
        self.send(packed(*words))
        return self.reply()

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        while data := self._socket.recv(1 << 16):
            self._buffer += data
        return bytes(self._buffer[self._at :])

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._at)) < 0:
            self._more()
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise EOFError(bytes(self._buffer[self._at :]))
        self._buffer += data

    def _skip(self) -> None:
        line = self._line()
        kind, count = line[:1], line[1:]
        if kind in b"$=" and count != b"-1":
            end = self._at + int(count) + 2
            while len(self._buffer) < end:
                self._more()
            self._at = end
        elif kind in b"*~%>" and count != b"-1":
            for _ in range(int(count) * (2 if kind == b"%" else 1)):
                self._skip()


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[int]:
    """A Redis server of its own; its port. It ends, and is waited for, when the block is left."""
    (port,) = free_ports(1)
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    words += ["--proto-max-bulk-len", str(STRING_LIMIT), "--dir", str(directory), *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    try:
        with process.stdout:
            lines = iter(process.stdout.readline, b"")
            assert any(b"Ready to accept connections" in line for line in lines), "redis-server did not start"
            yield port
    finally:
        process.terminate()
        process.wait()
