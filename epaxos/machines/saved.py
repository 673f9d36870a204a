"""The key-value machine as bytes: canonical, so that equal states give equal bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from epaxos.errors import StorageError
from epaxos.machines.operations import pack_words, unpack_words
from epaxos.machines.store import Hash, List, Mark, Set, Value

_HEAD: Final = struct.Struct("<8sQ")
_MAGIC: Final = b"epaxkv\x00\x02"
_RECORD: Final = struct.Struct("<BII")
CHUNK_BYTES: Final = 1 << 16
"""The most a chunk of a saved state has."""

_STRING: Final = 0
_HASH: Final = 1
_SET: Final = 2
_LIST: Final = 3
_MARKS: Final = 4

Record = tuple[bytes, int, bytes]
"""(key, kind, content): of a string the string, otherwise packed words."""


def records(values: dict[bytes, Value], marks: dict[bytes, Mark]) -> list[Record]:
    """The whole state at this moment, in the order of keys and kinds."""
    found = [(key, *_content(value)) for key, value in values.items()]
    found += [(key, _MARKS, pack_words(mark)) for key, mark in marks.items()]
    found.sort()
    return found


def _content(value: Value) -> tuple[int, bytes]:
    if isinstance(value, bytes):
        return _STRING, value
    if isinstance(value, Hash):
        return _HASH, pack_words(word for pair in value.items() for word in pair)
    return (_SET if isinstance(value, Set) else _LIST), pack_words(value)


def save_records(found: list[Record]) -> Iterator[bytes]:
    """Magic and number of records, then (u8 kind, u32, u32, key, content) for each, cut in chunks."""
    pending = bytearray(_HEAD.pack(_MAGIC, len(found)))
    for key, kind, content in found:
        pending += _RECORD.pack(kind, len(key), len(content))
        pending += key
        pending += content
        while len(pending) >= CHUNK_BYTES:
            yield bytes(pending[:CHUNK_BYTES])
            del pending[:CHUNK_BYTES]
    if pending:
        yield bytes(pending)


def load_records(chunks: Iterable[bytes]) -> tuple[dict[bytes, Value], dict[bytes, Mark]]:
    """The state that was saved, wherever it is cut. Raises StorageError when it is not the whole of one."""
    reader = _Reader(chunks)
    magic, count = _HEAD.unpack(reader.take(_HEAD.size))
    if magic != _MAGIC:
        raise StorageError("the saved state is not one of the key-value machine, or of another release")
    values: dict[bytes, Value] = {}
    marks: dict[bytes, Mark] = {}
    for _ in range(count):
        kind, key_bytes, content_bytes = _RECORD.unpack(reader.take(_RECORD.size))
        key, content = reader.take(key_bytes), reader.take(content_bytes)
        if kind == _MARKS:
            marks[key] = dict.fromkeys(_words(content))
        else:
            values[key] = _value(kind, content)
    if len(values) + len(marks) != count or not reader.at_end():
        raise StorageError(f"the saved state does not hold the {count} keys that it announces")
    return values, marks


def _value(kind: int, content: bytes) -> Value:
    if kind == _STRING:
        return content
    words = _words(content)
    if kind == _HASH and len(words) % 2 == 0:
        return Hash(zip(words[::2], words[1::2], strict=True))
    if kind == _SET:
        return Set(dict.fromkeys(words))
    if kind == _LIST:
        return List(words)
    raise StorageError(f"the saved state holds a value of kind {kind} that this release does not read")


def _words(content: bytes) -> list[bytes]:
    words = unpack_words(content)
    if not words:
        raise StorageError("the saved state holds an unsound value")
    return words


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
