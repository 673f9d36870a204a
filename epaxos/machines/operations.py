"""What an operation of the key-value machine is, apart from those on strings that are compiled as well.

Its keys are those of its entries; the other words of the command are packed into the payload of the first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from epaxos import replies
from epaxos.command import OPTION_4, Command
from epaxos.machines.numbers import parse_i64
from epaxos.machines.store import Refusal, Store, T, refuse

TYPED: Final = OPTION_4
"""The reply may use the types that only RESP3 has: the client speaks it."""

NOT_AN_INTEGER: Final = b"value is not an integer or out of range"
OVERFLOW: Final = b"increment or decrement would overflow"
SYNTAX_ERROR: Final = b"syntax error"
MALFORMED: Final = replies.error(b"ERR malformed command")

ANY: Final = 0
"""The number of keys of an operation that takes one or more."""

_LENGTH: Final = struct.Struct("<I")


def pack_words(words: Iterable[bytes]) -> bytes:
    """Words as one: each behind its length (u32)."""
    return b"".join(part for word in words for part in (_LENGTH.pack(len(word)), word))


def unpack_words(packed: bytes) -> list[bytes] | None:
    """The inverse of `pack_words`; None for anything else."""
    words: list[bytes] = []
    at = 0
    while at < len(packed):
        if at + _LENGTH.size > len(packed):
            return None
        end = at + _LENGTH.size + int(_LENGTH.unpack_from(packed, at)[0])
        if end > len(packed):
            return None
        words.append(packed[at + _LENGTH.size : end])
        at = end
    return words


class Call(NamedTuple):
    """One command, taken apart."""

    store: Store
    keys: list[bytes]
    words: list[bytes]
    """What is not a key, behind the name."""
    typed: bool
    """As the flag `TYPED` says."""

    @property
    def key(self) -> bytes:
        """The key, or the first of them."""
        return self.keys[0]

    def value(self, kind: type[T]) -> T:
        """The value of the key; without one an empty value, which is not kept. Raises Refusal for another type."""
        value = self.store.get(self.key, kind)
        return kind() if value is None else value

    def integer(self, at: int, otherwise: bytes = NOT_AN_INTEGER) -> int:
        """The word at that place as an integer. Raises Refusal."""
        value = parse_i64(self.words[at])
        if value is None:
            raise refuse(otherwise)
        return value


Function = Callable[[Call], bytes]


class Operation(NamedTuple):
    """What runs a command, and how many words it takes: as the arity of a command, without its name and its keys."""

    run: Function
    words: int = 0
    """Exactly so many, or with a minus sign one less than the fewest: -1 is any number, -2 one or more."""
    keys: int = 1

    def __call__(self, store: Store, command: Command) -> bytes:
        """Run the command. What is malformed changes nothing."""
        words = unpack_words(command[0].payload)
        if words is None or len(command) != (self.keys or len(command)) or not self._fits(len(words)):
            return MALFORMED
        typed = bool(command[0].flags & TYPED)
        try:
            return self.run(Call(store, [entry.key for entry in command], words, typed))
        except Refusal as refusal:
            return refusal.reply

    def _fits(self, words: int) -> bool:
        return words == self.words if self.words >= 0 else words >= -self.words - 1


def wrong_arity(name: str) -> Refusal:
    """The refusal of a number of words that only the command itself can judge."""
    return refuse(b"wrong number of arguments for '%b' command" % name.encode())
