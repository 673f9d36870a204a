"""What the log iterator gives."""

from __future__ import annotations

from typing import NamedTuple


class LogEntry(NamedTuple):
    """One executed command. Replicas agree on the order of conflicting commands, not on the whole order."""

    cursor: int
    """Resume with `after=cursor`: a local number that survives restarts with the command it belongs to."""
    op: int
    keys: tuple[bytes, ...]
    payload: bytes
