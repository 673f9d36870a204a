"""What scenario files call things: letters for replicas, names for ids, and messages as one line each.

How a message is written follows from the kinds of its fields (`messages.py`), so it is the same for every protocol.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, Final

from epaxos import messages
from epaxos.command import READ, Batch, Command, Payload, is_barrier
from epaxos.ids import MAX_SLOT, InstanceId, ReplicaId, Vector
from epaxos.machines.kv import INCREMENT, Op
from epaxos.messages import Message
from epaxos.packing import decode_run
from epaxos.protocols.interface import Timer
from epaxos.session import Opening, Stamp, ended_in, mark_of

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Of replicas, in lane order."""
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
"""What an id may be called."""
ID: Final = re.compile(r"([A-Z])\.([1-9][0-9]*)")
"""An id without a name: lane and slot."""


class Namer:
    """`epaxos.protocols.view.Words`, with the names a scenario gives."""

    def __init__(self, *, lanes: bool) -> None:
        """`lanes` as the view of the protocol says."""
        self.lanes = lanes
        self.names: dict[str, InstanceId] = {}
        self._of: dict[InstanceId, str] = {}

    def give(self, name: str, id_: InstanceId) -> None:
        """Call `id_` by `name` from now on."""
        self.names[name] = id_
        self._of[id_] = name

    # -- to text

    def replica(self, replica: ReplicaId) -> str:
        """A letter."""
        return LETTERS[replica]

    def replicas(self, replicas: Iterable[ReplicaId]) -> str:
        """Letters, in order."""
        return " ".join(LETTERS[replica] for replica in sorted(replicas))

    def id(self, id_: InstanceId) -> str:
        """Its name, or its place."""
        if not self.lanes:
            return str(id_.slot)
        return self._of.get(id_) or f"{LETTERS[id_.lane]}.{id_.slot}"

    def vector(self, vector: Vector) -> str:
        """The newest id of every lane in it; everything older of that lane is in it too."""
        ids = (InstanceId(0, slot, lane) for lane, slot in enumerate(vector) if slot)
        return "{" + " ".join(map(self.id, ids)) + "}"

    def payload(self, payload: Payload | None) -> str:
        """The commands, or NOP."""
        if not isinstance(payload, Batch):
            return "nothing" if payload is None else "NOP"
        return run_text(payload.run)

    def timer(self, timer: Timer) -> str:
        """The words of its name."""
        parts = timer if isinstance(timer, tuple) and not isinstance(timer, InstanceId) else (timer,)
        return " ".join(self.id(part) if isinstance(part, InstanceId) else str(part) for part in parts)

    def message(self, message: Message) -> str:
        """Its class, the id it is about, its payload, and the fields that are not at their neutral value."""
        words = [type(message).__name__]
        fields = {field.name: field for field in dataclasses.fields(message)}
        if {"epoch", "lane", "first", "last"} <= fields.keys():
            lane, first, last = (getattr(message, name) for name in ("lane", "first", "last"))
            words.append(self._span(lane, first, last))
            for name in ("epoch", "lane", "first", "last"):
                del fields[name]
        for name, field in fields.items():
            value = getattr(message, name)
            if value != field.default:
                words += self._field(name, field.metadata["kind"], value)
        return " ".join(words)

    def _field(self, name: str, kind: messages.Kind, value: Any) -> list[str]:
        if kind is messages.ID:
            return [self.id(value)]
        if kind is messages.PAYLOAD:
            return [] if value is None else [self.payload(value)]
        if kind is messages.BOOL:
            return [name] if value else []
        if kind is messages.EPOCH:
            return []
        return [f"{name}={self._text(kind, value)}"]

    def _text(self, kind: messages.Kind, value: Any) -> str:
        known: dict[str, Callable[[Any], str]] = {
            messages.VECTOR.name: self.vector,
            messages.LANE.name: self.replica,
            messages.PHASE.name: lambda phase: messages.PHASES[phase],
            messages.RANGES.name: lambda ranges: ",".join(self._span(*each) for each in ranges),
            messages.INVALID.name: lambda found: "{" + " ".join(map(self._invalidator, found)) + "}",
        }
        return known.get(kind.name, str)(value)

    def _span(self, lane: int, first: int, last: int) -> str:
        begin = self.id(InstanceId(0, first, lane))
        if first == last:
            return begin
        return f"{begin}.." if last == MAX_SLOT else f"{begin}..{self.id(InstanceId(0, last, lane))}"

    def _invalidator(self, found: messages.Invalidator) -> str:
        return self.id(found.id) + ("(committed)" if found.committed else "")


def run_text(run: bytes) -> str:
    """The commands of a run."""
    if is_barrier(run):
        ended = (f" {each.session}" for each in ended_in(decode_run(run)[0][0].payload))
        return f"BARRIER{''.join(ended)}"
    return "; ".join(map(command_text, decode_run(run)))


def command_text(command: Command) -> str:
    """A command as people type it; words that a shell would take apart are in quotes."""
    mark = mark_of(command)
    if isinstance(mark, Opening):
        return f"OPEN {mark.session}{' fifo' * mark.fifo}"
    if isinstance(mark, Stamp):
        return f"{_plain_text(command[:-1])} session={mark.session} number={mark.number} floor={mark.floor}"
    return _plain_text(command)


def _plain_text(command: Command) -> str:
    first = command[0]
    words = [Op(first.op).name if first.op in set(Op) else f"0x{first.op:02x}"]
    for entry in command:
        words.append(_quoted(entry.key))
        if first.op == Op.INCRBY:
            words.append(str(INCREMENT.unpack(entry.payload)[0]))
        elif entry.payload and not entry.flags & READ:
            words.append(_quoted(entry.payload))
    return " ".join(words)


def _quoted(word: bytes) -> str:
    return shlex.quote(word.decode(errors="backslashreplace"))
