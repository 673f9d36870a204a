"""Metrics: what turns are counted as, and how it is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from epaxos.command import READ, Batch, Entry
from epaxos.engine import Turn
from epaxos.ids import BatchNumber, InstanceId
from epaxos.observe.metrics import BUCKETS_US, Metrics
from epaxos.packing import encode_run
from epaxos.protocols.interface import Note

SECRET = bytes(range(16))
ID = InstanceId(0, 1, 0)


def test_groups_are_counted_by_their_size() -> None:
    metrics = Metrics(SECRET)
    metrics.observe(Turn(groups=[1, 1, 5, 1]))
    metrics.observe(Turn(groups=[2]))
    assert metrics.status()["groups"] == {"count": 5, "p50": 1, "p99": 5, "max": 5}
    metrics.reset()
    assert metrics.status()["groups"]["count"] == 0


def note(event: str, *keys: bytes) -> Note:
    run = encode_run(SECRET, [(Entry(1, READ, key, b""),) for key in keys])
    return Note(event=event, id=ID, batch=Batch.of(BatchNumber(0, 1, 1), run))


def status(**changes: Any) -> dict[str, Any]:
    """What a replica would say of itself, as far as the counters do not."""
    return {
        "name": "CA",
        "protocol": "epaxos",
        "compiled": "mixed",
        "incarnation": 3,
        "up_s": 12,
        "executed": 40,
        "behind": 1,
        "in_flight": 2,
        "peers": {
            "VA": {"up": True, "rtt_us": 72_000, "queue_bytes": 10, "sent_bytes": 900, "dropped": 0},
            "IR": {"up": False, "rtt_us": None, "queue_bytes": 0, "sent_bytes": 0, "dropped": 7},
        },
        "disk": {
            "syncs": 5,
            "records": 9,
            "bytes": 1234,
            "sync_us_max": 2_500,
            "used_bytes": 8192,
            "max_bytes": 1 << 36,
        },
        **changes,
    }


def samples(text: str) -> dict[str, float]:
    """name{labels} -> value, of a text that keeps to Prometheus's format."""
    found: dict[str, float] = {}
    described: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# "):
            described.add(line.split()[2])
            continue
        match = re.fullmatch(r"([a-z_]+)((?:\{.*\})?) (\S+)", line)
        assert match is not None, line
        assert match[1] in described or re.sub("_(bucket|sum|count)$", "", match[1]) in described, line
        assert match[1] + match[2] not in found, line
        found[match[1] + match[2]] = float(match[3])
    return found


def test_commands_are_counted_by_path_and_watched_keys_by_name() -> None:
    metrics = Metrics(SECRET, ("hot", "never"))
    metrics.observe(Turn(notes=[note("fast_commit", b"a", b"hot", b"b"), note("slow_commit", b"hot")]))
    metrics.observe(Turn(notes=[note("fast_commit", b"c"), note("recover", b"hot"), Note(event="fast_commit")]))
    found = metrics.status()
    assert found["commands"] == {"fast": 4, "slow": 1, "log": 0}
    assert found["watched"] == {"hot": {"fast": 1, "slow": 1, "log": 0}, "never": {"fast": 0, "slow": 0, "log": 0}}
    assert metrics.events == {"fast_commit": 3, "slow_commit": 1, "recover": 1}


def test_latencies_are_counted_once_a_command() -> None:
    metrics = Metrics(SECRET)
    metrics.observe(Turn(commits=[(100, 99), (7_000, 1)], executions=[(110, 2)]))
    found = metrics.status()
    assert found["commit_us"] == {"count": 100, "p50": 100, "p99": 100}
    assert found["execute_us"] == {"count": 2, "p50": 110, "p99": 110}


def test_reset_begins_anew() -> None:
    metrics = Metrics(SECRET, ("hot",))
    before = metrics.status()
    metrics.observe(Turn(notes=[note("fast_commit", b"hot")], commits=[(5, 1)], executions=[(6, 1)]))
    assert metrics.status() != before
    metrics.reset()
    assert metrics.status() == before
    assert not metrics.events


def test_prometheus_gets_every_figure_in_base_units() -> None:
    metrics = Metrics(SECRET, ("hot",))
    metrics.observe(Turn(notes=[note("fast_commit", b"hot", b"x")], commits=[(72_000, 2)], executions=[(150_000, 2)]))
    found = samples(metrics.prometheus(status()))
    assert found['epaxos_info{name="CA",protocol="epaxos",compiled="mixed"}'] == 1
    assert found['epaxos_commands_total{path="fast"}'] == 2
    assert found['epaxos_watched_commands_total{key="hot",path="fast"}'] == 1
    assert found['epaxos_events_total{event="fast_commit"}'] == 1
    assert found['epaxos_peer_up{peer="VA"}'] == 1
    assert found['epaxos_peer_up{peer="IR"}'] == 0
    assert found['epaxos_peer_rtt_seconds{peer="VA"}'] == 0.072
    assert 'epaxos_peer_rtt_seconds{peer="IR"}' not in found
    assert found['epaxos_peer_dropped_frames_total{peer="IR"}'] == 7
    assert found["epaxos_disk_sync_max_seconds"] == 0.0025
    assert (found["epaxos_disk_used_bytes"], found["epaxos_disk_max_bytes"]) == (8192, 1 << 36)
    assert found["epaxos_executed_commands_total"] == 40
    assert found["epaxos_commit_seconds_sum"] == pytest.approx(0.144)
    assert found["epaxos_commit_seconds_count"] == found['epaxos_commit_seconds_bucket{le="+Inf"}'] == 2
    assert found['epaxos_commit_seconds_bucket{le="0.05"}'] == 0
    assert found['epaxos_commit_seconds_bucket{le="0.1"}'] == 2
    buckets = [found[f'epaxos_execute_seconds_bucket{{le="{bound / 1e6:g}"}}'] for bound in BUCKETS_US]
    assert buckets == sorted(buckets)


def test_a_key_with_quotes_stays_inside_its_label() -> None:
    metrics = Metrics(SECRET, ('a"b\\c\nd',))
    assert 'key="a\\"b\\\\c\\nd"' in metrics.prometheus(status())
