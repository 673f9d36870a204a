"""What happens with a command: by the table, in Redis's words where it is wrong.

`plan` turns the words of one command into a packed command to be replicated, a command for the replica at hand
(`Local`), an error (`Refused`), or the end of the connection (`Foreign`). The compiled parser packs the plain shapes by
itself, by the same table, and asks `plan` about everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from epaxos import replies
from epaxos.command import ENTRY, MAX_ENTRIES, RUN_HEADER, WHOLE, Command, Entry
from epaxos.errors import Rejected
from epaxos.gateway.items import Foreign, Local, ParseLimits, Refused
from epaxos.gateway.table import TABLE, Shape, Spec
from epaxos.machines.operations import TYPED, pack_words

# ------------------------------------------------------------------------------------------------------- error replies

_SHOWN_BYTES: Final = 128
"""An unknown command is repeated to its sender up to so many bytes, and its arguments likewise."""


EXEC_MISCALLED: Final = Refused(
    replies.error(b"EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"),
    fatal=True,
)
"""EXEC with words behind it, which is the end of the transaction."""

_FOREIGN: Final = frozenset({b"post", b"host:"})
"""What a browser says first: a page on the web may send commands to a port of its reader's machine, behind this."""


def _shown(word: bytes, limit: int = _SHOWN_BYTES) -> bytes:
    """As much of a word as an error repeats: Redis stops at a NUL."""
    return word.partition(b"\0")[0][:limit]


def unknown_command(args: Sequence[bytes]) -> bytes:
    """The reply to a command that is not in the table."""
    shown = b""
    for arg in args[1:]:
        if len(shown) >= _SHOWN_BYTES:
            break
        shown += b"'%b' " % _shown(arg, _SHOWN_BYTES - len(shown))
    return replies.error(b"ERR unknown command '%b', with args beginning with: %b" % (_shown(args[0]), shown))


def unknown_subcommand(name: str, subcommand: bytes) -> bytes:
    """The reply to a second word that the command does not know."""
    return replies.error(b"ERR unknown subcommand '%b'. Try %b HELP." % (_shown(subcommand), name.upper().encode()))


def wrong_arity(name: str) -> bytes:
    """The reply to too few or too many words."""
    return replies.error(b"ERR wrong number of arguments for '%b' command" % name.encode())


def arity_fits(arity: int, words: int) -> bool:
    """Is this a number of words that `arity` allows?"""
    return words == arity if arity > 0 else words >= -arity


# ---------------------------------------------------------------------------------------------------------- the plan


def plan(args: Sequence[bytes], limits: ParseLimits) -> Command | Local | Refused | Foreign:
    """What happens with the command of these words (at least one)."""
    name = args[0].lower()
    spec = TABLE.get(name)
    if spec is None:
        if name in _FOREIGN:
            return Foreign(args[0])
        return Refused(unknown_command(args), fatal=True)
    if not arity_fits(spec.arity, len(args)):
        if spec.name == "exec":
            return EXEC_MISCALLED
        return Refused(wrong_arity(spec.name), fatal=True)
    if spec.subcommands and len(args) > 1 and (fault := _subcommand_fault(spec, args)):
        return Refused(fault, fatal=True)
    if spec.shape is Shape.LOCAL:
        return Local(list(args))
    command = _encode(spec, args, limits.dialect)
    return command if isinstance(command, Refused) else too_large(command, limits) or command


def _subcommand_fault(spec: Spec, args: Sequence[bytes]) -> bytes:
    """The reply to a second word that is none, or has the wrong number of words behind it; else nothing."""
    word = args[1].lower()
    if word == b"help":
        return b"" if len(args) == 2 else wrong_arity(f"{spec.name}|help")
    for known in spec.subcommands:
        if word == known.name.encode():
            return b"" if arity_fits(known.arity, len(args)) else wrong_arity(f"{spec.name}|{known.name}")
    return unknown_subcommand(spec.name, args[1])


def _encode(spec: Spec, args: Sequence[bytes], dialect: int) -> Command | Refused:
    op, flags = spec.op, spec.entry_flags | (TYPED if spec.typed and dialect == 3 else 0)
    if spec.encode is not None:
        return spec.encode(op, flags, args)
    if spec.shape is Shape.WORDS:
        return (Entry(op, flags, args[1], pack_words(args[2:])),)
    if spec.shape is Shape.WHOLE:
        return (Entry(op, flags | WHOLE, b"", pack_words(args[1:])),)
    if spec.shape is Shape.KEY:
        return (Entry(op, flags, args[1], spec.payload),)
    if spec.shape is Shape.KEY_VALUE:
        return (Entry(op, flags, args[1], args[2]),)
    if spec.shape is Shape.KEYS:
        return tuple(Entry(op, flags, key, b"") for key in args[1:])
    if len(args) % 2 == 0:
        return Refused(wrong_arity(spec.name))
    return tuple(Entry(op, flags, key, value) for key, value in zip(args[1::2], args[2::2], strict=True))


def packed_bytes(command: Command) -> int:
    """What the command adds to a run."""
    return sum(ENTRY.size + len(entry.key) + len(entry.payload) for entry in command)


def too_large(command: Command, limits: ParseLimits) -> Refused | None:
    """The reply to a command that exceeds a bound, else None."""
    for entry in command:
        if len(entry.key) > limits.key_bytes:
            return _over(f"a key of {len(entry.key)} bytes", limits.key_bytes)
        if len(entry.payload) > limits.value_bytes:
            return _over(f"a value of {len(entry.payload)} bytes", limits.value_bytes)
    if len(command) > MAX_ENTRIES:
        return _over(f"a command of {len(command)} keys", MAX_ENTRIES)
    size = RUN_HEADER.size + packed_bytes(command)
    return _over(f"a command of {size} bytes", limits.run_bytes) if size > limits.run_bytes else None


def _over(what: str, limit: int) -> Refused:
    return Refused(replies.failure(Rejected("too_large", f"{what}, {limit} are allowed")), fatal=True)
