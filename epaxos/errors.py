"""Errors say whose fault it is, and whether the outcome is known.

A caller of the engine learns one of three things about a command: it was applied and here is the
result; it was `Rejected` and certainly not applied; or the outcome is `Unknown`. There is no fourth.
"""

from __future__ import annotations


class EpaxosError(Exception):
    """The root of everything this package raises on purpose."""


class Rejected(EpaxosError):
    """The command was certainly not applied, and never will be. `reason` is a stable word."""

    REASONS = frozenset(
        {
            *("busy", "closed", "deadline", "too_large", "malformed", "no_quorum"),
            *("session_closed", "out_of_order"),
        }
    )

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in self.REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Unknown(EpaxosError):
    """The command may or may not have been applied, now or later. Nobody will send it a second time."""


class ConfigError(EpaxosError):
    """The configuration or the command line is wrong; the message says where and what is allowed."""


class ProtocolError(EpaxosError):
    """A peer or a client sent something that no correct program sends. `peer` says who."""

    def __init__(self, message: str, *, peer: str = "") -> None:
        super().__init__(f"{peer}: {message}" if peer else message)
        self.peer = peer


class StorageError(EpaxosError):
    """The data directory cannot be used, or a record in it is not sound; the message says what to do."""


class MachineError(EpaxosError):
    """The user's state machine raised. A replica stops: applying less than the others would diverge."""
