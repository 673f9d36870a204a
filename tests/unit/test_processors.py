"""How busy the processors were, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import processors
from bench.processors import Spent, busy_share


def test_the_share_is_that_of_the_time_between_two_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(processors, "_STAT", stat)
    stat.write_text("cpu  10 1 5 70 4 1 2 7 3 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    before = processors.spent()
    assert before == Spent(busy=26, all=100)
    stat.write_text("cpu  40 1 5 80 4 1 2 17 3 0\n")
    assert busy_share(before, processors.spent()) == 40 / 50


def test_a_kernel_that_does_not_tell_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_STAT", tmp_path / "absent")
    assert processors.spent() is None
    assert busy_share(None, Spent(1, 2)) is None and busy_share(Spent(1, 2), Spent(1, 2)) is None
