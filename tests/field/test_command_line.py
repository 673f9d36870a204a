"""The command line against running replicas: real processes, and what a shell script sees of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from bench.cluster import ClusterSpec, LocalCluster, free_ports, local_cluster
from tests.conftest import ClusterText

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 30.0
"""A test gives up after this; nothing asserts how long anything took."""

NAMES = ("CA", "VA", "IR")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def epaxos(directory: Path, *words: str) -> Done:
    """Run one command line with the cluster of `directory`."""
    command = [sys.executable, "-m", "epaxos", *words]
    config = ["--config", str(directory / "cluster.toml")]
    with trio.fail_after(WITHIN_S):
        done = await trio.run_process([*command, *config], capture_stdout=True, capture_stderr=True, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three running replicas."""
    async with local_cluster(ClusterSpec(names=NAMES, directory=tmp_path)) as running:
        await running.wait_ready(within_s=WITHIN_S)
        yield running


@pytest.fixture
def file(tmp_path: Path, cluster_text: ClusterText) -> Path:
    """The file of a cluster of three that does not run."""
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3, ports=free_ports(6)))
    return path


async def test_a_value_written_at_one_replica_is_read_at_another(cluster: LocalCluster, tmp_path: Path) -> None:
    assert await epaxos(tmp_path, "set", "greeting", "hello", "--at", "CA") == Done(0, "OK\n", "")
    assert await epaxos(tmp_path, "get", "greeting", "--at", "IR") == Done(0, "hello\n", "")
    assert await epaxos(tmp_path, "incrby", "count", "-3", "--at", "VA", "--json") == Done(0, "-3\n", "")
    assert await epaxos(tmp_path, "mget", "greeting", "count", "none") == Done(0, "1) hello\n2) -3\n3) (nil)\n", "")
    assert json.loads((await epaxos(tmp_path, "mget", "count", "none", "--json")).out) == ["-3", None]


async def test_any_command_can_be_done_by_hand(cluster: LocalCluster, tmp_path: Path) -> None:
    assert await epaxos(tmp_path, "do", "HSET", "user:1", "name", "Ann", "age", "-7") == (0, "2\n", "")
    assert await epaxos(tmp_path, "do", "hget", "user:1", "name", "--at", "IR") == (0, "Ann\n", "")
    assert await epaxos(tmp_path, "do", "rpush", "list", "a", "b") == (0, "2\n", "")
    assert await epaxos(tmp_path, "do", "LRANGE", "list", "0", "-1") == (0, "1) a\n2) b\n", "")
    assert (await epaxos(tmp_path, "do", "TYPE", "list", "--json")).out == '"list"\n'
    done = await epaxos(tmp_path, "do", "MULTI")
    assert (done.code, "changes a connection" in done.err) == (2, True)
    done = await epaxos(tmp_path, "do", "ZADD", "z", "1", "a")
    assert (done.code, "unknown command 'ZADD'" in done.err) == (1, True)


async def test_exit_codes_tell_what_is_known(cluster: LocalCluster, tmp_path: Path) -> None:
    wrong = await epaxos(tmp_path, "set", "greeting")
    assert (wrong.code, wrong.err) == (1, "epaxos: ERR wrong number of arguments for 'set' command\n")
    nobody = await epaxos(tmp_path, "get", "greeting", "--at", "XX")
    assert (nobody.code, nobody.out) == (2, "")
    for name in ("VA", "IR"):
        os.kill(cluster.pid(name), signal.SIGKILL)
    unknown = await epaxos(tmp_path, "set", "greeting", "hi", "--at", "CA", "--timeout", "0.5", "--json")
    assert unknown.code == 3
    assert json.loads(unknown.out) == {"error": "no reply within 0.5 s", "kind": "Unknown", "exit": 3}
    assert unknown.err == "epaxos: no reply within 0.5 s\n"
    unreachable = await epaxos(tmp_path, "get", "greeting", "--at", "IR")
    assert unreachable.code == 1
    assert "no replica can be reached" in unreachable.err


async def test_status_has_a_row_for_each_replica(cluster: LocalCluster, tmp_path: Path) -> None:
    await epaxos(tmp_path, "set", "greeting", "hello", "--at", "CA")
    found = json.loads((await epaxos(tmp_path, "status", "--json")).out)
    assert [each["name"] for each in found] == list(NAMES)
    assert found[0]["commands"]["fast"] == 1
    os.kill(cluster.pid("IR"), signal.SIGKILL)
    shown = await epaxos(tmp_path, "status")
    assert shown.code == 0
    lines = [line.split()[0] for line in shown.out.splitlines()]
    assert lines[-3:] == ["CA", "VA", "IR:"]


async def test_one_replica_gives_its_figures_to_prometheus(cluster: LocalCluster, tmp_path: Path) -> None:
    await epaxos(tmp_path, "set", "greeting", "hello", "--at", "VA")
    shown = await epaxos(tmp_path, "status", "--prometheus", "--at", "VA")
    assert shown.code == 0
    assert 'epaxos_commands_total{path="fast"} 1' in shown.out.splitlines()
    rows = json.loads((await epaxos(tmp_path, "status", "--at", "VA", "--json")).out)
    assert [row["name"] for row in rows] == ["VA"]


async def test_status_fails_when_nobody_answers(tmp_path: Path, file: Path) -> None:
    assert (await epaxos(tmp_path, "status")).code == 1
    waited = await epaxos(tmp_path, "status", "--wait", "0")
    assert waited.code == 1
    assert waited.err.splitlines() == [f"epaxos: after 0 s: {name} does not answer" for name in NAMES]


async def test_status_waits_until_a_replica_has_what_the_others_have(cluster: LocalCluster, tmp_path: Path) -> None:
    await cluster.kill("IR")
    for number in range(3):
        await epaxos(tmp_path, "set", f"key:{number}", "x", "--at", "CA")
    missing = await epaxos(tmp_path, "status", "--wait", "0.5")
    assert (missing.code, missing.err) == (1, "epaxos: after 0.5 s: IR does not answer\n")
    await cluster.launch("IR")
    found = await epaxos(tmp_path, "status", "--wait", f"{WITHIN_S / 2:g}", "--json")
    assert found.code == 0
    assert all(each["executed"] >= 3 for each in json.loads(found.out))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_replica_stops_in_order_when_asked(file: Path, number: signal.Signals) -> None:
    async with replica(file) as process:
        process.send_signal(number)
        assert await process.wait() == 0


async def test_with_json_a_replica_says_everything_on_stdout(file: Path) -> None:
    words = replica_words(file, "--json")
    process = await trio.lowlevel.open_process(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stderr is not None
        with trio.fail_after(WITHIN_S):
            log = await until_listening(process.stdout)
            process.terminate()
            assert await process.stderr.receive_some() == b""
        assert json.loads(log.partition(b"\n")[0])["event"] == "serving"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_a_replica_makes_room_for_its_clients_and_says_when_there_is_less(file: Path) -> None:
    script = 'ulimit -Sn 64 && ulimit -Hn 400 && exec "$@"'
    words = ["bash", "-c", script, "bash", *replica_words(file)]
    process = await trio.lowlevel.open_process(words, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        with trio.fail_after(WITHIN_S):
            log = await until_listening(process.stderr)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (400, 400)
        said = json.loads(log.partition(b"\n")[0])
        assert (said["event"], said["open_files"]) == ("few_files", 400)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_a_replica_ends_with_its_parent(file: Path) -> None:
    script = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"
    words = replica_words(file, "--exit-with-parent")
    with trio.fail_after(WITHIN_S):
        parent = await trio.lowlevel.open_process(
            [sys.executable, "-c", script, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert parent.stdout is not None and parent.stderr is not None
        pid = int(await parent.stdout.receive_some())
        await until_listening(parent.stderr)
        child = os.pidfd_open(pid)
        parent.kill()
        await parent.wait()
        await trio.lowlevel.wait_readable(child)
        os.close(child)


async def test_a_directory_in_use_is_refused_with_what_to_do(file: Path) -> None:
    async with replica(file):
        second = await trio.run_process(replica_words(file), capture_stderr=True, check=False)
        assert second.returncode == 1
        assert b"in use by another replica" in second.stderr


async def test_links_can_only_be_emulated_between_sites_of_the_matrix(file: Path) -> None:
    words = replica_words(file, "--emulate", "tempo5")
    refused = await trio.run_process(words, capture_stderr=True, check=False)
    assert refused.returncode == 2
    assert b"replicas VA, IR are not sites of tempo5" in refused.stderr


@asynccontextmanager
async def replica(file: Path) -> AsyncIterator[trio.Process]:
    """The replica CA, serving."""
    process = await trio.lowlevel.open_process(replica_words(file), stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        with trio.fail_after(WITHIN_S):
            await until_listening(process.stderr)
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def replica_words(file: Path, *options: str) -> list[str]:
    """The command that runs the replica CA of the cluster in `file`."""
    words = [sys.executable, "-m", "epaxos", "replica", "CA", "--config", str(file)]
    return [*words, "--data", str(file.with_name("CA")), *options]


async def until_listening(log: trio.abc.ReceiveStream) -> bytes:
    """The log of a replica, up to the line that says that clients may come."""
    seen = b""
    while b'"event": "listening"' not in seen:
        received = await log.receive_some()
        assert received, f"the replica ended: {seen.decode()}"
        seen += received
    return seen
