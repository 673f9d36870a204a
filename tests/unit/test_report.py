"""The page of a comparison, its charts, and what moved between two of them: from results made by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.comparison import Cell, Comparison, SiteFigures, percentiles, steps
from bench.diff import changes
from bench.failover import FailoverResult, Timeline
from bench.report import page, read
from bench.svg import Group, Line, bar_chart, line_chart, round_values, site_map, unfold
from bench.throughput import Curve, Step, ThroughputOptions, ThroughputResult
from bench.timeline import KINDS, Answer, Outage, buckets, gaps
from epaxos.errors import ConfigError
from topology import Matrix

PROVENANCE = {"machine": "a machine", "commit": "abc", "at": "2026-01-01T00:00:00+00:00"}
RTT_US = ((0, 60_000, 80_000), (60_000, 0, 100_000), (80_000, 100_000, 0))


def site(us: int) -> SiteFigures:
    samples = sorted(us + 10 * at for at in range(2_000))
    return SiteFigures(
        optimum_us=60_000,
        bound_us=60_000,
        commit_us={},
        execute_us=percentiles(samples),
        cdf_us=steps(samples),
        fast_share=None,
        answered=len(samples),
        failed=0,
    )


def comparison(us: int = 60_000) -> dict[str, Any]:
    cells = [
        Cell(
            protocol=protocol,
            leader=leader,
            conflict=conflict,
            sites={name: site(us + more) for name in ("A", "B", "C<D")},
            pooled_us=percentiles([us + more + at for at in range(2_000)]),
            pooled_cdf_us=[],
            recoveries=0,
            zipf=None,
            groups={"p50": 1, "max": 3},
            syncs_a_command=None,
            bytes_a_command=None,
            busy_share=0.5,
        )
        for conflict in (0.0, 0.25)
        for protocol, leader, more in (("epaxos", None, 0), ("raft", "A", 30_000))
    ]
    load = {"seconds": 1.0, "clients": 1, "rate_per_s": 1.0, "zipf_keys": 10, "seed": 1}
    result = Comparison(
        matrix="mine",
        backend="tun",
        load=load,
        provenance=PROVENANCE,
        sites=("A", "B", "C<D"),
        rtt_us=RTT_US,
        cells=cells,
    )
    return json.loads(json.dumps(result.to_json()))  # type: ignore[no-any-return]


def test_the_page_says_what_was_measured_and_needs_nothing_else() -> None:
    text = page([comparison()])
    assert "1.43 times as long" in text.replace("\n", " ")
    assert "links by tun" in text and "a machine" in text and "abc" in text
    assert not re.search(r"(src|href)=|url\(|@import", text), "nothing is fetched"
    assert "C&lt;D" in text and "C<D" not in text
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(pictures) == 2 * (1 + 3) + 2 + 1
    for picture in pictures:
        ElementTree.fromstring(picture)


def failover(gap_us: int = 50_000) -> dict[str, Any]:
    """Of three sites, of which B dies first and A, which leads Raft, second."""
    outages = [
        Outage(site=name, killed_us=us, restarted_us=us + 1_000_000, serving_us=us + 1_500_000, until_us=us + 2_000_000)
        for name, us in (("B", 1_000_000), ("A", 3_000_000))
    ]
    answers = {
        (name, kind): [Answer(at, 70_000) for at in range(0, 5_000_000, gap_us)] for name in "ABC" for kind in KINDS
    }
    matrix = Matrix(name="mine", sites=("A", "B", "C"), rtt_us=RTT_US)
    timelines = [
        Timeline(
            protocol=protocol,
            leader=leader,
            capacity_per_s=1_000.0,
            outages=outages,
            gaps=[gaps(matrix, outage, answers, {}, quiet_us=1_000_000) for outage in outages],
            series={
                "all": {
                    kind: list(buckets(answers["A", kind], bucket_us=250_000, until_us=5_000_000)) for kind in KINDS
                }
            },
            answered=100,
            unanswered=0,
            reasons={},
            lag_p99_us=10,
            longest_sync_us=9_000,
        )
        for protocol, leader in (("epaxos", None), ("raft", "A"))
    ]
    load = {"rate_per_s": 20.0, "half_of_capacity": True, "phase_s": 1.0, "shared": 0.1, "seed": 1}
    result = FailoverResult(
        matrix="mine",
        backend="none",
        load=load,
        provenance=PROVENANCE,
        sites=("A", "B", "C"),
        bucket_us=250_000,
        timelines=timelines,
    )
    return json.loads(json.dumps(result.to_json()))  # type: ignore[no-any-return]


def throughput(per_s: float = 1_000.0) -> dict[str, Any]:
    steps_ = [
        Step(clients=n, per_s=n * per_s, took_us=percentiles(range(1_000, 3_000)), cpu_us=50.0, errors={})
        for n in (1, 8)
    ]
    curves = [Curve(protocol=protocol, steps=steps_) for protocol in ("epaxos", "raft")]
    result = ThroughputResult(options=ThroughputOptions(), provenance=PROVENANCE, curves=curves)
    return json.loads(json.dumps(result.to_json()))  # type: ignore[no-any-return]


def test_one_page_shows_all_parts() -> None:
    text = page([comparison(), failover(), throughput()])
    assert text.count("<h1>") == 1 and "EPaxos and Raft on mine" in text
    assert (
        "50.0 ms while A, the leader, was dead" in text
        and "B is killed and comes back, then A, which leads Raft" in text
    )
    assert text.count('class="band"') == 3 * 2 and "Throughput on loopback" in text
    for picture in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(picture)


def test_what_moved_in_other_parts_is_told_too() -> None:
    rows = {
        (row["load"], row["label"], row["site"], row["figure"]): row for row in changes(failover(), failover(100_000))
    }
    row = rows["A dead", "raft", "C", "other gap, ms"]
    assert (row["old"], row["new"], row["change"]) == (50.0, 100.0, 1.0)
    moved = [row for row in changes(throughput(), throughput(500.0)) if row["change"]]
    assert {(row["figure"], row["change"]) for row in moved} == {("commands/s", -0.5)} and len(moved) == 4
    with pytest.raises(ConfigError, match="no figure in common"):
        changes(failover(), throughput())


def test_what_is_not_a_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, why in (
        ("{", "cannot be read"),
        ("[]", "not a result"),
        ('{"what": "compare", "format": 99}', "format 2"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=why):
            read(path)


def test_what_moved_is_told(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(comparison()), encoding="utf-8")
    new.write_text(json.dumps(comparison(66_000)), encoding="utf-8")
    rows = changes(read(old), read(new))
    assert len(rows) == 4 * 4 * 2 and all(row["change"] > 0.03 for row in rows)
    assert "+" in CliRunner().invoke(bench, ["diff", str(old), str(new)]).output
    assert "0 of 32" in CliRunner().invoke(bench, ["diff", str(old), str(old)]).output
    out = tmp_path / "page.html"
    assert CliRunner().invoke(bench, ["report", str(new), "--out", str(out)]).exit_code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_charts_are_drawings_of_their_values() -> None:
    chart = ElementTree.fromstring(line_chart([Line("a", 0, [(0, 0), (10, 5)])], title="t", x="x", y="y"))
    (curve,) = chart.iter("polyline")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in curve.attrib["points"].split())
    assert x0 < x1 and y0 > y1, "up is up"
    bars = ElementTree.fromstring(bar_chart([Group("g", [(0, 5.0), (1, None), (2, 10.0)], 7.0)], title="t", y="y"))
    heights = [float(bar.attrib["height"]) for bar in bars.iter("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.3)
    ElementTree.fromstring(line_chart([], title="t", x="x", y="y"))
    ElementTree.fromstring(site_map(["A", "B", "C"], RTT_US, title="t"))


def test_round_values_lie_inside() -> None:
    assert round_values(0, 10) == [0, 2, 4, 6, 8, 10]
    assert round_values(0, 0.37) == [0, 0.1, 0.2, 0.3]


def test_places_in_the_plane_are_as_far_apart_as_they_should() -> None:
    places = unfold(RTT_US)
    for i in range(3):
        for j in range(i):
            assert math.dist(places[i], places[j]) == pytest.approx(RTT_US[i][j], rel=0.01)
