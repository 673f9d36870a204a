"""Coordinators die under load, in virtual time: the bench's promise, on a few crashes."""

from __future__ import annotations

import json

from click.testing import CliRunner

from bench.__main__ import bench
from bench.recovery import RecoveryOptions, as_table, run_recovery


def test_what_a_dead_coordinator_left_is_finished_within_three_round_trips() -> None:
    result = run_recovery(RecoveryOptions(runs=5, detect_ms=200))
    assert len(result.orphans) >= 5
    assert result.wrong == [], as_table(result)


def test_the_command_line_says_the_same() -> None:
    words = ["recovery", "--matrix", "gryff5", "--runs", "2", "--detect-ms", "200", "--json"]
    ran = CliRunner().invoke(bench, words)
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["bound_us"] == 660_000 and said["wrong"] == []
    assert said["left"] == len(said["orphans"]) > 0
