"""The demo as people run it: real processes, a small matrix, a short load, and nothing left behind however it ends.

Everything a run starts has the test's own directory on its command line, which is how what is left would be found.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.field

MATRIX = """
sites = ["A", "B", "C"]
rtt_ms = [[0, 200, 300], [200, 0, 400], [300, 400, 0]]
"""
"""Long links: the demo refuses to report links that are off by 5 %, and a busy machine may be late by milliseconds."""

END_WITHIN_MS = 30_000
"""How long a process may take to end before the test gives up; nothing asserts how long it took."""


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(MATRIX)
    return path


def command(matrix: Path, seconds: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "epaxos",
        "demo",
        "--matrix",
        str(matrix),
        "--seconds",
        str(seconds),
        "--rate",
        "4",
        "--json",
    ]


def replicas(directory: Path) -> list[int]:
    """The processes that name `directory` on their command line and run a replica."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        if b"replica" in words and any(str(directory).encode() in word for word in words):
            found.append(int(entry.name))
    return sorted(found)


@contextmanager
def running(matrix: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A long demo in the midst of its load, and the processes of its replicas. It shows its progress on a terminal,
    from which the test learns when the load has begun."""
    terminal, its_terminal = os.openpty()
    demo = subprocess.Popen(
        command(matrix, 600),
        stdout=subprocess.PIPE,
        stderr=its_terminal,
        env=os.environ | {"TMPDIR": str(matrix.parent)},
    )
    os.close(its_terminal)
    try:
        seen = b""
        while b"of 600 s" not in seen:
            seen += os.read(terminal, 4096)
        started = replicas(matrix.parent)
        assert len(started) == 3
        yield demo, started
    finally:
        demo.kill()
        with demo:
            os.close(terminal)
        for pid in replicas(matrix.parent):  # of a test that failed
            os.kill(pid, signal.SIGKILL)


def wait_ended(pids: list[int]) -> None:
    """Returns when none of the processes is left."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = poll.poll(END_WITHIN_MS)
        os.close(descriptor)
        assert ended, f"process {pid} is still there"


def test_a_short_demo_measures_every_site_and_leaves_nothing(matrix: Path) -> None:
    demo = subprocess.run(
        command(matrix, 3), capture_output=True, text=True, env=os.environ | {"TMPDIR": str(matrix.parent)}, check=False
    )
    assert demo.stderr == "", "progress is silent when not on a terminal"
    assert demo.returncode == 0, demo.stdout
    result = json.loads(demo.stdout)
    assert isinstance(result["verdict"], bool)
    assert result["raft_leader"] == "A"
    assert [site["site"] for site in result["sites"]] == ["A", "B", "C"]
    assert [site["optimum_us"] for site in result["sites"]] == [200_000, 200_000, 300_000]
    assert [site["edge"] for site in result["sites"]] == ["B", "A", "A"]
    for site in result["sites"]:
        assert site["answered"] == 120
        assert site["answered_hot"] == 2
        assert not any(site[name] for name in ("rejected", "unknown", "other", "unsent")), site["reasons"]
        # Commits are timed in the replica, a batch at a time, and executions by the clients: neither bounds the other.
        assert site["optimum_us"] <= min(site["commit_p50_us"], site["execute_p50_us"]), "nothing outruns its links"
        assert site["cold_fast_share"] > 0.9, "only a cold command in one batch with a hot one may go the slow way"
    assert replicas(matrix.parent) == []
    assert list(matrix.parent.iterdir()) == [matrix]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(matrix: Path, number: signal.Signals) -> None:
    with running(matrix) as (demo, _):
        demo.send_signal(number)
        stdout, _ = demo.communicate()
        assert demo.returncode == 130
        assert stdout == b""
        assert replicas(matrix.parent) == []
        assert list(matrix.parent.iterdir()) == [matrix]


def test_a_killed_demo_leaves_no_process(matrix: Path) -> None:
    with running(matrix) as (demo, started):
        demo.kill()
        wait_ended(started)
        assert replicas(matrix.parent) == []


def test_a_demo_whose_replica_dies_says_which_and_stops_the_others(matrix: Path) -> None:
    with running(matrix) as (demo, started):
        os.kill(started[0], signal.SIGKILL)
        stdout, _ = demo.communicate()
        assert demo.returncode == 1
        assert json.loads(stdout)["error"].splitlines()[0].endswith("ended with code -9")
        assert replicas(matrix.parent) == []


def test_an_unknown_matrix_is_a_usage_error() -> None:
    demo = subprocess.run(command(Path("gryff"), 3), capture_output=True, text=True, check=False)
    assert demo.returncode == 2
    assert "did you mean 'gryff5'?" in demo.stderr
