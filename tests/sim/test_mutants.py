"""Mutants must fit the code they sabotage, and the quick ones must die here; `make mutants` hunts them all."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from epaxos.cli import run
from epaxos.commands.mutants import chosen
from epaxos.errors import ConfigError
from epaxos.testing.mutants import MUTANTS, Mutant, hunt, told_under
from epaxos.testing.reading import ScenarioError
from epaxos.testing.scenario import differences

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
    assert sum(mutant.inside for mutant in MUTANTS) <= 5


def test_what_killed_a_mutant_is_told_as_a_scenario_that_it_alone_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["mutants", "small-fast-quorum", "--tell"]) == 0
    path = tmp_path / "told.txt"
    path.write_text(capsys.readouterr().out)
    text = path.read_text()
    assert text.startswith("# ") and "\ncluster 5" in text and "\nWRONG: " in text
    assert not told_under(next(each for each in MUTANTS if each.name == "small-fast-quorum"), path)
    try:
        assert "+" in differences(path), "sound code does something else"
    except ScenarioError as error:
        assert "no such message is under way" in str(error)


def test_a_mutant_that_dies_in_a_walk_is_told_by_its_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mutants", "any-competitor-wins", "--tell", "--json"]) == 0
    assert "agreement" in json.loads(capsys.readouterr().out)["scenario"]


def test_a_mutant_that_nothing_happens_under_has_no_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mutants", "raft-never-sent-again", "--tell"]) == 0
    assert "there is no scenario file of it: convergence" in capsys.readouterr().out


def test_one_mutant_is_told_of_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mutants", "--quick", "--tell"]) == 2
    assert "--tell is about one mutant" in capsys.readouterr().err
    assert run(["mutants", "applied-again", "--tell", "--times", "2"]) == 2


def test_mutants_are_chosen_by_name_and_protocol_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-bug"):
        chosen(["no-such-bug"], quick=False)
    assert [mutant.name for mutant in chosen(["applied-again"], quick=True)] == ["applied-again"]
    assert {mutant.protocol for mutant in chosen([], quick=False, protocol="raft")} == {"raft"}
