"""Increments through real replicas that are killed: every counter is what its clients were told."""

from __future__ import annotations

import pytest
import trio

from bench.sessions import SessionOptions, as_table, run_sessions

pytestmark = pytest.mark.field


@pytest.mark.parametrize("protocol", ["epaxos", "raft"])
def test_counters_are_exact_though_replicas_are_killed(protocol: str) -> None:
    options = SessionOptions(protocol=protocol, seconds=5.0, every_s=1.5, clients=3)
    result = trio.run(run_sessions, options)
    assert result.wrong == [], as_table(result)
    assert result.kills >= 2
    assert all(result.increments.values()), as_table(result)
