"""WATCH, MULTI and EXEC at five sites in the simulator: no increment is lost, and a machine that loses one is found."""

from __future__ import annotations

import pytest

from epaxos.machines.kv import PyKv
from epaxos.machines.store import Store
from epaxos.testing.optimistic import optimistic
from epaxos.testing.seeds import run_seed


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_increment_is_lost(seed: int) -> None:
    assert run_seed(seed, play=optimistic()).violations == ()


class _Blind(Store):
    def touch(self, key: bytes) -> None:
        """Nobody who watches the key learns of it."""


class _BlindKv(PyKv):
    def __init__(self) -> None:
        super().__init__()
        self.store = _Blind()


def test_a_machine_that_forgets_who_watches_is_found() -> None:
    found = [violation for seed in range(1, 4) for violation in run_seed(seed, play=optimistic(_BlindKv)).violations]
    assert found
