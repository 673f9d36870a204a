"""The benches as small real runs: nothing acknowledged is lost, everybody agrees. No figure is asserted."""

from __future__ import annotations

import json

import pytest
import trio

from bench import kill, redis_load

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
    assert json.loads(redis_load.as_json(result))["wrong"] == []


def test_kill_9_of_one_of_five_loses_nothing_and_stops_nobody_else() -> None:
    result = trio.run(kill.run_kill, kill.KillOptions(phase_s=2.0, clients=2))
    assert result.wrong == []
    for site in result.sites:
        if site != result.victim:
            alive = [t for t in result.acks_us[site, kill.OWN] if result.killed_us < t < result.restarted_us]
            assert alive, f"clients at {site} were answered on their own keys while {result.victim} was down"
    assert "0 of" in kill.as_table(result)
    assert json.loads(kill.as_json(result))["victim"] == result.victim
