"""The replicated log of one replica: its entries, their terms, and which of them the disk holds.

In memory are the entries that are not executed or not durable; the others are read back from the disk when a follower
lags. The terms of all entries are in memory, as the few indices at which they change. Indices begin at 1, and the
entry 0 that precedes them has term 0.

Once compaction exists the log begins behind a snapshot: the first run of `_starts` is then the snapshot's last index
with its term, which is all that matching needs, and a follower that lags behind it is sent the snapshot.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from typing import Final, NamedTuple

from epaxos.command import NOP, Batch, Payload
from epaxos.errors import StorageError
from epaxos.protocols.interface import LogView

RECORD_VERSION: Final = 1
ENTRY_HEADER: Final = struct.Struct("<BQ")
"""Value of an entry: u8 version | u64 term | the batch, as received; nothing behind the term is a NOP.
Its key is the letter l and the index (u64, big-endian)."""


class Entry(NamedTuple):
    """What the log holds at one index."""

    term: int
    payload: Payload


def entry_key(index: int) -> bytes:
    """The key of the record of an entry."""
    return b"l" + index.to_bytes(8, "big")


def encode_entry(entry: Entry) -> bytes:
    """The record of an entry."""
    batch = entry.payload.data if isinstance(entry.payload, Batch) else b""
    return ENTRY_HEADER.pack(RECORD_VERSION, entry.term) + batch


def _term(key: bytes, value: bytes) -> int:
    """The term in the record of an entry. Raises StorageError for a record of another version."""
    version, term = ENTRY_HEADER.unpack_from(value)
    if version != RECORD_VERSION:
        index = int.from_bytes(key[1:], "big")
        raise StorageError(f"log entry {index}: record version {version}; this release reads {RECORD_VERSION}")
    return int(term)


class Log:
    """Entries 1 … `last`. `append` and `cut` only change memory; `State` saves."""

    def __init__(self, view: LogView) -> None:
        """What the disk holds. Raises StorageError for a gap in it, and for an entry that was dropped and is there."""
        self._view = view
        self._entries: dict[int, Entry] = {}
        self._starts = [0]
        """The indices at which a new term begins, and the terms, beside each other."""
        self._terms = [0]
        self._unsynced: deque[tuple[int, int]] = deque()
        """(mark, index): everything up to the index is durable with the mark."""
        self.last = 0
        for key, value in view.scan(b"l", b"m"):
            index = int.from_bytes(key[1:], "big")
            if index != self.last + 1:
                raise StorageError(f"the log has entry {index} behind entry {self.last}: entries between are missing")
            term = _term(key, value)
            if term < self._terms[-1]:
                raise StorageError(
                    f"log entry {index} is of term {term}, behind one of {self._terms[-1]}: terms never fall"
                )
            self._extend(index, term)
        self._lowest = self.last + 1
        """No entry below this one is in memory."""
        self.durable = self.last
        """Every entry up to this index is on disk, as it is now."""

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._terms[-1]

    def term(self, index: int) -> int:
        """The term of the entry at `index`, which is between 0 and `last`."""
        return self._terms[bisect_right(self._starts, index) - 1]

    def holds(self, index: int, term: int) -> bool:
        """Is there an entry of that term at `index`? Then all before it are equal too (log matching)."""
        return index <= self.last and self.term(index) == term

    def agreeing(self, index: int, term: int) -> int:
        """The highest index up to `index` whose term is not above `term`: beyond it, a log that has `term` at `index`
        and this one differ for certain. Each such step skips whole terms, not single entries."""
        index = min(index, self.last)
        run = bisect_right(self._starts, index) - 1
        while self._terms[run] > term:
            index = self._starts[run] - 1
            run -= 1
        return index

    def entry(self, index: int) -> Entry:
        """The entry at `index`, from memory or from the disk. Raises StorageError when neither has it."""
        entry = self._entries.get(index)
        if entry is not None:
            return entry
        key = entry_key(index)
        value = self._view.get(key)
        if value is None or index > self.last:
            raise StorageError(f"log entry {index} of {self.last} is not on the disk")
        batch = value[ENTRY_HEADER.size :]
        return Entry(_term(key, value), Batch(batch) if batch else NOP)

    # -- changes

    def _extend(self, index: int, term: int) -> None:
        self.last = index
        if term != self._terms[-1]:
            self._starts.append(index)
            self._terms.append(term)

    def append(self, entry: Entry) -> int:
        """Put an entry behind the last one; returns its index."""
        index = self.last + 1
        self._extend(index, entry.term)
        self._entries[index] = entry
        self._lowest = min(self._lowest, index)
        return index

    def cut(self, last: int) -> range:
        """Drop all entries behind `last`; returns their indices."""
        dropped = range(last + 1, self.last + 1)
        for index in dropped:
            self._entries.pop(index, None)
        while self._starts[-1] > last:
            self._starts.pop()
            self._terms.pop()
        self.last = last
        self.durable = min(self.durable, last)
        self._unsynced = deque((mark, min(index, last)) for mark, index in self._unsynced)
        return dropped

    def saved(self, mark: int) -> None:
        """All entries are in the save of that mark, or in earlier ones."""
        self._unsynced.append((mark, self.last))

    def synced(self, mark: int) -> None:
        """Saves up to that mark are durable."""
        while self._unsynced and self._unsynced[0][0] <= mark:
            self.durable = max(self.durable, self._unsynced.popleft()[1])

    def evict(self, executed: int) -> None:
        """Forget what has executed, up to that index, and is durable."""
        upto = min(executed, self.durable)
        while self._lowest <= upto:
            self._entries.pop(self._lowest, None)
            self._lowest += 1

    def state(self) -> tuple[object, ...]:
        """For digests."""
        entries = [(index, entry.term, encode_entry(entry)) for index, entry in sorted(self._entries.items())]
        return (self.last, self._starts, self._terms, self.durable, list(self._unsynced), entries)
