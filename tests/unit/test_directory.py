"""The data directory: whose it is, one process at a time, and an incarnation that only grows."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from epaxos.errors import StorageError
from epaxos.identity import Acquaintance, Owner, is_disk
from epaxos.storage.directory import SCHEMA_VERSION, DataDirectory, looked_at
from epaxos.storage.lmdb import LmdbStore
from epaxos.testing.conformance import group

OURS = Owner(cluster="shop", replica="CA", members=("CA", "VA", "IR"), protocol="epaxos", secret="5ec4e7")


def opened(path: Path, owner: Owner = OURS, *, release: str = "1.2.3") -> DataDirectory:
    return DataDirectory.open(path, owner, release=release)


def said(path: Path) -> dict[str, Any]:
    """The identity file, as a person would read it."""
    return dict(json.loads((path / "identity").read_text()))


def test_a_new_directory_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ca"
    with opened(path) as directory:
        identity = directory.identity
        assert (identity.cluster, identity.replica, identity.members) == ("shop", "CA", ("CA", "VA", "IR"))
        assert (identity.schema, identity.created_by, directory.identity.incarnation) == (SCHEMA_VERSION, "1.2.3", 1)
        assert is_disk(identity.disk)
        assert directory.records.parent == path
    assert said(path)["cluster"] == "shop"
    assert said(path)["created_at"].endswith("+00:00")
    with looked_at(path) as seen:
        assert seen == identity


def test_the_incarnation_grows_at_every_start_and_nothing_else_changes(tmp_path: Path) -> None:
    before: dict[str, Any] = {}
    for start in range(1, 5):
        with opened(tmp_path, release=f"1.2.{start}") as directory:
            assert directory.identity.incarnation == start
            # On the disk before anything can be said under it.
            assert said(tmp_path)["incarnation"] == start
        if before:
            assert said(tmp_path) == {**before, "incarnation": start}
        before = said(tmp_path)


def test_two_disks_never_share_an_id(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as a, opened(tmp_path / "b") as b:
        assert a.identity.disk != b.identity.disk


def test_peers_that_were_met_are_known_from_then_on(tmp_path: Path) -> None:
    met = {"VA": Acquaintance("0a" * 16, 3), "IR": Acquaintance("0b" * 16, 1)}
    with opened(tmp_path) as directory:
        assert directory.known("VA") is None
        for peer, acquaintance in met.items():
            trio.run(directory.remember, peer, acquaintance)
        before = said(tmp_path)
        assert before["peers"]["VA"] == {"disk": "0a" * 16, "incarnation": 3}
    with opened(tmp_path) as directory:
        assert {peer: directory.known(peer) for peer in met} == met
        trio.run(directory.remember, "IR", Acquaintance("0b" * 16, 2))
        assert said(tmp_path) == {
            **before,
            "incarnation": 2,
            "peers": {**before["peers"], "IR": {"disk": "0b" * 16, "incarnation": 2}},
        }


def test_a_peer_that_cannot_be_written_down_stays_unknown(tmp_path: Path) -> None:
    with opened(tmp_path) as directory:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
        try:
            with pytest.raises(StorageError, match="cannot be written: File too large"):
                trio.run(directory.remember, "VA", Acquaintance("0a" * 16, 3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert directory.known("VA") is None
    assert said(tmp_path)["peers"] == {}


def test_records_live_beside_the_identity(tmp_path: Path) -> None:
    for start in range(1, 3):
        with opened(tmp_path) as directory:
            store = LmdbStore.open(directory.records)
            store.write(group(1, [(b"%d" % start, b"")]))
            store.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["identity", "lock", "records"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cluster": "bank"}, "belongs to cluster 'shop', not 'bank'"),
        ({"replica": "VA"}, "belongs to replica 'CA', not 'VA'"),
        ({"members": ("CA", "VA", "IR", "OR")}, "the cluster was CA VA IR; the file says CA VA IR OR: members cannot"),
        ({"members": ("VA", "CA", "IR")}, "the cluster was CA VA IR; the file says VA CA IR: members cannot change"),
        ({"members": ("CA", "VA")}, "the cluster was CA VA IR; the file says CA VA: members cannot change"),
        ({"protocol": "raft"}, "written by protocol 'epaxos', and the configuration says 'raft'"),
        ({"secret": "0123"}, "written under another secret than that of the configuration"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    opened(tmp_path).close()
    with pytest.raises(StorageError, match=complaint):
        opened(tmp_path, replace(OURS, **changes))
    assert said(tmp_path)["incarnation"] == 1
    opened(tmp_path).close()


def test_a_newer_schema_is_refused_whatever_its_fields(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(json.dumps({"schema": SCHEMA_VERSION + 1, "realm": "shop"}))
    with pytest.raises(StorageError, match="Start the newer release"):
        opened(tmp_path)
    with pytest.raises(StorageError, match="Start the newer release"), looked_at(tmp_path):
        raise AssertionError("looked at what is not understood")


def test_records_without_an_identity_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as directory:
        LmdbStore.open(directory.records).close()
    (tmp_path / "identity").unlink()
    with pytest.raises(StorageError, match=r"holds records but no 'identity' file.* leave it down"):
        opened(tmp_path)
    assert not (tmp_path / "identity").exists()


def damaged_identities() -> dict[str, bytes]:
    sound: dict[str, Any] = {
        "cluster": "shop",
        "replica": "CA",
        "members": ["CA", "VA", "IR"],
        "protocol": "epaxos",
        "secret": "5ec4e7",
        "disk": "00" * 16,
        "incarnation": 3,
        "peers": {"VA": {"disk": "11" * 16, "incarnation": 1}},
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
        "members that are none": json.dumps({**sound, "members": ["CA", 7]}).encode(),
        "members in one word": json.dumps({**sound, "members": "CA"}).encode(),
        "a short disk id": json.dumps({**sound, "disk": "00"}).encode(),
        "a disk id that is none": json.dumps({**sound, "disk": "zz" * 16}).encode(),
        "an incarnation in words": json.dumps({**sound, "incarnation": "three"}).encode(),
        "peers in a list": json.dumps({**sound, "peers": ["VA"]}).encode(),
        "a peer in a word": json.dumps({**sound, "peers": {"VA": "11" * 16}}).encode(),
        "a peer without a disk": json.dumps({**sound, "peers": {"VA": {"incarnation": 1}}}).encode(),
        "a peer in no incarnation": json.dumps(
            {**sound, "peers": {"VA": {"disk": "11" * 16, "incarnation": 0}}}
        ).encode(),
        "no incarnation yet": json.dumps({**sound, "incarnation": 0}).encode(),
        "schema true": json.dumps({**sound, "schema": True}).encode(),
        "schema 0": json.dumps({**sound, "schema": 0}).encode(),
    }


@pytest.mark.parametrize("damage", damaged_identities())
def test_a_damaged_identity_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    garbage = damaged_identities()[damage]
    (tmp_path / "identity").write_bytes(garbage)
    with pytest.raises(StorageError, match=r"the file 'identity' is damaged .* leave it down"):
        opened(tmp_path)
    assert (tmp_path / "identity").read_bytes() == garbage


def test_a_directory_in_use_is_refused_and_free_again_when_closed(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    with pytest.raises(StorageError, match=rf"in use by another replica \(process {os.getpid()}\)"):
        opened(tmp_path)
    assert said(tmp_path)["incarnation"] == 1
    directory.close()
    directory.close()
    with opened(tmp_path) as again:
        assert again.identity.incarnation == 2


HOLDER = """
import sys
from pathlib import Path
from epaxos.identity import Owner
from epaxos.storage.directory import DataDirectory
owner = Owner(cluster="shop", replica="CA", members=("CA", "VA", "IR"), protocol="epaxos", secret="5ec4e7")
DataDirectory.open(Path(sys.argv[1]), owner, release="1.2.3")
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
            opened(tmp_path)
        holder.kill()
    with opened(tmp_path) as directory:
        assert directory.identity.incarnation == 2


def test_a_refused_directory_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("garbage")
    for _ in range(2):
        with pytest.raises(StorageError, match="damaged"):
            opened(tmp_path)


def test_a_start_cut_short_while_writing_leaves_the_old_identity(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "identity.new").write_text('{"cluster": "sh')
    with opened(tmp_path) as directory:
        assert directory.identity.incarnation == 2
    assert not (tmp_path / "identity.new").exists()


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the lock's few bytes fit, the identity does not
    try:
        with pytest.raises(StorageError, match="cannot be used as a data directory: File too large"):
            opened(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said(tmp_path)["incarnation"] == 1
    with opened(tmp_path) as directory:
        assert directory.identity.incarnation == 2


def test_what_cannot_be_a_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="cannot be used as a data directory"):
            opened(path)


def test_a_directory_is_looked_at_or_used(tmp_path: Path) -> None:
    opened(tmp_path).close()
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    with looked_at(tmp_path), looked_at(tmp_path), pytest.raises(StorageError, match="looked at by `epaxos inspect`"):
        opened(tmp_path)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    with opened(tmp_path), pytest.raises(StorageError, match="in use"), looked_at(tmp_path):
        raise AssertionError("looked at a directory in use")


def test_looking_at_any_other_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a data directory"), looked_at(tmp_path):
        raise AssertionError("looked at nothing")
    assert list(tmp_path.iterdir()) == []
