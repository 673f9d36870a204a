"""A smoke run of the seeded loop; `make sim` is the real one."""

from __future__ import annotations

import pytest

from epaxos.testing.seeds import Summary, main, run_seed, run_seeds, shrink

SEEDS = range(60)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(SEEDS), 20))
def test_seeds_without_a_violation(first: int) -> None:
    summary = Summary()
    for result in run_seeds(range(first, first + 20)):
        summary.add(result)
    assert summary.violations == []
    assert summary.counted == summary.seeds == 20
    assert summary.recoveries > 0 and summary.lives > 5 * summary.seeds
    assert "0 violations" in str(summary)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_other_sizes(n: int) -> None:
    result = run_seed(5, n=n)
    assert result.violations == () and result.commands >= 50


def test_faults_can_be_left_out() -> None:
    full = run_seed(11)
    calm = run_seed(11, without=full.faults)
    assert full.faults and not calm.faults
    assert calm.violations == () and calm.trace_hash != full.trace_hash


def test_a_seed_that_does_not_fail_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(3)


def test_the_command_prints_a_summary_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "7..8"]) == 0
    assert "2 seeds" in capsys.readouterr().out
    assert main(["--seed", "7", "--trace"]) == 0
    printed = capsys.readouterr().out
    assert run_seed(7).trace_hash in printed and "no violation" in printed
