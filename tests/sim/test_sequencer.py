"""The engine and the simulator drive a protocol that they have never heard of."""

from __future__ import annotations

import pytest

from epaxos.testing.seeds import run_seed
from tests.sim.sequencer import build


@pytest.mark.parametrize("seed", range(12))
def test_a_single_sequencer_runs_on_the_engine(seed: int) -> None:
    result = run_seed(seed, protocol=build)
    assert result.violations == ()
    assert result.outcomes["done"] > 0
