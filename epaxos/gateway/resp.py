"""The parser of what clients send: bytes in, packed runs and the few other things in between out.

`Parser` is the compiled twin (`ext/resp.pyx`) when it was built: it packs the plain commands without making a Python
object for any of them. Both twins keep what is not complete, and go on where they were when more comes: however a
command arrives, no byte of it is looked at twice. What they refuse they refuse as early as it can be told, at the
length, so what they keep stays bounded; of what is complete they keep nothing.
"""

from __future__ import annotations

from typing import Final

from epaxos import replies
from epaxos.accel import choose
from epaxos.command import MAX_ENTRIES, MAX_KEY_BYTES, RUN_HEADER, Command
from epaxos.errors import Rejected
from epaxos.gateway.commands import packed_bytes, plan
from epaxos.gateway.inline import split_inline
from epaxos.gateway.items import Broken, Foreign, Item, Local, ParseLimits, Refused, Run
from epaxos.machines.numbers import parse_i64
from epaxos.packing import SECRET_BYTES, encode_run

LINE_BYTES: Final = 64 * 1024
"""A line (of an inline command, or of a length) ends within so many bytes, or never does."""

MAX_ARGS: Final = (1 << 31) - 1
"""A command announces no more words. How many there really are is bounded by its bytes."""

STRANGER_WORDS: Final = 10
STRANGER_BULK_BYTES: Final = 16 * 1024
"""Of a client that has not shown the password no more is held than so many words of this length, as in Redis."""


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


def halts(outcome: Command | Item) -> bool:
    """Is this one behind which nothing is parsed, or by other limits: of another dialect, or no more of a stranger?"""
    return isinstance(outcome, Foreign) or (
        isinstance(outcome, Local) and outcome.args[0].lower() in (b"auth", b"hello", b"reset")
    )


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

    def add(self, outcome: Command | Local | Refused | Broken | Foreign) -> None:
        """The next of what the client sent."""
        if isinstance(outcome, Local | Refused | Broken | Foreign):
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


class PyParser:
    """What one client sends: bytes in, items out."""

    def __init__(self, secret: bytes) -> None:
        """The secret is that of the hash of keys. Raises ValueError when it has not `SECRET_BYTES`."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
        self._secret = secret
        self._buffer = bytearray()
        """What no item was made of, and in it:"""
        self._at = 0
        """where what was not understood yet begins,"""
        self._looked = 0
        """in front of which place no line ends."""
        self._words: list[bytes] = []
        self._announced: int | None = None
        """How many words the command has that is not complete; None until that is known."""

    @property
    def held(self) -> int:
        """So many bytes came in of which no item was made yet."""
        return len(self._buffer)

    def feed(self, data: bytes, limits: ParseLimits) -> list[Item]:
        """What is complete with these bytes, in order, until the end or until the client breaks the protocol.

        It goes no further than what `halts`: what follows is to be parsed with other limits, by another call, or never.
        """
        self._buffer += data
        runs = _Runs(self._secret, limits)
        begin = 0
        while begin < len(self._buffer):
            args = self._multibulk(begin, limits) if self._buffer[begin] == ord("*") else self._inline()
            if args is None:
                break
            if isinstance(args, Broken):
                runs.add(args)
                break
            begin = self._at
            self._words, self._announced = [], None
            if args:
                outcome = plan(args, limits)
                runs.add(outcome)
                if halts(outcome):
                    break
        runs.flush()
        del self._buffer[:begin]
        self._at -= begin
        self._looked -= begin
        return runs.items

    def _inline(self) -> list[bytes] | Broken | None:
        """The words of a line; None when it has not ended yet."""
        end = self._find(b"\n")
        if end < 0:
            return broken(b"too big inline request") if self._exceeds_a_line() else None
        words = split_inline(bytes(self._buffer[self._at : end]).removesuffix(b"\r"))
        if words is None:
            return broken(b"unbalanced quotes in request")
        self._at = end + 1
        return words

    def _multibulk(self, begin: int, limits: ParseLimits) -> list[bytes] | Broken | None:
        """As `_inline`, for a command in the form of an array of bulk strings."""
        if self._announced is None:
            line = self._line(b"too big mbulk count string")
            if line is None or isinstance(line, Broken):
                return line
            text, self._at = line
            count = parse_i64(text)
            if count is None or count > MAX_ARGS:
                self._at = begin
                return broken(b"invalid multibulk length")
            if limits.stranger and count > STRANGER_WORDS:
                return broken(b"unauthenticated multibulk length")
            self._announced = count
        while len(self._words) < self._announced:
            line = self._line(b"too big bulk count string")
            if line is None or isinstance(line, Broken):
                return line
            if self._buffer[self._at] != ord("$"):
                return broken(b"expected '$', got '%c'" % self._buffer[self._at])
            text, at = line
            size = parse_i64(text)
            if size is None or not 0 <= size <= bulk_bytes(limits):
                return broken(b"invalid bulk length")
            if limits.stranger and size > STRANGER_BULK_BYTES:
                return broken(b"unauthenticated bulk length")
            if at + size + 2 - begin > command_bytes(limits):
                return oversized(limits)
            if at + size + 2 > len(self._buffer):
                return None
            self._words.append(bytes(self._buffer[at : at + size]))
            self._at = at + size + 2
        return self._words

    def _line(self, too_big: bytes) -> tuple[bytes, int] | Broken | None:
        """(the line at hand without its first byte, where the next begins); None when it has not ended yet.

        A line ends with a carriage return and whatever byte follows it, as in Redis.
        """
        end = self._find(b"\r")
        if end < 0:
            return broken(too_big) if self._exceeds_a_line() else None
        return None if end + 2 > len(self._buffer) else (bytes(self._buffer[self._at + 1 : end]), end + 2)

    def _find(self, mark: bytes) -> int:
        """Where the line at hand ends; negative when that is not there yet."""
        limit = self._at + LINE_BYTES + 1
        end = self._buffer.find(mark, max(self._at, self._looked), limit)
        self._looked = min(len(self._buffer), limit) if end < 0 else end
        return end

    def _exceeds_a_line(self) -> bool:
        return len(self._buffer) - self._at > LINE_BYTES


Parser = choose("resp", "Parser", PyParser)
"""The twin in use."""
