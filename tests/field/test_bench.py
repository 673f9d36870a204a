"""The benches as small real runs: nothing acknowledged is lost, everybody agrees. No figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from bench import kill, redis_load
from bench.__main__ import bench
from epaxos.errors import ConfigError

pytestmark = pytest.mark.field

SMALL = (
    redis_load.Load("pipelined", "set,get,incr", 16, 20, 20_000),
    redis_load.Load("one by one", "set,get,incr", 1, 64, 3_000),
)


def test_redis_benchmark_against_each_replica_leaves_equal_replicas() -> None:
    result = trio.run(lambda: redis_load.run_redis(runs=3, loads=SMALL))
    assert result.wrong == []
    assert {test for _, test in result.rates} == {"SET", "GET", "INCR"}
    assert result.counted == 60_000
    assert "all replicas agree" in redis_load.as_table(result)
    assert json.loads(redis_load.to_json(result))["wrong"] == []


def run_kill(options: kill.KillOptions) -> kill.KillResult:
    return trio.run(kill.run_kill, options)


def test_kill_9_of_one_of_five_loses_nothing_and_stops_nobody_else() -> None:
    result = run_kill(kill.KillOptions(every_s=3.0, seconds=4.0, victims="OR"))
    assert result.wrong == []
    (round_,) = result.rounds
    assert round_.victims == ("OR",)
    for site in result.sites:
        if site != "OR":
            alive = [t for t in result.acks_us[site, kill.OWN] if round_.killed_us < t < round_.restarted_us]
            assert alive, f"clients at {site} were answered on their own keys while OR was down"
    assert "linearizable: yes" in kill.as_table(result)
    assert json.loads(json.dumps(kill.to_json(result)))["wrong"] == []


def test_kill_9_of_two_of_five_again_and_again_loses_nothing() -> None:
    result = run_kill(kill.KillOptions(every_s=2.0, seconds=7.0, victims="2"))
    assert result.wrong == []
    assert len(result.rounds) >= 2 and all(len(round_.victims) == 2 for round_ in result.rounds)
    assert len({victim for round_ in result.rounds for victim in round_.victims}) >= 4, "the sites take turns"


def test_victims_that_there_are_not_or_that_leave_no_majority_are_refused() -> None:
    for victims in ("3", "0", "CA,VA,OR", "XX", ""):
        with pytest.raises(ConfigError):
            run_kill(kill.KillOptions(victims=victims))


def test_kill_9_of_whoever_leads_three_replicas_loses_nothing(tmp_path: Path) -> None:
    rows = "[[0.0, 2.0, 2.0], [2.0, 0.0, 2.0], [2.0, 2.0, 0.0]]"
    near = tmp_path / "near.toml"
    near.write_text(f'description = "one region"\nsource = "a test"\nsites = ["CA", "VA", "IR"]\nrtt_ms = {rows}\n')
    result = run_kill(kill.KillOptions(matrix=str(near), protocol="raft", victims="leader", every_s=3.0, seconds=10.0))
    assert result.wrong == []
    assert len(result.rounds) >= 2 and all(len(round_.victims) == 1 for round_ in result.rounds)
    assert "linearizable: yes" in kill.as_table(result)


FAR = """
sites = ["A", "B", "C"]
rtt_ms = [[0, 200, 300], [200, 0, 400], [300, 400, 0]]
"""
"""Long links: a run is refused when they are off by 5 %, and a busy machine may be late by milliseconds."""


def invoke(*words: str) -> dict[str, Any]:
    ran = CliRunner().invoke(bench, [*words, "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def test_failover_shows_both_protocols_through_the_death_of_a_site_and_of_the_leader(tmp_path: Path) -> None:
    matrix = tmp_path / "far.toml"
    matrix.write_text(FAR)
    words = ["failover", "--matrix", str(matrix), "--backend", "none", "--seconds", "1.5", "--rate", "10"]
    said = invoke(*words, "--leader", "A", "--victim", "B")
    assert [each["protocol"] for each in said["timelines"]] == ["epaxos", "raft"]
    for timeline in said["timelines"]:
        assert [each["site"] for each in timeline["outages"]] == ["B", "A"]
        assert all(each["killed_us"] < each["restarted_us"] < each["serving_us"] for each in timeline["outages"])
        assert timeline["answered"] > 0 and len(timeline["series"]["all"]["other"]) == 30
    lost = [gap for gaps in said["timelines"][0]["gaps"] for gap in gaps if gap["unanswered"]]
    assert lost == [], "EPaxos answers at the other sites whoever is dead"


@pytest.mark.alone
def test_throughput_counts_what_clients_of_both_protocols_get(tmp_path: Path) -> None:
    out = tmp_path / "throughput.json"
    said = invoke("throughput", "--clients", "1,6", "--seconds", "0.5", "--conflict", "5", "--out", str(out))
    assert json.loads(out.read_text()) == said
    assert [curve["protocol"] for curve in said["curves"]] == ["epaxos", "raft"]
    for step in (step for curve in said["curves"] for step in curve["steps"]):
        assert step["per_s"] > 0 and step["errors"] == {}
