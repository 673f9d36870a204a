"""The parser of what clients send: bytes in, packed runs and the few other things in between out.

`parse` is the compiled twin (`ext/resp.pyx`) when it was built: it packs the plain commands without making a Python
object for any of them. Both twins hold no state: what is not complete stays unconsumed and is offered again with more
behind it. What they refuse they refuse as early as it can be told, at the length, so the buffer stays bounded.
"""

from __future__ import annotations

from typing import Final

from epaxos import replies
from epaxos.accel import choose
from epaxos.command import MAX_ENTRIES, MAX_KEY_BYTES, RUN_HEADER, Command
from epaxos.errors import Rejected
from epaxos.gateway.commands import packed_bytes, plan
from epaxos.gateway.inline import split_inline
from epaxos.gateway.items import Broken, Item, Local, Parsed, ParseLimits, Refused, Run
from epaxos.machines.numbers import parse_i64
from epaxos.packing import encode_run

LINE_BYTES: Final = 64 * 1024
"""A line (of an inline command, or of a length) ends within so many bytes, or never does."""

MAX_ARGS: Final = (1 << 31) - 1
"""A command announces no more words. How many there really are is bounded by its bytes."""


def command_bytes(limits: ParseLimits) -> int:
    """The most bytes a command takes on the wire: what fits a run fits this, however it is framed."""
    return 2 * limits.run_bytes


def bulk_bytes(limits: ParseLimits) -> int:
    """The longest word: a key that is too long is to be refused politely."""
    return max(limits.value_bytes, MAX_KEY_BYTES)


def broken(why: bytes) -> Broken:
    """The client breaks the protocol, in Redis's words."""
    return Broken(replies.error(b"ERR Protocol error: " + why))


def oversized(limits: ParseLimits) -> Broken:
    """A command whose bytes nobody will wait for."""
    detail = f"a command of more than {command_bytes(limits)} bytes on the wire"
    return Broken(replies.failure(Rejected("too_large", detail)))


def changes_dialect(outcome: Command | Item) -> bool:
    """Is this a command after which the client may speak another dialect of the protocol?"""
    return isinstance(outcome, Local) and outcome.args[0].lower() in (b"hello", b"reset")


class _Runs:
    """Gathers consecutive replicated commands into runs, between the other items."""

    def __init__(self, secret: bytes, limits: ParseLimits) -> None:
        self.items: list[Item] = []
        self._secret = secret
        self._limits = limits
        self._clear()

    def _clear(self) -> None:
        self._commands: list[Command] = []
        self._entries = 0
        self._bytes = RUN_HEADER.size

    def add(self, outcome: Command | Local | Refused | Broken) -> None:
        """The next of what the client sent."""
        if isinstance(outcome, Local | Refused | Broken):
            self.flush()
            self.items.append(outcome)
            return
        size = packed_bytes(outcome)
        if self._bytes + size > self._limits.run_bytes or self._entries + len(outcome) > MAX_ENTRIES:
            self.flush()
        self._commands.append(outcome)
        self._entries += len(outcome)
        self._bytes += size
        if len(self._commands) == self._limits.run_commands:
            self.flush()

    def flush(self) -> None:
        """Close the run at hand."""
        if self._commands:
            self.items.append(Run(encode_run(self._secret, self._commands), len(self._commands)))
            self._clear()


def py_parse(buffer: bytes, secret: bytes, limits: ParseLimits) -> Parsed:
    """Everything complete at the front of `buffer`, in order, until it ends or the client breaks the protocol.

    It goes no further than a command that changes the dialect: what follows is to be parsed with other limits.
    """
    runs = _Runs(secret, limits)
    at = 0
    while at < len(buffer):
        found = _multibulk(buffer, at, limits) if buffer[at] == ord("*") else _inline(buffer, at)
        if found is None:
            break
        if isinstance(found, Broken):
            runs.add(found)
            break
        args, at = found
        if args:
            outcome = plan(args, limits)
            runs.add(outcome)
            if changes_dialect(outcome):
                break
    runs.flush()
    return Parsed(at, runs.items)


def _inline(buffer: bytes, at: int) -> tuple[list[bytes], int] | Broken | None:
    """(words, where the next command begins); None when the line has not ended yet."""
    end = buffer.find(b"\n", at, at + LINE_BYTES + 1)
    if end < 0:
        return broken(b"too big inline request") if len(buffer) - at > LINE_BYTES else None
    words = split_inline(buffer[at:end].removesuffix(b"\r"))
    return broken(b"unbalanced quotes in request") if words is None else (words, end + 1)


def _multibulk(buffer: bytes, start: int, limits: ParseLimits) -> tuple[list[bytes], int] | Broken | None:
    """As `_inline`, for a command in the form of an array of bulk strings."""
    line = _line(buffer, start, b"too big mbulk count string")
    if line is None or isinstance(line, Broken):
        return line
    text, at = line
    count = parse_i64(text)
    if count is None or count > MAX_ARGS:
        return broken(b"invalid multibulk length")
    args: list[bytes] = []
    for _ in range(count):
        line = _line(buffer, at, b"too big bulk count string")
        if line is None or isinstance(line, Broken):
            return line
        if buffer[at] != ord("$"):
            return broken(b"expected '$', got '%c'" % buffer[at])
        text, at = line
        size = parse_i64(text)
        if size is None or not 0 <= size <= bulk_bytes(limits):
            return broken(b"invalid bulk length")
        if at + size + 2 - start > command_bytes(limits):
            return oversized(limits)
        if at + size + 2 > len(buffer):
            return None
        args.append(buffer[at : at + size])
        at += size + 2
    return args, at


def _line(buffer: bytes, at: int, too_big: bytes) -> tuple[bytes, int] | Broken | None:
    """(the line without its first byte, where the next begins); None when it has not ended yet.

    A line ends with a carriage return and whatever byte follows it, as in Redis.
    """
    end = buffer.find(b"\r", at, at + LINE_BYTES + 1)
    if end < 0:
        return broken(too_big) if len(buffer) - at > LINE_BYTES else None
    return None if end + 2 > len(buffer) else (buffer[at + 1 : end], end + 2)


parse = choose("resp", "parse", py_parse)
"""The twin in use."""
