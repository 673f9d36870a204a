"""The machine that users write, behind the interface that the engine calls.

An opaque command is one entry for every key it names; the command's own bytes are the payload of the first. A command
that names no key touches the whole state: correct, and ordered against everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from epaxos.command import HEADER, READ, WHOLE, Batch, Command, Entry
from epaxos.errors import MachineError
from epaxos.machines.interface import BatchMachine, StateMachine
from epaxos.packing import decode_run

OPAQUE_OP: Final = 0x01
"""The operation of every opaque command: what it means is in its bytes."""


def opaque_command(command: bytes, *, reads: Iterable[bytes] = (), writes: Iterable[bytes] = ()) -> Command:
    """The packed form of `command`, which reads and writes these keys; a key in both is written.

    With no key at all it conflicts with everything. Naming too few keys is the one way to be wrong. Raises TypeError
    for what is not bytes, or not a list of keys.
    """
    if not isinstance(command, bytes):
        raise TypeError(f"a command is bytes, not {type(command).__name__}")
    written = _keys("writes", writes)
    read = [key for key in _keys("reads", reads) if key not in written]
    touched = [(0, key) for key in written] + [(READ, key) for key in read] or [(WHOLE, b"")]
    return tuple(Entry(OPAQUE_OP, flags, key, b"" if i else command) for i, (flags, key) in enumerate(touched))


def opaque_query(query: bytes, *, reads: Iterable[bytes] = ()) -> Command:
    """As `opaque_command`, of a `query` that reads these keys, or with no key at all the whole state."""
    command = opaque_command(query, reads=reads)
    return tuple(entry._replace(flags=entry.flags | READ) for entry in command)


def _keys(name: str, keys: Iterable[bytes]) -> dict[bytes, None]:
    """Each of them once, in order."""
    if isinstance(keys, bytes | str):
        raise TypeError(f"{name} is a list of keys, such as [b'alice']")
    listed = list(keys)
    for key in listed:
        if not isinstance(key, bytes):
            raise TypeError(f"a key in {name} is bytes, not {type(key).__name__}: {key!r}")
    return dict.fromkeys(listed)


class OpaqueMachine(BatchMachine):
    """Runs a `StateMachine`, one command at a time. What it raises comes out as MachineError."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        replies = self._replies(batch)
        if not spans:
            for _ in replies:
                continue
            return []
        answers = [b"".join(next(replies) for _ in range(span)) for span in spans]
        if next(replies, None) is not None:
            raise ValueError(f"{sum(spans)} commands are waited for, and the batch has more")
        return answers

    def save(self) -> Iterable[bytes]:
        return self.machine.save()

    def load(self, chunks: Iterable[bytes]) -> None:
        self.machine.load(chunks)

    def _replies(self, batch: Batch) -> Iterator[bytes]:
        for command in decode_run(batch.data, HEADER.size):
            yield self._apply(command[0].payload)

    def _apply(self, command: bytes) -> bytes:
        name = type(self.machine).__name__
        try:
            reply = self.machine.apply(command)
        except Exception as error:
            raise MachineError(f"{name}.apply raised {type(error).__name__}: {error}") from error
        if type(reply) is not bytes:
            raise MachineError(f"{name}.apply returned {type(reply).__name__}, not bytes")
        return reply
