"""A seed is the whole run: the same trace under every hash seed of the interpreter, pure and compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epaxos.testing.seeds import MIX, run_seed, setting

ROOT = Path(__file__).parents[2]
SEEDS = (1, 7, 10, 15, 19, 1234)
"""One at least of every protocol and size in the mix."""
PROGRAM = """
import sys
from epaxos.testing.seeds import run_seed, setting
for seed in map(int, sys.argv[1:]):
    print(run_seed(seed, protocol=setting(seed).protocol, n=setting(seed).n).trace_hash)
"""


def traces_elsewhere(**environment: str) -> list[str]:
    """The trace hashes of `SEEDS` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, SEEDS)],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def traces_here() -> list[str]:
    return [run_seed(seed, protocol=setting(seed).protocol, n=setting(seed).n).trace_hash for seed in SEEDS]


def test_seeds_differ(traces_here: list[str]) -> None:
    assert len(set(traces_here)) == len(SEEDS)
    assert set(map(setting, SEEDS)) == set(MIX)


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_equal_under_every_hash_seed(traces_here: list[str], hash_seed: str) -> None:
    assert traces_elsewhere(PYTHONHASHSEED=hash_seed) == traces_here


def test_equal_in_pure_and_compiled_builds(traces_here: list[str]) -> None:
    assert traces_elsewhere(EPAXOS_PURE="1") == traces_here


def test_reading_along_changes_nothing(traces_here: list[str]) -> None:
    lines: list[str] = []
    assert run_seed(SEEDS[0], sink=lines.append).trace_hash == traces_here[0]
    assert sum(not line.startswith(" ") for line in lines) > 1000, "events, apart from details for readers"
