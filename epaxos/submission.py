"""What clients hand to the engine, and the bounds on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol as Interface

from epaxos.errors import Rejected, Unknown


class Waiter(Interface):
    """Who waits for the outcome of a run. The engine calls it inside `turn`, once for every command, in pieces."""

    def reply(self, first: int, count: int, data: bytes) -> None:
        """Commands first … first+count-1 of the run were applied; `data` is their replies, concatenated."""

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """The outcome of these commands, when it is not a result."""


class _Nobody:
    def reply(self, first: int, count: int, data: bytes) -> None:
        """See `Waiter`."""

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """See `Waiter`."""


NOBODY: Final[Waiter] = _Nobody()
"""For a run whose outcome nobody waits for."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Commands of one client: a run (see `command.py`) of `count` commands.

    Conflicting commands of one `stream` (a connection, a session) take effect in the order of their submission.
    """

    waiter: Waiter
    stream: int
    run: bytes
    count: int
    deadline_us: int
    """Monotonic. Afterwards the caller is told `Rejected("deadline")` when it was never proposed, else `Unknown`."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits any more. What is not yet proposed is dropped; the rest takes its course."""

    waiter: Waiter


class Limits(NamedTuple):
    """The engine's bounds; `limits.py` documents each, with both extremes."""

    window: int = 1024
    entangled_window: int = 8
    batch_commands: int = 4096
    batch_bytes: int = 1 << 20
    batch_inflight: int = 4
    batch_age_us: int = 1_000
    pending_commands: int = 1 << 16
    pending_bytes: int = 1 << 26
    lazy_us: int = 50_000
    blocked_us: int = 20_000
    sessions: int = 10_000
    session_idle_ms: int = 3_600_000


DEFAULT_LIMITS: Final = Limits()
