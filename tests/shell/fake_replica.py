"""A replica without a cluster: what is submitted goes to a key-value machine, at once or when the test says so."""

from __future__ import annotations

from typing import NamedTuple

import trio

from epaxos.command import Batch
from epaxos.errors import Rejected, Unknown
from epaxos.ids import BatchNumber
from epaxos.machines.kv import Kv
from epaxos.packing import cut_run
from epaxos.session import SessionId
from epaxos.submission import Waiter

SECRET = bytes(range(16))


class Submitted(NamedTuple):
    """One run of one connection."""

    waiter: Waiter
    stream: int
    run: bytes
    commands: int
    deadline_us: int


class FakeReplica:
    """See `gateway.server.Replica`. With `holding`, nothing is answered before `answer` or `fail`."""

    secret = SECRET

    def __init__(self, *, holding: bool = False) -> None:
        self.kv = Kv()
        self.holding = holding
        self.submitted: list[Submitted] = []
        self.has_submitted = trio.Event()
        self.cancelled: list[Waiter] = []
        self.resets = 0
        self._streams = 0

    def new_stream(self) -> int:
        self._streams += 1
        return self._streams

    def new_session(self) -> SessionId:
        return SessionId(0, 1, self.new_stream())

    def submit(self, waiter: Waiter, stream: int, run: bytes, count: int, deadline_us: int) -> None:
        self.submitted.append(Submitted(waiter, stream, run, count, deadline_us))
        self.has_submitted.set()
        if not self.holding:
            self.answer(len(self.submitted) - 1)

    def cancel(self, waiter: Waiter) -> None:
        self.cancelled.append(waiter)

    def now_us(self) -> int:
        return int(trio.current_time() * 1e6)

    def status(self) -> dict[str, object]:
        return {"name": "CA", "commands": self.commands}

    def prometheus(self) -> str:
        return f"commands {self.commands}\n"

    def reset_stats(self) -> None:
        self.resets += 1

    @property
    def commands(self) -> int:
        """How many commands were submitted."""
        return sum(each.commands for each in self.submitted)

    def answer(self, at: int, first: int = 0, count: int | None = None) -> None:
        """Apply these commands of the run `at` and reply to them: all of them, unless `count` is given."""
        waiter, _, run, commands, _ = self.submitted[at]
        count = commands - first if count is None else count
        batch = Batch.of(BatchNumber(0, 1, at), cut_run(run, first, count))
        (data,) = self.kv.apply_batch(batch, [count])
        waiter.reply(first, count, data)

    def fail(self, at: int, error: Rejected | Unknown, first: int = 0, count: int | None = None) -> None:
        """Settle these commands of the run `at` without a result."""
        submitted = self.submitted[at]
        submitted.waiter.fail(first, submitted.commands - first if count is None else count, error)


def request(*words: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
