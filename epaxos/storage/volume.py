"""The volume of a real replica: its data directory, with the records in LMDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epaxos._version import VERSION
from epaxos.identity import Owner
from epaxos.storage.directory import DataDirectory
from epaxos.storage.interface import Mounted
from epaxos.storage.lmdb import LmdbStore


class DirectoryVolume:
    """A `Volume` in the directory at `path`, which is created if needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, owner: Owner, *, map_bytes: int) -> Iterator[Mounted]:
        """As `Volume.open`; see `DataDirectory.open`."""
        with DataDirectory.open(self._path, owner, release=VERSION) as directory:
            store = LmdbStore.open(directory.records, map_bytes=map_bytes)
            try:
                yield Mounted(store, directory.identity.disk, directory.identity.incarnation, directory)
            finally:
                store.close()
