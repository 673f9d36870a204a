"""The key-value machine: strings under string keys, with the replies of Redis (RESP2) byte for byte.

A command is one entry a key; the operation is that of its first entry. `PyKv` is the pure twin of `ext/kv.pyx`, and
`Kv` the one in use. Everything here is a function of the commands alone, also what is wrong with them: an operation
nobody knows is answered with an error, the same at every replica.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from epaxos.accel import choose
from epaxos.command import HEADER, OPTION_1, OPTION_2, OPTION_3, Batch, Command
from epaxos.errors import StorageError
from epaxos.machines.interface import BatchMachine
from epaxos.packing import decode_run


class Op(enum.IntEnum):
    """Operation codes. They stand in every log: a code is never changed and never used again."""

    GET = 0x01
    SET = 0x02
    SETNX = 0x03
    DEL = 0x04
    EXISTS = 0x05
    INCRBY = 0x06
    APPEND = 0x07
    STRLEN = 0x08
    MGET = 0x09
    MSET = 0x0A


SET_NX: Final = OPTION_1
"""SET only if there is no value yet."""
SET_XX: Final = OPTION_2
"""SET only if there is a value already."""
SET_GET: Final = OPTION_3
"""SET answers with the value before."""

INCREMENT: Final = struct.Struct("<q")
"""The payload of INCRBY."""

MAX_VALUE_BYTES: Final = 1 << 25
"""The longest value that APPEND makes. Not a setting: every replica must refuse the same command."""

OK: Final = b"+OK\r\n"
NIL: Final = b"$-1\r\n"
NOT_AN_INTEGER: Final = b"-ERR value is not an integer or out of range\r\n"
OVERFLOW: Final = b"-ERR increment or decrement would overflow\r\n"
TOO_LONG: Final = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"

_I64_MIN: Final = -(1 << 63)
_I64_MAX: Final = (1 << 63) - 1


def parse_i64(text: bytes) -> int | None:
    """The 64-bit integer that `text` is in its one canonical form, else None: no sign `+`, space or leading zero."""
    if not 1 <= len(text) <= 20:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0"):
        return None
    value = int(text)
    return value if _I64_MIN <= value <= _I64_MAX else None


def unknown_operation(op: int) -> bytes:
    """The answer to an operation that this release does not know."""
    return b"-ERR unknown operation 0x%02x\r\n" % op


# ----------------------------------------------------------------------------------------------------- the whole state

_SAVED: Final = struct.Struct("<8sQ")
_SAVED_MAGIC: Final = b"epaxkv\x00\x01"
_RECORD: Final = struct.Struct("<II")
CHUNK_BYTES: Final = 1 << 16
"""The most a chunk of a saved state has."""


def save_items(items: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The canonical form of a state: magic and number of keys, then (u32, u32, key, value), sorted, cut in chunks."""
    items.sort()
    pending = bytearray(_SAVED.pack(_SAVED_MAGIC, len(items)))
    for key, value in items:
        pending += _RECORD.pack(len(key), len(value))
        pending += key
        pending += value
        while len(pending) >= CHUNK_BYTES:
            yield bytes(pending[:CHUNK_BYTES])
            del pending[:CHUNK_BYTES]
    if pending:
        yield bytes(pending)


def load_items(chunks: Iterable[bytes]) -> dict[bytes, bytes]:
    """The inverse of `save_items`, wherever it is cut. Raises StorageError when it is not the whole of one."""
    reader = _Reader(chunks)
    magic, count = _SAVED.unpack(reader.take(_SAVED.size))
    if magic != _SAVED_MAGIC:
        raise StorageError("the saved state is not one of the key-value machine, or of a newer release")
    items: dict[bytes, bytes] = {}
    for _ in range(count):
        key_bytes, value_bytes = _RECORD.unpack(reader.take(_RECORD.size))
        key = reader.take(key_bytes)
        items[key] = reader.take(value_bytes)
    if len(items) != count or not reader.at_end():
        raise StorageError(f"the saved state does not hold the {count} keys that it announces")
    return items


class _Reader:
    """Bytes out of chunks that are cut anywhere."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = bytearray()
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._held) - self._at < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise StorageError("the saved state ends in the middle of a record")
            del self._held[: self._at]
            self._at = 0
            self._held += chunk
        self._at += count
        return bytes(self._held[self._at - count : self._at])

    def at_end(self) -> bool:
        """Is there nothing more?"""
        return len(self._held) == self._at and not any(self._chunks)


def digest_chunks(chunks: Iterable[bytes]) -> bytes:
    """A hash of a saved state: equal for equal states."""
    hash_ = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        hash_.update(chunk)
    return hash_.digest()


# --------------------------------------------------------------------------------------------------- the pure twin


def _bulk(value: bytes | None) -> bytes:
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


class PyKv(BatchMachine):
    """Strings under string keys. `apply_batch` answers in RESP2."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._operations: dict[int, Callable[[Command], bytes]] = {
            Op.GET: self._get,
            Op.SET: self._set,
            Op.SETNX: self._setnx,
            Op.DEL: self._del,
            Op.EXISTS: self._exists,
            Op.INCRBY: self._incrby,
            Op.APPEND: self._append,
            Op.STRLEN: self._strlen,
            Op.MGET: self._mget,
            Op.MSET: self._mset,
        }

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, without a command."""
        return self._values.get(key)

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        commands = decode_run(batch.data, HEADER.size)
        if not spans:
            for command in commands:
                self._apply(command)
            return []
        if sum(spans) != len(commands):
            raise ValueError(f"{sum(spans)} commands are waited for, of {len(commands)} in the batch")
        each = iter(commands)
        return [b"".join(self._apply(next(each)) for _ in range(span)) for span in spans]

    def save(self) -> Iterable[bytes]:
        """The state at this moment, also when commands are applied before the last chunk is taken."""
        return save_items(list(self._values.items()))

    def load(self, chunks: Iterable[bytes]) -> None:
        self._values = load_items(chunks)

    def digest(self) -> bytes:
        """16 bytes, equal for equal states."""
        return digest_chunks(self.save())

    def _apply(self, command: Command) -> bytes:
        op = command[0].op
        operation = self._operations.get(op)
        return unknown_operation(op) if operation is None else operation(command)

    def _get(self, command: Command) -> bytes:
        return _bulk(self._values.get(command[0].key))

    def _set(self, command: Command) -> bytes:
        _, flags, key, value = command[0]
        before = self._values.get(key)
        refused = bool(flags & (SET_XX if before is None else SET_NX))
        if not refused:
            self._values[key] = value
        if flags & SET_GET:
            return _bulk(before)
        return NIL if refused else OK

    def _setnx(self, command: Command) -> bytes:
        _, _, key, value = command[0]
        if key in self._values:
            return b":0\r\n"
        self._values[key] = value
        return b":1\r\n"

    def _del(self, command: Command) -> bytes:
        return b":%d\r\n" % sum(self._values.pop(entry.key, None) is not None for entry in command)

    def _exists(self, command: Command) -> bytes:
        return b":%d\r\n" % sum(entry.key in self._values for entry in command)

    def _incrby(self, command: Command) -> bytes:
        _, _, key, payload = command[0]
        before = parse_i64(self._values.get(key, b"0"))
        if before is None or len(payload) != INCREMENT.size:
            return NOT_AN_INTEGER
        after = before + int(INCREMENT.unpack(payload)[0])
        if not _I64_MIN <= after <= _I64_MAX:
            return OVERFLOW
        self._values[key] = b"%d" % after
        return b":%d\r\n" % after

    def _append(self, command: Command) -> bytes:
        _, _, key, suffix = command[0]
        before = self._values.get(key, b"")
        if len(before) + len(suffix) > MAX_VALUE_BYTES:
            return TOO_LONG
        self._values[key] = before + suffix
        return b":%d\r\n" % (len(before) + len(suffix))

    def _strlen(self, command: Command) -> bytes:
        return b":%d\r\n" % len(self._values.get(command[0].key, b""))

    def _mget(self, command: Command) -> bytes:
        return b"*%d\r\n" % len(command) + b"".join(_bulk(self._values.get(entry.key)) for entry in command)

    def _mset(self, command: Command) -> bytes:
        for entry in command:
            self._values[entry.key] = entry.payload
        return OK


Kv = choose("kv", "Kv", PyKv)
"""The twin in use."""
BatchMachine.register(Kv)
