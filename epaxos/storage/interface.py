"""What the replica asks of a disk: groups of records that become durable in order.

The engine owns the durability gate; a store only promises the following, and `epaxos.testing.conformance` holds
the suite that every store passes.

1. `write` returns at once. The group becomes durable later, whole or not at all, after every group before it.
2. `durable` is the mark of the newest group that would survive a power cut; it only grows.
3. `get` and `scan` show the records of durable groups (they may show later ones too).
4. A store that cannot write stops for good: `durable` never moves again, and `failure` says why.

A `LiveStore` is one that a shell can wait for, and a `Volume` what stores live on from one start of a replica to the
next: a data directory (`volume.py`), or something in memory that behaves like one (`epaxos.testing.virtual`).
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol as Interface

from epaxos.errors import StorageError
from epaxos.identity import Acquaintances, Owner


@dataclass(frozen=True, slots=True)
class WriteGroup:
    """Records to put and keys to delete (deletions after puts), and the mark that stands for them."""

    puts: tuple[tuple[bytes, bytes], ...]
    drops: tuple[bytes, ...]
    mark: int


class SyncCounters(NamedTuple):
    """What was made durable in this life of a store."""

    syncs: int = 0
    records: int = 0
    """Puts and deletions; a key that was written several times between two syncs counts once."""
    stored_bytes: int = 0
    """Keys and values of the groups, as they were handed in."""
    max_sync_us: int = 0
    """The longest, from the begin of the transaction to durable."""


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


class LiveStore(Store):
    """A store that a shell can wait for, and be warned by."""

    @abc.abstractmethod
    async def moved(self) -> int:
        """Return `durable` when it has moved, or `failure` was set, since the last return. One task at a time."""

    @property
    @abc.abstractmethod
    def backlog_bytes(self) -> int:
        """What the groups that are not durable yet take: 0 when all is durable."""

    @property
    @abc.abstractmethod
    def backlog_bytes_max(self) -> int:
        """At this backlog the store fails: the owner takes in less long before."""

    @property
    @abc.abstractmethod
    def used_bytes(self) -> int:
        """How much of `max_bytes` the records take."""

    @property
    @abc.abstractmethod
    def max_bytes(self) -> int:
        """The most that they may take: the store fails there."""

    @property
    @abc.abstractmethod
    def counters(self) -> SyncCounters:
        """What was done so far."""


class Mounted(NamedTuple):
    """A volume in use."""

    store: LiveStore
    disk: str
    """The id of the volume, which no other has: see `is_disk`."""
    incarnation: int
    """How many times the volume was opened, this time included; durable before anything is said under it."""
    acquaintances: Acquaintances
    """The peers that were met with this volume; to be used no longer than it is open."""


class Volume(Interface):
    """What a replica's records live on, from one start to the next."""

    def open(self, owner: Owner, *, map_bytes: int) -> AbstractContextManager[Mounted]:
        """Use the volume for as long as the block lasts; it is the first owner's for good. Raises StorageError when it
        cannot be used, or not by this owner."""
