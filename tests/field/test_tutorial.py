"""The tutorial, typed into a shell as it is printed: everything comes back as it is printed there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.field.pages import Typed, blocks, other_ports, type_into_a_shell

pytestmark = pytest.mark.field

WITHIN_S = 240.0
"""Gives up after this; nothing asserts how long anything took."""


def test_the_tutorial_is_what_happens(repository: Path, tmp_path: Path) -> None:
    moved = other_ports([7401, 6401], count=5)
    page = [block._replace(text=moved(block.text)) for block in blocks(repository / "docs" / "tutorial.md")]
    typed = [Typed.of(block) for block in page if block.file or block.kind.startswith("console")]
    assert len(typed) >= 10
    with closing(type_into_a_shell(typed, tmp_path, within_s=WITHIN_S)) as shown:
        for each, text in zip(typed, shown, strict=True):
            assert each.alike(text) == each.alike(each.shown), "\n".join(each.commands)
