"""What a parser makes of the bytes of a client, in order."""

from __future__ import annotations

from typing import NamedTuple

from epaxos.command import HEADER
from epaxos.limits import LimitsConfig


class Run(NamedTuple):
    """Consecutive commands to be replicated, packed together (see `command.py`)."""

    run: bytes
    commands: int
    """How many they are."""


class Local(NamedTuple):
    """A command that the replica at hand answers by itself: its words, the first of them its name."""

    args: list[bytes]


class Refused(NamedTuple):
    """A command that is wrong, or has its reply already: this is it, and the connection goes on."""

    reply: bytes
    fatal: bool = False
    """Does it end a transaction at once? Otherwise it is queued, and this is its reply among the others."""


class Broken(NamedTuple):
    """The client does not speak the protocol: this is the last it hears, then the connection is closed."""

    reply: bytes


class Foreign(NamedTuple):
    """No client of Redis says this: something else was made to speak to this port. The connection is closed at once,
    without a word, and nothing behind this is looked at."""

    word: bytes


Item = Run | Local | Refused | Broken | Foreign


class Unheard(NamedTuple):
    """A command to be replicated whose reply nobody waits for."""

    run: bytes


Step = Item | Unheard
"""What is to be done for a connection."""


class ParseLimits(NamedTuple):
    """What a parser accepts."""

    key_bytes: int
    """The longest key; a command with a longer one is refused."""
    value_bytes: int
    """The longest value; a command with a longer one is refused. At least 8: an increment is one."""
    run_commands: int
    """A run is closed when it has so many commands."""
    run_bytes: int
    """The packed size of the largest run, so also of the largest command."""
    dialect: int = 2
    """Of the protocol, RESP2 or RESP3: some replies have types of their own in the second."""
    stranger: bool = False
    """Has the client not shown the password that is asked for? Its commands are short then."""

    @classmethod
    def of(cls, limits: LimitsConfig) -> ParseLimits:
        """The bounds of the configuration, as a parser wants them: every run fits a batch of its own."""
        return cls(
            key_bytes=limits.key_bytes,
            value_bytes=max(limits.value_bytes, 8),
            run_commands=min(limits.pipeline_commands, limits.batch_commands),
            run_bytes=limits.batch_bytes - HEADER.size,
        )
