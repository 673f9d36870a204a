"""Every scenario file is as it says, and tells of the bug it was written about; see docs/how-to/write-a-scenario.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from epaxos.testing.mutants import Mutant, told_under
from epaxos.testing.scenario import differences
from tests.sim.told_mutants import TOLD

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
FILES = sorted(FOLDER.rglob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_scenario(path: Path) -> None:
    found = differences(path)
    assert not found, f"\n{found}\n\nShould it be so? then: epaxos scenario --rewrite {path}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_scenario_begins_with_its_story_and_ends_in_agreement(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "\nagreement\n----\n" in text and text.endswith("\nagreed\n")


def test_every_scenario_about_epaxos_has_a_bug_that_it_tells_of_and_a_row_in_the_list() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in sorted((FOLDER / "epaxos").glob("*.txt")):
        bugs = [mutant.name for name, mutant in TOLD if name == f"epaxos/{path.stem}"]
        (row,) = [line for line in listed.splitlines() if line.startswith("|") and f"`{path.stem}`" in line]
        assert bugs and all(f"`{bug}`" in row for bug in bugs), f"{path.stem} tells of {bugs}"


@pytest.mark.parametrize(("name", "mutant"), TOLD, ids=lambda each: each if isinstance(each, str) else each.name)
def test_a_scenario_tells_of_the_bug_it_was_written_about(name: str, mutant: Mutant) -> None:
    """At the latest in the file's end: the replicas disagree, or one stops, or somebody is told something else."""
    found = told_under(mutant, FOLDER / f"{name}.txt")
    assert found, f"{name} does not notice: {mutant.story}"
