"""`epaxos inspect`: what is in a data directory, and is it sound? Its replica must not run. Nothing is changed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from epaxos.applier import APPLIED
from epaxos.command import Batch
from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.engine import Engine
from epaxos.errors import StorageError
from epaxos.limits import LimitsConfig
from epaxos.machines.interface import BatchMachine
from epaxos.protocols.interface import LogView, Now, ProtocolConfig
from epaxos.protocols.registry import VIEWS, build
from epaxos.storage.directory import RECORDS, Identity, looked_at
from epaxos.storage.lmdb import LmdbStore
from epaxos.storage.records import END_OF_KEYS, unframe
from epaxos.tables import Column, render

DAMAGE_SHOWN: Final = 20
"""So many damaged records are named; of the others it is said how many there are."""


class _Contents:
    """The records of one directory, counted."""

    def __init__(self, identity: Identity) -> None:
        self._view = VIEWS[identity.protocol]
        self._kinds = {APPLIED: "executed groups", **self._view.kinds}
        self._members = identity.members
        self.counts: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.last: dict[str, int] = {}
        """The last slot of each lane, by the name of its replica; of a protocol with one sequence, its last index."""
        self.damage: list[str] = []

    def read(self, store: LmdbStore) -> None:
        """Read everything, through the checksums."""
        try:
            for key, framed in store.framed(b"", END_OF_KEYS):
                self._take(key, framed)
        except StorageError as error:  # of the file: no more of it can be read
            self.damage.append(str(error))

    def _take(self, key: bytes, framed: bytes) -> None:
        kind = self._kinds.get(key[:1], f"unknown {key[:1]!r}")
        self.counts[kind] += 1
        self.bytes[kind] += len(key) + len(framed)
        try:
            unframe(key, framed)
        except StorageError as error:
            self.damage.append(str(error))
            return
        id_ = self._view.place(key)
        if id_ is not None:
            lane = self._members[id_.lane] if self._view.lanes else "log"
            self.last[lane] = max(self.last.get(lane, 0), id_.slot)

    def rehearse(self, identity: Identity, log: LogView) -> None:
        """Read everything as a start does, through the decoders, with a machine that does nothing."""
        limits, n = LimitsConfig(), len(identity.members)
        me = identity.members.index(identity.replica)
        config = ProtocolConfig(me=me, n=n, window=limits.window, retry_us=limits.retry_us)
        try:
            protocol, executor = build(identity.protocol, config, random.Random(), log)
            engine = Engine(
                me=me,
                n=n,
                incarnation=identity.incarnation,
                protocol=protocol,
                executor=executor,
                machine=_Nothing(),
                log=log,
            )
            for _ in engine.replay():
                pass
            engine.turn(Now(0, 0), ())
        except StorageError as error:
            self.damage.append(str(error))


class _Nothing(BatchMachine):
    """Takes every command, and does nothing."""

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        return [b""] * len(spans)

    def save(self) -> Iterable[bytes]:
        return ()

    def load(self, chunks: Iterable[bytes]) -> None:
        pass


def run(path: Path, *, verify: bool, console: Console) -> int:
    """Show what there is; the exit code says whether it is sound, as far as that was asked for.

    Raises StorageError when `path` is no data directory, or is in use.
    """
    with looked_at(path) as identity:
        store = LmdbStore.open(path / RECORDS, readonly=True)
        try:
            contents = _Contents(identity)
            contents.read(store)
            if verify and not contents.damage:
                contents.rehearse(identity, store)
        finally:
            store.close()
    found = {
        "identity": asdict(identity),
        "records": {kind: {"count": n, "bytes": contents.bytes[kind]} for kind, n in sorted(contents.counts.items())},
        "last": contents.last,
        "used_bytes": store.used_bytes,
        "verified": verify,
        "damage": contents.damage,
    }
    console.result(found, "\n".join(_text(identity, contents, store.used_bytes)))
    for each in contents.damage[:DAMAGE_SHOWN]:
        console.warn(each)
    if len(contents.damage) > DAMAGE_SHOWN:
        console.warn(f"and {len(contents.damage) - DAMAGE_SHOWN} more")
    if verify and not contents.damage:
        console.say("sound: a replica can start on it")
    return EXIT_FAILED if contents.damage else EXIT_DONE


def _text(identity: Identity, contents: _Contents, used_bytes: int) -> Iterator[str]:
    yield f"replica {identity.replica} of cluster {identity.cluster}: {' '.join(identity.members)}"
    yield (
        f"protocol {identity.protocol}, incarnation {identity.incarnation}, disk {identity.disk}, "
        f"schema {identity.schema}, created by {identity.created_by} at {identity.created_at}"
    )
    for peer, met in sorted(identity.peers.items()):
        yield f"has met {peer} in incarnation {met.incarnation} on disk {met.disk}"
    yield ""
    columns = [Column("records", right=False), Column("how many"), Column("bytes")]
    rows = [[kind, str(count), str(contents.bytes[kind])] for kind, count in sorted(contents.counts.items())]
    total = ["all", str(contents.counts.total()), str(contents.bytes.total())]
    yield render(columns, rows, foot=[total])
    yield f"in a file that reaches {used_bytes} bytes far"
    yield f"last slots: {', '.join(f'{lane} {slot}' for lane, slot in contents.last.items()) or 'none'}"
