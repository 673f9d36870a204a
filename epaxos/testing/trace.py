"""What happened in a run, as one canonical line an event: hashed always, kept or printed on demand.

Two runs of one seed have the same hash, whatever the hash seed of the interpreter and whichever twins are in use; a
test says so. Lines therefore hold only numbers and names, never addresses or the order of a set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

_FLUSH_LINES: Final = 512

Sink = Callable[[str], None]


class Trace:
    """The lines of one run. `sink`, when given, gets each line as it happens."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._hash = hashlib.blake2b(digest_size=16)
        self._buffer: list[str] = []

    def line(self, text: str) -> None:
        """An event of the run."""
        self._buffer.append(text)
        if len(self._buffer) >= _FLUSH_LINES:
            self._flush()
        if self._sink is not None:
            self._sink(text)

    @property
    def verbose(self) -> bool:
        """Does anybody read along? Details are worth their cost only then."""
        return self._sink is not None

    def detail(self, text: str) -> None:
        """Something for readers only; it is no part of the hash."""
        if self._sink is not None:
            self._sink("    " + text)

    def digest(self) -> str:
        """The hash of all lines so far, in hexadecimal."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if self._buffer:
            self._buffer.append("")
            self._hash.update("\n".join(self._buffer).encode())
            self._buffer.clear()
