"""The data directory: whose it is, one process at a time, and an incarnation that only grows."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epaxos.errors import StorageError
from epaxos.storage.directory import SCHEMA_VERSION, DataDirectory, read_identity
from epaxos.storage.lmdb import LmdbStore
from epaxos.testing.conformance import group

OURS = {"cluster": "shop", "protocol": "epaxos", "replica": "CA", "release": "1.2.3"}


def said(path: Path) -> dict[str, Any]:
    """The identity file, as a person would read it."""
    return dict(json.loads((path / "identity").read_text()))


def test_a_new_directory_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ca"
    with DataDirectory.open(path, **OURS) as directory:
        identity = directory.identity
        assert (identity.cluster, identity.replica, identity.protocol) == ("shop", "CA", "epaxos")
        assert (identity.schema, identity.created_by, directory.incarnation) == (SCHEMA_VERSION, "1.2.3", 1)
        assert directory.disk_id.hex() == identity.disk
        assert len(directory.disk_id) == 16
        assert directory.records.parent == path
    assert said(path)["cluster"] == "shop"
    assert said(path)["created_at"].endswith("+00:00")
    assert read_identity(path) == identity


def test_the_incarnation_grows_at_every_start_and_nothing_else_changes(tmp_path: Path) -> None:
    before: dict[str, Any] = {}
    for start in range(1, 5):
        with DataDirectory.open(tmp_path, **{**OURS, "release": f"1.2.{start}"}) as directory:
            assert directory.incarnation == start
            # On the disk before anything can be said under it.
            assert said(tmp_path)["incarnation"] == start
        if before:
            assert said(tmp_path) == {**before, "incarnation": start}
        before = said(tmp_path)


def test_two_disks_never_share_an_id(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "a", **OURS) as a, DataDirectory.open(tmp_path / "b", **OURS) as b:
        assert a.disk_id != b.disk_id


def test_records_live_beside_the_identity(tmp_path: Path) -> None:
    for start in range(1, 3):
        with DataDirectory.open(tmp_path, **OURS) as directory:
            store = LmdbStore.open(directory.records)
            store.write(group(1, [(b"%d" % start, b"")]))
            store.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["identity", "lock", "records"]


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("cluster", "bank", "belongs to cluster 'shop', not 'bank'"),
        ("replica", "VA", "belongs to replica 'CA', not 'VA'"),
        ("protocol", "raft", "written by protocol 'epaxos', and the configuration says 'raft'"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, field: str, value: str, complaint: str) -> None:
    DataDirectory.open(tmp_path, **OURS).close()
    with pytest.raises(StorageError, match=complaint):
        DataDirectory.open(tmp_path, **{**OURS, field: value})
    assert said(tmp_path)["incarnation"] == 1
    DataDirectory.open(tmp_path, **OURS).close()


def test_a_newer_schema_is_refused_whatever_its_fields(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(json.dumps({"schema": SCHEMA_VERSION + 1, "realm": "shop"}))
    with pytest.raises(StorageError, match="Start the newer release"):
        DataDirectory.open(tmp_path, **OURS)
    with pytest.raises(StorageError, match="Start the newer release"):
        read_identity(tmp_path)


def test_records_without_an_identity_are_refused(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path, **OURS) as directory:
        LmdbStore.open(directory.records).close()
    (tmp_path / "identity").unlink()
    with pytest.raises(StorageError, match="holds records but no 'identity' file"):
        DataDirectory.open(tmp_path, **OURS)
    assert not (tmp_path / "identity").exists()


def damaged_identities() -> dict[str, bytes]:
    sound: dict[str, Any] = {
        "cluster": "shop",
        "replica": "CA",
        "protocol": "epaxos",
        "disk": "00" * 16,
        "incarnation": 3,
        "schema": SCHEMA_VERSION,
        "created_by": "1.2.3",
        "created_at": "2025-01-01T00:00:00+00:00",
    }
    text = json.dumps(sound).encode()
    return {
        "empty": b"",
        "cut": text[: len(text) // 2],
        "zeroes": bytes(len(text)),
        "not text": b"\xff\xfe" + text,
        "a list": b"[1]",
        "a field lost": json.dumps({key: value for key, value in sound.items() if key != "disk"}).encode(),
        "a short disk id": json.dumps({**sound, "disk": "00"}).encode(),
        "a disk id that is none": json.dumps({**sound, "disk": "zz" * 16}).encode(),
        "an incarnation in words": json.dumps({**sound, "incarnation": "three"}).encode(),
        "no incarnation yet": json.dumps({**sound, "incarnation": 0}).encode(),
        "schema true": json.dumps({**sound, "schema": True}).encode(),
        "schema 0": json.dumps({**sound, "schema": 0}).encode(),
    }


@pytest.mark.parametrize("damage", damaged_identities())
def test_a_damaged_identity_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    garbage = damaged_identities()[damage]
    (tmp_path / "identity").write_bytes(garbage)
    with pytest.raises(StorageError, match="the file 'identity' is damaged"):
        DataDirectory.open(tmp_path, **OURS)
    assert (tmp_path / "identity").read_bytes() == garbage


def test_a_directory_in_use_is_refused_and_free_again_when_closed(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, **OURS)
    with pytest.raises(StorageError, match=rf"in use by another replica \(process {os.getpid()}\)"):
        DataDirectory.open(tmp_path, **OURS)
    assert read_identity(tmp_path).incarnation == 1
    directory.close()
    directory.close()
    with DataDirectory.open(tmp_path, **OURS) as again:
        assert again.incarnation == 2


HOLDER = """
import sys
from pathlib import Path
from epaxos.storage.directory import DataDirectory
DataDirectory.open(Path(sys.argv[1]), cluster="shop", protocol="epaxos", replica="CA", release="1.2.3")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_is_between_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=rf"process {holder.pid}\)"):
            DataDirectory.open(tmp_path, **OURS)
        holder.kill()
    with DataDirectory.open(tmp_path, **OURS) as directory:
        assert directory.incarnation == 2


def test_a_refused_directory_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("garbage")
    for _ in range(2):
        with pytest.raises(StorageError, match="damaged"):
            DataDirectory.open(tmp_path, **OURS)


def test_a_start_cut_short_while_writing_leaves_the_old_identity(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, **OURS).close()
    (tmp_path / "identity.new").write_text('{"cluster": "sh')
    with DataDirectory.open(tmp_path, **OURS) as directory:
        assert directory.incarnation == 2
    assert not (tmp_path / "identity.new").exists()


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, **OURS).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the lock's few bytes fit, the identity does not
    try:
        with pytest.raises(StorageError, match="cannot be used as a data directory: File too large"):
            DataDirectory.open(tmp_path, **OURS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_identity(tmp_path).incarnation == 1
    with DataDirectory.open(tmp_path, **OURS) as directory:
        assert directory.incarnation == 2


def test_what_cannot_be_a_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="cannot be used as a data directory"):
            DataDirectory.open(path, **OURS)


def test_reading_the_identity_of_any_other_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a data directory"):
        read_identity(tmp_path)
    assert list(tmp_path.iterdir()) == []
