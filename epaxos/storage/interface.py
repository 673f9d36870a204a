"""What the replica asks of a disk: groups of records that become durable in order.

The engine owns the durability gate; a store only promises the following, and `epaxos.testing.conformance` holds
the suite that every store passes.

1. `write` returns at once. The group becomes durable later, whole or not at all, after every group before it.
2. `durable` is the mark of the newest group that would survive a power cut; it only grows.
3. `get` and `scan` show the records of durable groups (they may show later ones too).
4. A store that cannot write stops for good: `durable` never moves again, and `failure` says why.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

from epaxos.errors import StorageError


@dataclass(frozen=True, slots=True)
class WriteGroup:
    """Records to put and keys to delete (deletions after puts), and the mark that stands for them."""

    puts: tuple[tuple[bytes, bytes], ...]
    drops: tuple[bytes, ...]
    mark: int


class Store(abc.ABC):
    """One replica's disk. Not thread-safe: one owner calls it."""

    @abc.abstractmethod
    def write(self, group: WriteGroup) -> None:
        """Queue `group`. Marks grow from group to group. Raises StorageError when the store has failed or is closed."""

    @property
    @abc.abstractmethod
    def durable(self) -> int:
        """The mark of the newest durable group; 0 before the first one of this life."""

    @property
    @abc.abstractmethod
    def failure(self) -> StorageError | None:
        """Why the store stopped, if it did."""

    @abc.abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """The value of `key`. Raises StorageError when the record's checksum is wrong."""

    @abc.abstractmethod
    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) with first <= key < last, in key order. Raises StorageError as `get`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Make durable what is queued, then release everything. Idempotent."""
