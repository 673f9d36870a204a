"""Labs for real: namespaces, packets that take their time, links that change, and nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import pytest
import trio
from click.testing import CliRunner

from bench.cell import CellError, CellLoad, run_cell
from bench.cluster import ClusterSpec
from epaxos.errors import ConfigError
from topology import Matrix
from topology.__main__ import topology
from topology.lab import Lab, LabError, bring_up, find, state as lab_state, tear_down
from topology.lab.measure import SO_TIMESTAMPNS
from topology.lab.namespaces import existing, inside, prompt
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


def running(name: str) -> list[int]:
    """The processes whose words name a lab."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.encode() in words:
            found.append(int(process.name))
    return found


def left(name: str) -> list[str]:
    """What there is of a lab."""
    found = [*existing(lab_state.namespace_prefix(name)), *map(str, lab_state.DIRECTORY.glob(f"*{name}*"))]
    return [*found, *map(str, running(name))]


def let_end(name: str) -> None:
    """What a tool was just starting when it was killed finds its parent gone, and ends by itself."""
    for pid in running(name):
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [], 20.0)
            os.close(descriptor)


def of_this_machine() -> str:
    """Its own links and routes, which labs leave alone."""
    shown = (["ip", "-brief", "link"], ["ip", "route", "show", "table", "all"])
    return "".join(subprocess.run(words, capture_output=True, text=True, check=True).stdout for words in shown)


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


class Arrival(NamedTuple):
    """One packet at the other end of a link: which it was, and how long it took by the clock of the kernel."""

    number: int
    took_us: int


def sent(lab: Lab, source: str, target: str, count: int, *, size: int = 64, gap_s: float = 0.0) -> list[Arrival]:
    """So many packets of that size one way, at most `gap_s` apart, in the order in which they arrive."""
    state = lab.state
    with inside(state.namespace(source)):
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(state.namespace(target)):
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    arrivals = []
    with out, there, prompt():
        there.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        there.bind((state.address(target), 0))
        for number in range(count):
            out.sendto(struct.pack("qq", number, time_ns()).ljust(size), there.getsockname())
            arrivals += _arrived(there, gap_s)
        while new := _arrived(there, 1.0):
            arrivals += new
    return arrivals


def _arrived(there: socket.socket, within_s: float) -> list[Arrival]:
    """Waits so long for a packet, then takes all there are."""
    found = []
    while select.select([there], [], [], 0.0 if found else within_s)[0]:
        packet, ancillary, _, _ = there.recvmsg(2_000, 64)
        number, sent_ns = struct.unpack_from("qq", packet)
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        found.append(Arrival(number, (seconds * 1_000_000_000 + nanoseconds - sent_ns) // 1_000))
    return found


def test_jitter_spreads_packets_and_keeps_their_order(lab: Lab) -> None:
    lab.change("A>B", {"delay": "20ms", "jitter": "4ms"})
    arrivals = sent(lab, "A", "B", 300, gap_s=0.001)
    assert [arrival.number for arrival in arrivals] == list(range(300))
    took_us = sorted(arrival.took_us for arrival in arrivals)
    assert took_us[-10] - took_us[10] > 4_000


def test_some_packets_are_lost_and_some_overtake(lab: Lab) -> None:
    """Shares within five standard deviations."""
    lab.change("A>B", {"loss": "20%"})
    assert 400 * 0.8 - 40 <= len(sent(lab, "A", "B", 400, gap_s=0.0005)) <= 400 * 0.8 + 40
    lab.heal()
    lab.change("A>B", {"delay": "30ms", "reorder": "20%"})
    arrivals = sent(lab, "A", "B", 400, gap_s=0.0005)
    early = [arrival for arrival in arrivals if arrival.took_us < 30_000]
    assert len(arrivals) == 400 and 80 - 40 <= len(early) <= 80 + 40
    numbers = [arrival.number for arrival in arrivals]
    assert numbers != sorted(numbers)


def test_a_slow_link_lets_through_what_it_can_and_is_fast_again_once_it_is_healed(lab: Lab) -> None:
    """Fifty packets of 8 224 bits take 411 ms at 1 Mbit/s, and the last one is sent soon after the first."""
    lab.change("A>B", {"rate": "1mbit"})
    slow = sent(lab, "A", "B", 50, size=1_000)
    lab.heal()
    fast = sent(lab, "A", "B", 50, size=1_000)
    assert len(slow) == len(fast) == 50
    slow_us, fast_us = (arrivals[-1].took_us - arrivals[0].took_us for arrivals in (slow, fast))
    assert slow_us > 300_000 and fast_us < slow_us / 2


def test_no_figure_is_taken_on_links_that_are_not_those_of_the_matrix(lab: Lab, tmp_path: Path) -> None:
    lab.change("A-C", {"delay": "22ms"})
    spec = ClusterSpec(names=MATRIX.sites, directory=tmp_path, lab=lab)
    with pytest.raises(CellError, match=r"A-C: 44\.\d ms instead of 40\.0 ms"):
        trio.run(run_cell, spec, MATRIX, CellLoad(seconds=1.0), lambda words: None)


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
    """Killed as soon as its state is there, and when all is there and it has said so; a lab beside it stays."""
    before = of_this_machine()
    words = [sys.executable, "-m", "topology", "up", "gryff5", "--name", NAME]
    other = bring_up(MATRIX, name=OTHER)
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
        tear_down(NAME)
        let_end(NAME)
        assert left(NAME) == []
        assert None not in other.measure().values()
    finally:
        tear_down(NAME)
        tear_down(OTHER)
    assert left(OTHER) == [] and of_this_machine() == before


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
    ("words", "code", "why"),
    [
        (["up", "gryff5", "--name", "No-Name"], 2, "is not a name for a lab"),
        (["status", "--name", "nosuchlab"], 1, "there is no lab nosuchlab"),
        (["down", "--name", "../x"], 2, "is not a name for a lab"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], code: int, why: str) -> None:
    done = subprocess.run([sys.executable, "-m", "topology", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code and why in done.stderr


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
