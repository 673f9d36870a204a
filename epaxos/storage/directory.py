"""A replica's data directory: whose it is, and that one process at a time uses it.

    identity    JSON for people: whose it is, the disk, the incarnation, the peers it has met, schema and origin
    lock        held (flock) while the directory is open; holds the process id, for the message
    records/    the LMDB environment (`lmdb.py`)

The incarnation grows at every start and is durable before anything can be said under it, and a peer is written down
before anything is said to it: by both, a replica tells a peer that restarted from a late message of its earlier life,
and from somebody who comes under its name with another disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trio

from epaxos.errors import StorageError
from epaxos.identity import DISK_ID_BYTES, LOST, Acquaintance, Owner, is_disk

SCHEMA_VERSION: Final = 1
"""The layout of the records that this release reads and writes."""

RECORDS: Final = "records"
"""Where in the directory the store lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Owner):
    """What the file `identity` says."""

    disk: str
    """Random, hexadecimal, drawn when the directory was created: no two disks share one unless one was copied."""
    incarnation: int
    """How many times a replica was started on this directory, the current start included."""
    peers: Mapping[str, Acquaintance]
    """By name: those that were met, in this incarnation and earlier ones."""
    schema: int
    created_by: str
    """The release that created the directory."""
    created_at: str
    """UTC, ISO 8601."""


class DataDirectory:
    """An open data directory: a context manager, made by `open`. Closing it lets another process have it."""

    def __init__(self, path: Path, identity: Identity, lock_fd: int) -> None:
        self.path = path
        self.identity = identity
        self._lock_fd: int | None = lock_fd

    @classmethod
    def open(cls, path: Path, owner: Owner, *, release: str) -> Self:
        """Create the directory, or check that it is this replica's; take its lock; begin a new incarnation.

        The incarnation is on stable storage when this returns. Raises StorageError, which says what to do, when the
        directory is in use, belongs to another owner, has a newer schema, holds records but no identity or one that
        cannot be read, or cannot be written.
        """
        with _explained(path):
            _make_directory(path)
            lock_fd = _lock(path)
            try:
                identity = _read(path)
                if identity is None:
                    _check_no_records(path)
                    identity = _create(owner, release)
                objection = identity.objection(owner)
                if objection:
                    raise StorageError(f"{path}: {objection}")
                identity = replace(identity, incarnation=identity.incarnation + 1)
                _write_durably(path, identity)
            except BaseException:
                os.close(lock_fd)
                raise
        return cls(path, identity, lock_fd)

    def known(self, peer: str) -> Acquaintance | None:
        """As `Acquaintances.known`."""
        return self.identity.peers.get(peer)

    async def remember(self, peer: str, met: Acquaintance) -> None:
        """As `Acquaintances.remember`; in a thread, for it takes two syncs."""
        identity = replace(self.identity, peers={**self.identity.peers, peer: met})
        try:
            await trio.to_thread.run_sync(_write_durably, self.path, identity)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self.identity = identity

    @property
    def records(self) -> Path:
        """Where the store lives: `LmdbStore.open(directory.records)`. Close the store before the directory."""
        return self.path / RECORDS

    def close(self) -> None:
        """Release the lock. Idempotent."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def looked_at(path: Path) -> Iterator[Identity]:
    """A directory that no replica uses, and none can for as long as the block lasts. Changes nothing.

    Raises StorageError when `path` is not a data directory, is in use, or its identity cannot be read.
    """
    with _explained(path):
        identity = _read(path)
        if identity is None:
            raise StorageError(f"{path}: not a data directory: it has no {_IDENTITY!r} file. Check the path")
        lock_fd = os.open(path / _LOCK, os.O_RDONLY)
    try:
        _hold(path, lock_fd, fcntl.LOCK_SH)
        yield identity
    finally:
        os.close(lock_fd)


def sync_directory(path: Path) -> None:
    """Make the names of the files in `path` durable. (Syncing a file says nothing about its name.)"""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_IDENTITY: Final = "identity"
_IDENTITY_NEW: Final = "identity.new"
_LOCK: Final = "lock"


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be used as a data directory: {error.strerror or error}. Check that it is on a disk that "
            "is mounted, writable by this user and not full, then start again"
        ) from error


def _make_directory(path: Path) -> None:
    """Create `path` and what is missing above it, durably."""
    if path.is_dir():
        return
    missing = [path, *(parent for parent in path.parents if not parent.exists())]
    path.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_directory(created.parent)


def _lock(path: Path) -> int:
    """The file descriptor that holds the lock. It is not inherited by programs this process runs."""
    lock_fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _hold(path, lock_fd, fcntl.LOCK_EX)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(lock_fd)
        raise
    return lock_fd


def _hold(path: Path, lock_fd: int, how: int) -> None:
    try:
        fcntl.flock(lock_fd, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StorageError(
            f"{path}: in use by another replica (process {holder}), or looked at by `epaxos inspect`. Stop that "
            "process, or give this replica a directory of its own"
        ) from error


def _read(path: Path) -> Identity | None:
    """The identity in `path`; None when there is none."""
    try:
        text = (path / _IDENTITY).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _parse(path, text)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path}: the file {_IDENTITY!r} is damaged ({error}). Put it back as it was; without it, {LOST}"
        ) from error


_JSON: Final = {"str": str, "int": int, "tuple[str, ...]": list, "Mapping[str, Acquaintance]": dict}
"""The types of the fields in `Identity` -> in the file."""


def _parse(path: Path, text: bytes) -> Identity:
    """Raises ValueError, KeyError or TypeError when `text` is no identity, StorageError when it is a newer one."""
    said = json.loads(text)
    if not isinstance(said, dict):
        raise TypeError("not an object")
    schema = said["schema"]
    if type(schema) is not int or schema < 1:
        raise ValueError(f"schema {schema!r}")
    if schema > SCHEMA_VERSION:
        # Before the other fields: a newer release may have renamed them.
        raise StorageError(
            f"{path}: written with schema {schema}, and this release reads up to {SCHEMA_VERSION}. Start the newer "
            "release that wrote it"
        )
    known: dict[str, Any] = {}
    for field in fields(Identity):
        value = said[field.name]
        if type(value) is not _JSON[str(field.type)]:
            raise TypeError(f"{field.name} is {value!r}")
        known[field.name] = value
    known["members"] = tuple(known["members"])
    if not all(type(member) is str for member in known["members"]):
        raise TypeError("members are no names")
    known["peers"] = {peer: Acquaintance(met["disk"], met["incarnation"]) for peer, met in known["peers"].items()}
    for each in (Acquaintance(known["disk"], known["incarnation"]), *known["peers"].values()):
        if not is_disk(each.disk) or type(each.incarnation) is not int or each.incarnation < 1:
            raise ValueError("disk or incarnation out of bounds")
    return Identity(**known)


def _check_no_records(path: Path) -> None:
    records = path / RECORDS
    if records.is_dir() and any(records.iterdir()):
        raise StorageError(
            f"{path}: holds records but no {_IDENTITY!r} file, so nobody knows whose they are. Put it back as it was; "
            f"without it, {LOST}"
        )


def _create(owner: Owner, release: str) -> Identity:
    return Identity(
        **asdict(owner),
        disk=os.urandom(DISK_ID_BYTES).hex(),
        incarnation=0,
        peers={},
        schema=SCHEMA_VERSION,
        created_by=release,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _write_durably(path: Path, identity: Identity) -> None:
    """Replace the identity file: after a power cut at any moment the old or the new one is there, whole."""
    new = path / _IDENTITY_NEW
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(json.dumps(asdict(identity), indent=2, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path / _IDENTITY)
    sync_directory(path)
