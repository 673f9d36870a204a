"""Open loop on one key at every site: with the window of a busy key everything executes, and without it nothing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.hotkey import HotkeyOptions, HotkeyResult, as_table, run_hotkey

SMALL = """
sites = ["A", "B", "C"]
rtt_ms = [[0, 100, 160], [100, 0, 120], [160, 120, 0]]
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> HotkeyResult:
    matrix = tmp_path_factory.mktemp("hotkey") / "small.toml"
    matrix.write_text(SMALL)
    return run_hotkey(HotkeyOptions(matrix=str(matrix), seconds=2, rate_per_s=150, window=4))


def test_with_the_window_every_command_executes_in_time_and_in_groups_of_bounded_size(result: HotkeyResult) -> None:
    load = result.loaded
    assert load.answered == load.asked > 700
    assert load.while_loaded > 0.8 * load.asked
    assert load.largest_group <= 3 * (4 + 1)
    assert result.wrong == [], as_table(result)


def test_without_it_nothing_executes_while_the_load_lasts(result: HotkeyResult) -> None:
    control = result.control
    assert control.while_loaded < 0.05 * control.asked, "the chain never ends, so what is in it never runs"
    assert control.answered == control.asked, "safety is untouched, and the end of the load ends the chain"
    assert control.largest_group > 500


def test_the_command_line_says_the_same(result: HotkeyResult) -> None:
    words = ["hotkey", "--matrix", result.options.matrix, "--seconds", "2", "--rate", "150", "--window", "4", "--json"]
    ran = CliRunner().invoke(bench, words)
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["window"]["largest_group"] == result.loaded.largest_group, "a seed is a seed"
    assert said["wrong"] == []
