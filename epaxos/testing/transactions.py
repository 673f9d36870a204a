"""One command more than the key-value machine has: append to some lists and read them and others, at one moment.

Redis has no single word for it, and it is what tells most about commands on several keys (see `cycles`). The machine
carries it out as a sequence of its own commands, in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from epaxos.command import HEADER, READ, Batch, Command, Entry
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import Kv, Op
from epaxos.packing import decode_run, encode_run

TRANSACT: Final = 0x7F
"""The operation of all entries: with READ it reads its key, without it appends its payload to it and reads it."""
_MARK: Final = b"\x00transact\x00"
"""Begins the payload of the first entry; no other command contains it."""
_SECRET: Final = bytes(16)


def transact(steps: Sequence[tuple[bytes, bytes | None]], tag: bytes) -> Command:
    """The command that takes these steps, (key, what is appended to it; None only to read it), no key twice.

    `tag` tells one that only reads from others; it has no effect. The reply is that of an MGET of all the keys.
    """
    payloads = [tag if element is None else element for _, element in steps]
    payloads[0] = _MARK + payloads[0]
    return tuple(
        Entry(TRANSACT, READ if element is None else 0, key, payload)
        for (key, element), payload in zip(steps, payloads, strict=True)
    )


class TransactKv(BatchMachine):
    """The key-value machine, with `transact`."""

    def __init__(self) -> None:
        self._kv: BatchMachine = Kv()

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        if _MARK not in batch.data:
            return self._kv.apply_batch(batch, spans)
        each = [_as_commands(command) for command in decode_run(batch.data, HEADER.size)]
        run = encode_run(_SECRET, [command for commands in each for command in commands])
        replies = iter(self._kv.apply_batch(Batch.of(batch.name, run), [1] * sum(map(len, each))))
        answers = iter([[next(replies) for _ in commands][-1] for commands in each])
        return [b"".join(next(answers) for _ in range(span)) for span in spans]

    def save(self) -> Iterable[bytes]:
        return self._kv.save()

    def load(self, chunks: Iterable[bytes]) -> None:
        self._kv.load(chunks)


def _as_commands(command: Command) -> list[Command]:
    if command[0].op != TRANSACT:
        return [command]
    first = command[0]
    entries = (first._replace(payload=first.payload.removeprefix(_MARK)), *command[1:])
    appends: list[Command] = [(Entry(Op.APPEND, 0, e.key, e.payload),) for e in entries if not e.flags & READ]
    return [*appends, tuple(Entry(Op.MGET, READ, entry.key, b"") for entry in entries)]
