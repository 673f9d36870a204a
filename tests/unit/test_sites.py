"""From what the replicas and the clients say to the table of the sites and its verdict."""

from __future__ import annotations

from array import array

import pytest

from bench import sites
from bench.sites import Measured, judge, links_off
from bench.tally import Tally
from topology import Matrix, bounds, load

GRYFF5 = load("gryff5")


def tally(p50_us: int, *, cold: int = 1176, hot: int = 24, **counts) -> Tally:
    return Tally(
        cold_us=array("q", [p50_us] * cold),
        hot_us=array("q", [2 * p50_us] * hot),
        lag_us=array("q", [100] * (cold + hot)),
        **counts,
    )


def status(p50_us: int, *, count: int = 1200, fast: int = 1170, slow: int = 30, hot_fast: int = 4) -> dict:
    return {
        "commit_us": {"count": count, "p50": p50_us, "p99": 2 * p50_us},
        "commands": {"fast": fast, "slow": slow},
        "watched": {"hot": {"fast": hot_fast, "slow": 24 - hot_fast}},
    }


def links(matrix: Matrix, site: str, add_us: int = 400) -> dict[str, int]:
    return {peer: rtt_us + add_us for rtt_us, peer in matrix.nearest(site)}


def judged(matrix: Matrix, protocol: str = "epaxos", *, over_us: int = 1_000, **said) -> list[sites.SiteResult]:
    results = []
    for site in matrix.sites:
        bound_us = bounds.protocol_us(protocol, matrix, site)
        measured = Measured(links(matrix, site), tally(bound_us + 2_000), status(bound_us + over_us, **said))
        results.append(judge(matrix, protocol, site, measured, hot_key="hot"))
    return results


def test_the_table_of_a_good_run() -> None:
    assert (
        sites.render(judged(GRYFF5), "epaxos", "CA")
        == """\
      waits     RTT       RTT   optimum  commit  commit  execution  execution  ex. p50 /    cold on  Raft from CA
site  for    matrix  measured  computed     p50     p99        p50        p99    optimum  fast path      computed
----  -----  ------  --------  --------  ------  ------  ---------  ---------  ---------  ---------  ------------
CA    VA       72.0      72.4      72.0    73.0   146.0       74.0      148.0       1.03     99.1 %          72.0
VA    IR       88.0      88.4      88.0    89.0   178.0       90.0      180.0       1.02     99.1 %         144.0
IR    OR      145.0     145.4     145.0   146.0   292.0      147.0      294.0       1.01     99.1 %         223.0
OR    VA       93.0      93.4      93.0    94.0   188.0       95.0      190.0       1.02     99.1 %         131.0
JP    OR      121.0     121.4     121.0   122.0   244.0      123.0      246.0       1.02     99.1 %         185.0
----  -----  ------  --------  --------  ------  ------  ---------  ---------  ---------  ---------  ------------
mean          103.8     104.2     103.8   104.8   209.6      105.8      211.6       1.02     99.1 %         151.0

6000 commands answered, 120 of them on the one hot key (2.0 %); none failed.
Hot commands on the fast path: 16.7 % (mean over the sites).
Times in ms. Execution: what a client sees, from the intended send time to the reply; of it, the load generator's own \
delay: p99 0.1.

Commit p50 within 5 % + 3 ms of the optimum at every site: yes"""
    )


def test_cold_commands_are_all_commands_without_the_watched() -> None:
    result = judged(GRYFF5)[0]
    assert result.cold_fast_share == (1170 - 4) / (1200 - 24)
    assert result.hot_fast_share == 4 / 24


def test_a_figure_without_enough_samples_is_not_claimed() -> None:
    few = Measured(links(GRYFF5, "CA"), tally(72_000, cold=100, hot=2), status(73_000, count=102))
    result = judge(GRYFF5, "epaxos", "CA", few, hot_key="hot")
    assert (result.commit_p50_us, result.execute_p50_us) == (73_000, 72_000)
    assert (result.commit_p99_us, result.execute_p99_us, result.lag_p99_us) == (None, None, None)
    text = sites.render([result], "epaxos", "CA")
    assert "–: too few commands to claim the figure." in text
    assert text.splitlines()[3].split()[6:10] == ["–", "72.0", "–", "1.00"]
    none = Measured(links(GRYFF5, "CA"), Tally(), status(0, count=0, fast=0, slow=24))
    silent = judge(GRYFF5, "epaxos", "CA", none, hot_key="hot")
    assert (silent.ratio, silent.cold_fast_share, silent.near_bound) == (None, None, False)
    assert sites.render([silent], "epaxos", "CA").endswith("at every site: NO (CA – against 78.6 allowed)")


@pytest.mark.parametrize(("over_us", "near"), [(0, True), (6_600, True), (6_601, False)])
def test_near_the_bound_is_five_percent_and_three_milliseconds(over_us: int, near: bool) -> None:
    result = judged(GRYFF5, over_us=over_us)[0]
    assert result.bound_us == 72_000
    assert result.near_bound is near
    assert result.to_json()["near_bound"] is near


def test_the_verdict_names_the_sites_that_missed() -> None:
    lines = sites.render(judged(GRYFF5, over_us=7_000), "epaxos", "CA").splitlines()
    assert lines[-1] == ("Commit p50 within 5 % + 3 ms of the optimum at every site: NO (CA 79.0 against 78.6 allowed)")


def test_the_protocol_has_a_column_of_its_own_where_its_bound_is_not_the_optimum() -> None:
    text = sites.render(judged(load("gcp13")), "epaxos", "IA")
    assert " ".join(text.splitlines()[0].split()) == (
        "waits RTT RTT optimum epaxos commit commit execution execution ex. p50 / cold on Raft from IA"
    )
    assert text.endswith("of the epaxos bound at every site: yes")
    raft = judged(GRYFF5, "raft")
    assert [(each.edge, each.bound_us) for each in raft][:2] == [("CA", 72_000), ("CA", 144_000)]


def test_a_protocol_with_a_leader_is_judged_under_the_one_it_had() -> None:
    measured = Measured(links(GRYFF5, "OR"), tally(181_000), status(181_000))
    result = judge(GRYFF5, "raft", "OR", measured, hot_key="hot", leader="VA")
    assert (result.edge, result.edge_rtt_us, result.edge_measured_us) == ("VA", 93_000, 93_400)
    assert result.bound_us == 93_000 + 88_000
    assert result.raft_us == 59_000 + 72_000, "the comparison stays with the best-placed leader"


def test_who_leads_is_what_every_replica_says() -> None:
    assert sites.leader_of(GRYFF5, [{"detail": {"leader": 1}}] * 5) == "VA"
    assert sites.leader_of(GRYFF5, [{"detail": {}}] * 5) is None
    for said in ([1, 2], [1, None], [None, None]):
        with pytest.raises(ValueError, match="the replicas do not agree on a leader"):
            sites.leader_of(GRYFF5, [{"detail": {"leader": each}} for each in said])


def test_failures_are_counted_and_their_words_shown_by_site() -> None:
    failed = tally(72_000, rejected=2, unknown=1, unsent=3)
    failed.because("BUSY try again: not applied")
    failed.because("BUSY try again: not applied")
    failed.because("no reply in time")
    result = judge(GRYFF5, "epaxos", "CA", Measured(links(GRYFF5, "CA"), failed, status(72_000)), hot_key="hot")
    lines = sites.render([result], "epaxos", "CA").splitlines()
    assert "1200 commands answered, 24 of them on the one hot key (2.0 %); 2 rejected, 1 unknown, 3 unsent." in lines
    assert "  CA: 2 × BUSY try again: not applied" in lines
    assert "  CA: 1 × no reply in time" in lines


def test_links_are_the_matrix_within_five_percent_and_two_milliseconds() -> None:
    good = {site: links(GRYFF5, site) for site in GRYFF5.sites}
    assert links_off(GRYFF5, good) == []
    edge = good | {"CA": good["CA"] | {"VA": 72_000 + 3_600 + 2_000}}
    assert links_off(GRYFF5, edge) == []
    far = good | {"CA": good["CA"] | {"VA": 77_601, "JP": 100_000}}
    assert links_off(GRYFF5, far) == ["CA to VA 77.6 ms instead of 72.0 ms", "CA to JP 100.0 ms instead of 113.0 ms"]
    missing = good | {"VA": {peer: us for peer, us in good["VA"].items() if peer != "CA"}}
    assert links_off(GRYFF5, missing) == ["VA to CA – ms instead of 72.0 ms"]
