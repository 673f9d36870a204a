"""Mutants must fit the code they sabotage, and the quick ones must die here; `make mutants` hunts them all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from epaxos.commands.mutants import chosen
from epaxos.errors import ConfigError
from epaxos.testing.mutants import MUTANTS, Mutant, hunt

QUICK = [mutant for mutant in MUTANTS if mutant.quick]
SEEDS_MAX = 300


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_the_code(mutant: Mutant) -> None:
    for module, old, new in mutant.edits:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        assert Path(spec.origin).read_text().count(old) == 1, f"{module}: {old!r}"
        assert old != new


def test_mutants_have_names_and_stories_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len({mutant.story for mutant in MUTANTS}) == len(MUTANTS)
    assert len(MUTANTS) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: mutant.name)
def test_quick_mutants_die(mutant: Mutant) -> None:
    found = hunt(mutant, first=0, seeds_max=SEEDS_MAX)
    assert found.killed_by is not None, f"{mutant.name} lived through {SEEDS_MAX} seeds: {mutant.story}"
    assert found.seed is not None and found.seeds == found.seed + 1


def test_hardly_any_mutant_needs_an_invariant_of_the_inside() -> None:
    """A figure that must not grow unseen: one that shows outside is worth more."""
    assert sum(mutant.inside for mutant in MUTANTS) <= 9


def test_mutants_are_chosen_by_name_and_protocol_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-bug"):
        chosen(["no-such-bug"], quick=False)
    assert [mutant.name for mutant in chosen(["applied-again"], quick=True)] == ["applied-again"]
    assert {mutant.protocol for mutant in chosen([], quick=False, protocol="raft")} == {"raft"}
