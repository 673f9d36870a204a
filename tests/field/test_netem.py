"""The kernel's own netem, for real: a user-mode Linux has it, whatever the kernel of this machine has.

It runs before everything else on the machine, so that its clocks are true however busy that is. Its processor is slow:
what a command costs there is told apart from what its links cost.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from topology import bounds, load

pytestmark = [
    pytest.mark.field,
    pytest.mark.netns,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="a user-mode Linux is started as root"),
]

MACHINE = [sys.executable, "-m", "topology", "machine", "--"]
LABS = str(Path(__file__).with_name("test_lab.py"))
GRYFF5 = load("gryff5")
WITHIN_S = 300.0
"""A machine that hangs is killed then."""
COMMANDS = 32
FIVE_REPLICAS = f"""
set -e
{sys.executable} -m topology up gryff5 --json
{sys.executable} -m topology measure --json
{sys.executable} -m topology down
ls /run/netns /run/epaxos-lab >&2
{sys.executable} -m bench compare --json --conflicts 0 --leaders none --clients 2 --rate 2 --seconds {COMMANDS // 4}
"""


def in_machine(*words: str) -> subprocess.CompletedProcess[str]:
    """What a command says there. It must succeed."""
    done = subprocess.run([*MACHINE, *words], capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def test_what_holds_of_labs_holds_of_labs_by_netem() -> None:
    said = in_machine(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not refused", LABS)
    assert " passed" in said.stdout and "skipped" not in said.stdout


def test_five_replicas_on_netem_are_as_fast_as_the_matrix_allows() -> None:
    said = in_machine("sh", "-c", FIVE_REPLICAS)
    up, measured, down, compared = said.stdout.splitlines()
    assert json.loads(up)["backend"] == "netem"
    pairs = json.loads(measured)["pairs"]
    assert len(pairs) == 10
    for pair in pairs:
        wanted_us = GRYFF5.between_us(pair["a"], pair["b"])
        assert wanted_us <= pair["rtt_us"] <= wanted_us * 1.02 + 2_000
    assert "5 regions" in down and "epaxos" not in said.stderr.replace("/run/epaxos-lab", "")
    comparison = json.loads(compared)
    assert comparison["backend"] == "netem"
    as_the_closed_form_says(comparison["cells"][0]["sites"])


def as_the_closed_form_says(sites: dict[str, dict[str, Any]]) -> None:
    """The links of each site cost what they must. What processing costs depends on the machine below: up to twice
    as much at one site as at another. Links that are twice as long as they should be differ by more."""
    over_us = {}
    for name, site in sites.items():
        optimum_us = bounds.epaxos_fast_us(GRYFF5, name)
        assert (site["answered"], site["failed"], site["fast_share"]) == (COMMANDS, 0, 1.0)
        assert site["execute_us"]["p50"] >= optimum_us
        over_us[name] = site["commit_us"]["p50"] - optimum_us
    assert set(over_us) == set(GRYFF5.sites)
    processing_us = min(over_us.values())
    assert processing_us >= 0
    for name, us in over_us.items():
        assert us - processing_us <= 0.05 * bounds.epaxos_fast_us(GRYFF5, name) + processing_us + 5_000, over_us


def test_nothing_of_a_machine_outlives_whoever_started_it(tmp_path: Path) -> None:
    words = [*MACHINE, "sh", "-c", "sleep 1000 & echo up; exec sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == b"up\n"
        running = naming(tmp_path)
        tool.kill()
    assert len(running) > 3
    for descriptor in running:
        ended, _, _ = select.select([descriptor], [], [], WITHIN_S)
        os.close(descriptor)
        assert ended
    assert naming(tmp_path) == []


def naming(directory: Path) -> list[int]:
    """A descriptor of each process whose words name that directory. A machine's processes come and go meanwhile."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.fsencode(directory) in (process / "cmdline").read_bytes():
                found.append(os.pidfd_open(int(process.name)))
    return found


def test_a_command_that_fails_in_a_machine_fails_here() -> None:
    done = subprocess.run([*MACHINE, "sh", "-c", "echo in vain >&2; exit 7"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"in vain\n")
