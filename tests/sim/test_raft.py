"""A smoke run of the seeded loop over Raft: the same engine, the same faults, the same invariants."""

from __future__ import annotations

import pytest

from epaxos.testing.seeds import run_seed


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_raft_runs_under_the_same_faults(first: int) -> None:
    results = [run_seed(seed, protocol="raft") for seed in range(first, first + 10)]
    assert [violation for result in results for violation in result.violations] == []
    assert all(result.outcomes["done"] > 0 for result in results)


@pytest.mark.parametrize("n", [1, 3])
def test_raft_at_other_sizes(n: int) -> None:
    assert run_seed(4, protocol="raft", n=n).violations == ()
