"""Leaders die, in virtual time: the bench finds the next one each time, and refuses what has no leader."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.elections import ElectionOptions, as_table, run_elections
from epaxos.errors import ConfigError


def test_another_one_leads_and_commits_each_time() -> None:
    result = run_elections(ElectionOptions(runs=4))
    assert result.wrong == [], as_table(result)
    for each in result.elections:
        assert each.next not in (None, each.dead)
        assert each.elected_us is not None and each.commits_us is not None and 0 < each.elected_us < each.commits_us


def test_the_leader_is_where_it_is_wanted_and_broken_links_tell_sooner_than_silence() -> None:
    silent = run_elections(ElectionOptions(runs=2, leader="OR"))
    told = run_elections(ElectionOptions(runs=2, leader="OR", detect_ms=0))
    assert {each.dead for each in (*silent.elections, *told.elections)} == {"OR"}
    for slow, quick in zip(silent.elections, told.elections, strict=True):
        assert slow.commits_us is not None and quick.commits_us is not None and quick.commits_us < slow.commits_us


def test_the_command_line_says_the_same() -> None:
    ran = CliRunner().invoke(bench, ["failover", "--virtual", "--runs", "2", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert len(said["runs"]) == 2 and said["wrong"] == []


def test_what_has_no_leader_cannot_lose_it() -> None:
    with pytest.raises(ConfigError, match="epaxos has no leader"):
        run_elections(ElectionOptions(protocol="epaxos", runs=1))
    with pytest.raises(ConfigError):
        run_elections(ElectionOptions(leader="XX", runs=1))
    assert CliRunner().invoke(bench, ["failover"]).exit_code == 2
