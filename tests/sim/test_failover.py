"""Replicas die in virtual time: what clients elsewhere notice, and how long there is no leader."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.elections import NEXT_WITHIN_US, ElectionOptions, ElectionResult, as_table, run_elections
from bench.failover import FailoverOptions, as_table as failover_table, run_failover
from bench.timeline import OTHER
from epaxos.errors import ConfigError


def test_another_one_leads_and_commits_each_time() -> None:
    result = run_elections(ElectionOptions(runs=4))
    assert result.wrong == [], as_table(result)
    for each in result.elections:
        assert each.next not in (None, each.dead)
        assert each.elected_us is not None and each.commits_us is not None and 0 < each.elected_us < each.commits_us


def test_the_leader_is_where_it_is_wanted_and_broken_links_tell_sooner_than_silence() -> None:
    silent = run_elections(ElectionOptions(runs=5, leader="OR"))
    told = run_elections(ElectionOptions(runs=5, leader="OR", detect_ms=0))
    assert {each.dead for each in (*silent.elections, *told.elections)} == {"OR"}
    # Now and then those who are told stand for election at the same time, and have to do so again.
    assert 2 * _median_us(told) < _median_us(silent)


def _median_us(result: ElectionResult) -> float:
    return median(each.commits_us or NEXT_WITHIN_US for each in result.elections)


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


NEAR = """
sites = ["CA", "VA", "IR"]
rtt_ms = [[0, 72, 151], [72, 0, 88], [151, 88, 0]]
"""


def test_clients_elsewhere_are_answered_while_a_site_is_dead_and_wait_while_the_leader_is(tmp_path: Path) -> None:
    matrix = tmp_path / "three.toml"
    matrix.write_text(NEAR)
    options = FailoverOptions(
        matrix=str(matrix), backend="virtual", phase_s=1.5, rate_per_s=120, leader="VA", victim="CA"
    )
    result = run_failover(options)
    epaxos, raft = result.timelines
    assert (epaxos.leader, raft.leader) == (None, "VA")
    for timeline in result.timelines:
        assert [(each.site, each.killed_us, each.restarted_us) for each in timeline.outages] == [
            ("CA", 1_500_000, 3_000_000),
            ("VA", 4_500_000, 6_000_000),
        ]
        assert {gap.site for gap in timeline.gaps[0]} == {"VA", "IR"}
        assert all(gap.unanswered == 0 for found in timeline.gaps for gap in found)
    assert result.kept_answering
    assert raft.longest(1, OTHER).down_us > 2 * epaxos.longest(1, OTHER).down_us
    for word in ("x dies", "VA, leader", "dead or back: yes"):
        assert word in failover_table(result)


def test_who_leads_cannot_be_who_dies_first() -> None:
    with pytest.raises(ConfigError, match="choose another one"):
        run_failover(FailoverOptions(backend="virtual", leader="CA", victim="CA"))
    with pytest.raises(ConfigError, match="XX"):
        run_failover(FailoverOptions(backend="virtual", victim="XX"))
