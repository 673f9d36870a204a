"""Every scenario file is as it says; see docs/how-to/write-a-scenario.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from epaxos.testing.scenario import differences

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
