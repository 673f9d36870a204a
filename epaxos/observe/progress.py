"""How far a replica is that starts: it serves nobody before it has read its log, and that can take a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

from epaxos.observe.log import Log
from epaxos.protocols.interface import LogView

SAY_S: Final = 2.0
"""How often it says so."""


class Progress:
    """Says now and then how much is done of something that has begun."""

    def __init__(self, log: Log, event: str, unit: str) -> None:
        self._log = log
        self._event = event
        self._unit = unit
        self._said_s = trio.current_time()

    def at(self, count: int) -> None:
        """So many units are done."""
        now_s = trio.current_time()
        if now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            self._log.event(self._event, f"{count} {self._unit} so far", **{self._unit: count})


class AloudView:
    """A `LogView` that says how far a scan is, since protocols read the whole log when they start."""

    def __init__(self, view: LogView, log: Log) -> None:
        self._view = view
        self._log = log

    def get(self, key: bytes) -> bytes | None:
        """See `LogView`."""
        return self._view.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `LogView`."""
        progress = Progress(self._log, "reading", "records")
        for count, record in enumerate(self._view.scan(first, last), 1):
            progress.at(count)
            yield record
