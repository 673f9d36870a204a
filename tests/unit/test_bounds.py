"""The closed forms against the published figures of every matrix, in milliseconds.

The matrices are given to a tenth of a millisecond; where the published bound was computed from finer data it may
differ by one more tenth, so those are compared to within 0.11 ms. `gryff5` is in whole milliseconds and exact.
"""

from __future__ import annotations

from functools import partial

import pytest

from epaxos.errors import ConfigError
from topology import Matrix, bounds, load

ROUNDING_MS = 0.11


def mean_ms(bound, matrix: Matrix) -> float:
    return bounds.mean_us(matrix, partial(bound, matrix)) / 1000


def test_gryff5_fast_path_per_site() -> None:
    matrix = load("gryff5")
    fast = {site: bounds.epaxos_fast_us(matrix, site) for site in matrix.sites}
    assert fast == {"CA": 72_000, "VA": 88_000, "IR": 145_000, "OR": 93_000, "JP": 121_000}
    assert mean_ms(bounds.epaxos_fast_us, matrix) == pytest.approx(103.8)


def test_gryff5_raft_by_leader() -> None:
    means = [(placed.site, placed.mean_us / 1000) for placed in bounds.leaders(load("gryff5"))]
    assert means == [
        ("CA", pytest.approx(151.0)),
        ("VA", pytest.approx(171.0)),
        ("OR", pytest.approx(176.6)),
        ("JP", pytest.approx(244.2)),
        ("IR", pytest.approx(265.8)),
    ]


def test_three_sites_of_gryff5() -> None:
    matrix = load("gryff5").only(["CA", "VA", "IR"])
    assert [bounds.epaxos_fast_us(matrix, site) for site in matrix.sites] == [72_000, 72_000, 88_000]
    assert mean_ms(bounds.epaxos_fast_us, matrix) == pytest.approx(77.3, abs=0.05)
    best = bounds.best_leader(matrix)
    assert (best.site, best.mean_us / 1000) == ("VA", pytest.approx(125.3, abs=0.05))
    assert bounds.epaxos_slow_us(matrix, "CA") == 144_000


@pytest.mark.parametrize(
    ("name", "fast", "best", "worst"),
    [
        ("epaxos5", 88.4, ("CA", 126.7), ("EU", 236.0)),
        ("gcp5", 81.7, ("OR", 122.3), ("EU", 235.1)),
        ("tempo5", 139.9, ("CA", 174.8), ("AP", 350.9)),
        ("gcp13", 225.7, ("IA", 220.4), ("IN", 471.5)),
    ],
)
def test_published_means(name: str, fast: float, best: tuple[str, float], worst: tuple[str, float]) -> None:
    matrix = load(name)
    assert mean_ms(bounds.epaxos_fast_us, matrix) == pytest.approx(fast, abs=ROUNDING_MS)
    for placed, (site, mean) in [(bounds.best_leader(matrix), best), (bounds.worst_leader(matrix), worst)]:
        assert (placed.site, placed.mean_us / 1000) == (site, pytest.approx(mean, abs=ROUNDING_MS))


def test_gcp13_majority_and_slow_path() -> None:
    matrix = load("gcp13")
    assert mean_ms(bounds.optimum_us, matrix) == pytest.approx(151.6, abs=ROUNDING_MS)
    assert mean_ms(bounds.epaxos_slow_us, matrix) == pytest.approx(377.3, abs=ROUNDING_MS)


@pytest.mark.parametrize("name", ["epaxos5", "gcp5", "gryff5", "tempo5"])
def test_at_five_sites_the_fast_path_is_the_optimum_and_beats_raft_as_published(name: str) -> None:
    matrix = load(name)
    for site in matrix.sites:
        assert bounds.epaxos_fast_us(matrix, site) == bounds.optimum_us(matrix, site)
    fast = mean_ms(bounds.epaxos_fast_us, matrix)
    assert 1.24 <= bounds.best_leader(matrix).mean_us / 1000 / fast <= 1.6
    assert 2.2 <= bounds.worst_leader(matrix).mean_us / 1000 / fast <= 2.95


def test_thirteen_sites_are_slightly_worse_than_the_best_raft_leader() -> None:
    matrix = load("gcp13")
    assert 1.0 < mean_ms(bounds.epaxos_fast_us, matrix) / (bounds.best_leader(matrix).mean_us / 1000) < 1.05


def test_the_edge_of_a_quorum_names_its_farthest_member() -> None:
    matrix = load("gryff5")
    assert bounds.quorum_edge(matrix, "CA", 3) == (72_000, "VA")
    assert bounds.quorum_edge(matrix, "CA", 1) == (0, "CA")
    assert bounds.quorum_edge(matrix, "CA", 5) == (151_000, "IR")
    for size in (0, 6):
        with pytest.raises(ValueError, match=f"a quorum of {size} among 5 sites"):
            bounds.quorum_edge(matrix, "CA", size)


def test_one_site_alone_waits_for_nobody() -> None:
    alone = Matrix(name="alone", sites=("A",), rtt_us=((0,),))
    assert bounds.optimum_us(alone, "A") == bounds.epaxos_slow_us(alone, "A") == bounds.raft_us(alone, "A", "A") == 0


def test_the_bound_is_a_function_of_the_protocol() -> None:
    matrix = load("gryff5")
    assert bounds.protocol_us("epaxos", matrix, "OR") == 93_000
    assert bounds.protocol_us("raft", matrix, "OR") == 59_000 + 72_000
    assert bounds.protocol_us("raft", matrix, "OR", "VA") == 93_000 + 88_000
    assert bounds.waits_for("raft", matrix, "OR", "VA") == (93_000, "VA")
    assert bounds.waits_for("epaxos", matrix, "OR") == (93_000, "VA")
    assert bounds.waits_for("raft", matrix, "OR") == (59_000, "CA")
    for function in (bounds.protocol_us, bounds.waits_for):
        with pytest.raises(ConfigError, match="no bound for protocol 'zab'; there is one for epaxos and raft"):
            function("zab", matrix, "OR")


def test_more_sites_than_a_cluster_may_have_are_refused() -> None:
    many = tuple(f"s{at}" for at in range(14))
    rtt_us = tuple(tuple(0 if i == j else 9 for j in range(14)) for i in range(14))
    flat = Matrix(name="flat", sites=many, rtt_us=rtt_us)
    with pytest.raises(ConfigError, match="matrix flat: 14 sites, but a cluster has at most 13: choose some"):
        bounds.optimum_us(flat, "s0")
