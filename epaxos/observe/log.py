"""The log of a replica: one line an event, for people on a terminal, as JSON otherwise.

Events have stable names in snake_case, and an instance is written `replica.slot`: `fast_commit CA.118`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, TextIO

from epaxos.ids import InstanceId
from epaxos.protocols.interface import Note

Form = Literal["auto", "text", "json"]
"""`auto` is `text` on a terminal and `json` elsewhere."""


def instance_name(id_: InstanceId, names: Sequence[str]) -> str:
    """`CA.118`, or `CA.118@2` in an epoch behind the first."""
    name = f"{names[id_.lane]}.{id_.slot}"
    return f"{name}@{id_.epoch}" if id_.epoch else name


class Log:
    """Writes the events of the replica `name`. A line that cannot be written stops nobody."""

    def __init__(
        self,
        name: str,
        names: Sequence[str] = (),
        *,
        out: TextIO | None = None,
        form: Form = "auto",
        trace: bool = False,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`names` are the replicas' by id, `out` is stderr by default; `trace` writes the protocol's notes too."""
        self._name = name
        self._names = names
        self._out = sys.stderr if out is None else out
        self._json = form == "json" or (form == "auto" and not self._out.isatty())
        self._wall_s = wall_s
        self._trace = trace

    def event(self, event: str, text: str = "", **fields: object) -> None:
        """Write one event: `text` is for people, `fields` are JSON-able values."""
        line = self._as_json(event, text, fields) if self._json else self._as_text(event, text, fields)
        with suppress(OSError, ValueError):
            self._out.write(line + "\n")
            self._out.flush()

    def note(self, note: Note) -> None:
        """Write what a protocol thinks worth tracing, when tracing is on."""
        if self._trace:
            id_ = "" if note.id is None else instance_name(note.id, self._names)
            self.event(note.event, " ".join(filter(None, (id_, note.detail))))

    def _as_json(self, event: str, text: str, fields: dict[str, object]) -> str:
        now = self._wall_s()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1_000_000):06d}Z"
        head = {"time": at, "replica": self._name, "event": event}
        return json.dumps({**head, **({"text": text} if text else {}), **fields}, default=str)

    def _as_text(self, event: str, text: str, fields: dict[str, object]) -> str:
        now = self._wall_s()
        at = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1_000):03d}"
        rest = (text, *(f"{key}={value}" for key, value in fields.items()))
        line = " ".join(filter(None, (at, self._name, event, *rest)))
        return "".join(char if char.isprintable() else "?" for char in line)
