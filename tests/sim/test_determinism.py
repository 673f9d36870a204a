"""The same seed is the same run: under any hash seed of the interpreter, and in both builds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from epaxos.testing.seeds import run_seed

SEEDS = (0, 1, 2, 17)
PRINT_HASHES = f"""
from epaxos.testing.seeds import run_seed
for seed in {SEEDS}:
    print(run_seed(seed).trace_hash)
"""


@pytest.fixture(scope="module")
def hashes() -> list[str]:
    return [run_seed(seed).trace_hash for seed in SEEDS]


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "EPAXOS_PURE": "1"}])
def test_the_trace_hash_depends_on_the_seed_alone(hashes: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == hashes
    assert len(set(hashes)) == len(SEEDS)
