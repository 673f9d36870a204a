"""What every store does to a record: bounds on its key, and a checksum around its value.

A stored value is `u32 crc | value`, little-endian; the CRC-32 covers key and value, so a record that turns up under
another key is as wrong as one with a flipped bit. Disks do both.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from epaxos.errors import StorageError
from epaxos.identity import LOST
from epaxos.storage.interface import WriteGroup

KEY_BYTES_MAX: Final = 511
"""The longest key that LMDB takes, so the longest that any store takes. An empty key is none."""

END_OF_KEYS: Final = b"\xff" * (KEY_BYTES_MAX + 1)
"""Sorts behind every key: `scan(b"", END_OF_KEYS)` is everything."""

CHECKSUM_BYTES: Final = 4


def check_key(key: bytes) -> None:
    """Raises ValueError when no store can hold `key`."""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a key of {len(key)} bytes; it must have 1 to {KEY_BYTES_MAX}")


def check_group(group: WriteGroup, newest_mark: int) -> int:
    """The size of `group` in bytes, keys and values.

    Raises ValueError when its mark is not above `newest_mark`, or a key is out of bounds: found here, at the caller
    who did it, rather than later in a thread that could only stop the replica.
    """
    if group.mark <= newest_mark:
        raise ValueError(f"mark {group.mark} after mark {newest_mark}: marks grow from group to group")
    size_bytes = 0
    for key, value in group.puts:
        check_key(key)
        size_bytes += len(key) + len(value)
    for key in group.drops:
        check_key(key)
        size_bytes += len(key)
    return size_bytes


def frame(key: bytes, value: bytes) -> bytes:
    """`value` as it is stored under `key`."""
    return crc32(value, crc32(key)).to_bytes(CHECKSUM_BYTES, "little") + value


def unframe(key: bytes, framed: bytes | memoryview) -> bytes:
    """The value inside `framed`. Raises StorageError when this is not what was once stored under `key`."""
    value = bytes(framed[CHECKSUM_BYTES:])
    if len(framed) < CHECKSUM_BYTES or crc32(value, crc32(key)) != int.from_bytes(framed[:CHECKSUM_BYTES], "little"):
        raise StorageError(
            f"the record {key!r} fails its checksum: the disk gave back something else than was written. Nothing in "
            f"this data directory can be relied on any more, so {LOST}. Do not copy another replica's directory over it"
        )
    return value
