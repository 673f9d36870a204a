"""`epaxos inspect`: what it shows of the data of a real replica, and what it finds damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lmdb
import pytest
import trio

import epaxos
from bench.cluster import free_ports
from epaxos import cli
from epaxos.command import Entry
from epaxos.config import Config
from epaxos.machines.kv import Kv
from epaxos.packing import encode_run
from epaxos.storage.records import frame
from tests.conftest import ClusterText

Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=["epaxos", "raft"])
def written(request: pytest.FixtureRequest, cluster_text: ClusterText, tmp_path: Path) -> Path:
    """The data of a replica that has executed three commands, in two lives."""
    text = f'protocol = "{request.param}"\n' + cluster_text(1, ports=free_ports(2))
    config = Config.parse(text, source="test")

    async def live(keys: list[bytes]) -> None:
        async with epaxos.open_replica(config, "CA", Kv(), data=tmp_path / "ca") as replica:
            for key in keys:
                await replica.ask_run(encode_run(replica.secret, [(Entry(1, 0, key, b"value"),)]))

    trio.run(live, [b"a", b"b"])
    trio.run(live, [b"c"])
    return tmp_path / "ca"


def change(path: Path, letter: bytes, value: bytes | None) -> bytes:
    """Have the first record of that kind deleted, or stored as `value`; its key."""
    with lmdb.open(str(path / "records")) as env, env.begin(write=True) as transaction:
        with transaction.cursor() as cursor:
            key = min(key for key in cursor.iternext(values=False) if key.startswith(letter))
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    return bytes(key)


def inspected(capsys: Capture, path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """(exit code, what is said as JSON)"""
    code = cli.run(["inspect", str(path), *options, "--json"])
    return code, json.loads(capsys.readouterr().out)


def files(path: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_a_sound_directory_is_described_and_left_as_it_is(written: Path, capsys: Capture) -> None:
    before = files(written)
    code, found = inspected(capsys, written, "--verify")
    assert (code, found["damage"], found["verified"]) == (0, [], True)
    assert (found["identity"]["replica"], found["identity"]["incarnation"]) == ("CA", 2)
    if found["identity"]["protocol"] == "epaxos":
        assert found["records"]["instances"]["count"] == found["records"]["batches"]["count"] == 3
        assert found["last"] == {"CA": 3}
    else:
        assert found["records"]["entries"]["count"] == found["last"]["log"] >= 3
        assert found["records"]["term and vote"]["count"] == 1
    assert found["records"]["executed groups"]["count"] >= 1
    assert sum(each["bytes"] for each in found["records"].values()) < found["used_bytes"]
    assert files(written) == before


def test_people_are_shown_a_table(written: Path, capsys: Capture) -> None:
    assert cli.run(["inspect", str(written), "--verify"]) == 0
    shown = capsys.readouterr()
    assert "replica CA of cluster" in shown.out
    assert "executed groups" in shown.out
    assert "sound: a replica can start on it" in shown.out
    assert shown.err == ""


def test_a_record_that_fails_its_checksum_is_named_with_what_to_do(written: Path, capsys: Capture) -> None:
    key = change(written, b"a", b"1234rotten")
    for options in ((), ("--verify",)):
        code, found = inspected(capsys, written, *options)
        [damage] = found["damage"]
        assert code == 1
        assert f"the record {key!r} fails its checksum" in damage
        assert "leave it down" in damage


def test_records_that_no_start_can_read_are_found_when_asked_for(written: Path, capsys: Capture) -> None:
    letter, complaint = {
        "epaxos": (b"c", "its batch is not in the log"),
        "raft": (b"l", "entries between are missing"),
    }[json.loads((written / "identity").read_text())["protocol"]]
    change(written, letter, None)
    assert inspected(capsys, written)[0] == 0
    code, found = inspected(capsys, written, "--verify")
    assert code == 1
    [damage] = found["damage"]
    assert complaint in damage


def test_a_record_of_a_later_version_is_found_when_asked_for(written: Path, capsys: Capture) -> None:
    key = change(written, b"a", b"")
    change(written, b"a", frame(key, bytes.fromhex("83098080")))
    code, found = inspected(capsys, written, "--verify")
    assert (code, found["damage"]) == (1, ["apply mark of version 9; this release reads 1"])


def test_whatever_is_no_data_directory_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert cli.run(["inspect", str(tmp_path)]) == 1
    assert "not a data directory" in capsys.readouterr().err
    assert cli.run(["inspect", str(tmp_path / "nowhere")]) == 2
