"""Labs for real: namespaces, packets that take their time, links that change, and nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from epaxos.errors import ConfigError
from topology import Matrix
from topology.__main__ import topology
from topology.lab import Lab, LabError, bring_up, find, state as lab_state, tear_down
from topology.lab.namespaces import existing
from topology.lab.tun import router_pid

pytestmark = [
    pytest.mark.field,
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

NAME = f"test{os.getpid()}"
OTHER = f"other{os.getpid()}"
MATRIX = Matrix(
    name="small",
    sites=("A", "B", "C"),
    rtt_us=((0, 20_000, 40_000), (20_000, 0, 60_000), (40_000, 60_000, 0)),
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    try:
        yield bring_up(MATRIX, name=NAME)
    finally:
        tear_down(NAME)


def left(name: str) -> list[str]:
    """What there is of a lab."""
    found = [*existing(lab_state.namespace_prefix(name)), *map(str, lab_state.DIRECTORY.glob(f"*{name}*"))]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.encode() in words:
            found.append(process.name)
    return found


def test_packets_take_as_long_as_the_matrix_says(lab: Lab) -> None:
    measured = lab.measure()
    assert set(measured) == {("A", "B"), ("A", "C"), ("B", "C")}
    for (a, b), rtt_us in measured.items():
        assert rtt_us is not None and rtt_us >= MATRIX.between_us(a, b)


def test_links_change_while_they_are_used(lab: Lab) -> None:
    lab.partition([["A"]])
    cut = find(NAME).measure()
    assert cut["A", "B"] is cut["A", "C"] is None and cut["B", "C"] is not None
    lab.heal()
    lab.change("B-C", {"delay": "100ms"})
    lab.change("A>B", {"loss": "100%"})
    changed = find(NAME).measure()
    assert changed["B", "C"] is not None and changed["B", "C"] >= 200_000
    assert changed["A", "B"] is None
    lab.heal()
    assert None not in find(NAME).measure().values()


def test_programs_run_inside_and_end_with_the_lab(lab: Lab) -> None:
    words = lab.command_in("B", ["sleep", "1000"])
    process = subprocess.Popen(words)
    listed = subprocess.run(
        lab.command_in("A", ["ip", "-json", "address"]), capture_output=True, text=True, check=True
    ).stdout
    addresses = [info["local"] for device in json.loads(listed) for info in device["addr_info"]]
    assert lab.state.address("A") in addresses
    tear_down(NAME)
    assert process.wait() == -signal.SIGKILL
    assert left(NAME) == []


def test_two_labs_are_apart(lab: Lab) -> None:
    other = bring_up(MATRIX, name=OTHER)
    try:
        other.partition([["A"], ["B"], ["C"]])
        assert set(other.measure().values()) == {None}
        assert None not in lab.measure().values()
        with pytest.raises(LabError, match="already"):
            bring_up(MATRIX, name=NAME)
    finally:
        tear_down(OTHER)
    assert left(OTHER) == []
    assert None not in lab.measure().values()


@pytest.mark.parametrize("after_lines", [0, 1])
def test_a_set_up_that_was_killed_leaves_nothing_behind_once_it_is_taken_down(after_lines: int) -> None:
    """Killed as soon as its state is there, and when all is there and it has said so."""
    words = [sys.executable, "-m", "topology", "up", "gryff5", "--name", NAME]
    try:
        with subprocess.Popen(words, stdout=subprocess.PIPE) as tool:
            assert tool.stdout is not None
            if after_lines:
                tool.stdout.readline()
            else:
                while not (lab_state.DIRECTORY / f"{NAME}.json").exists():
                    os.sched_yield()
            tool.kill()
        assert left(NAME)
    finally:
        tear_down(NAME)
    assert left(NAME) == []


def test_a_router_that_died_is_told(lab: Lab) -> None:
    if lab.state.backend != "tun":
        return
    pid = router_pid(lab.state)
    assert pid is not None
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os.close(descriptor)
    assert "GONE" in CliRunner().invoke(topology, ["status", "--name", NAME]).output
    with pytest.raises(LabError, match="is gone"):
        lab.heal()


def test_the_command_line_does_all_of_it() -> None:
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(topology, [*words, "--name", NAME])
        assert done.exit_code == code, done.output
        return done.output

    try:
        assert "5 regions of gryff5" in run("up", "gryff5")
        assert json.loads(run("status", "--json"))["regions"][0]["site"] == "CA"
        run("set", "CA-JP", "delay=300ms", "loss=2%")
        assert "CA>JP: delay 300.0 ms loss 2 %" in run("status")
        run("partition", "CA,VA")
        assert "CA-IR: nothing" in run("measure", code=1)
        run("heal")
        assert "as the matrix says" in run("status")
    finally:
        run("down")
    assert left(NAME) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["up", "gryff5", "--name", "No-Name"], "is not a name for a lab"),
        (["status", "--name", "nosuchlab"], "there is no lab nosuchlab"),
        (["down", "--name", "../x"], "is not a name for a lab"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], why: str) -> None:
    done = subprocess.run([sys.executable, "-m", "topology", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and why in done.stderr


@pytest.mark.parametrize(
    ("way", "words", "why"),
    [
        ("A-X", {"delay": "1ms"}, "no site 'X'"),
        ("A-B", {"delay": "1h"}, "delay=1h: a number and one of us, ms, s"),
        ("A-B", {"delay": "1000s"}, "at most 10 s"),
        ("A-B", {"loss": "200%"}, "at most 100%"),
        ("A-B", {"colour": "red"}, "a link has no 'colour'"),
    ],
)
def test_a_link_that_cannot_be_is_refused_and_nothing_changes(
    lab: Lab, way: str, words: dict[str, str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        lab.change(way, words)
    assert find(NAME).state.links == lab.state.original()
