"""Gaps and buckets, from answers made by hand."""

from __future__ import annotations

import pytest

from bench.failover import FailoverOptions, who_dies
from bench.timeline import OTHER, SHARED, Answer, Bucket, Outage, buckets, gaps, longest_gap_us, survivors_rtt_us
from epaxos.tables import sparks
from topology import load

MATRIX = load("gryff5")


@pytest.mark.parametrize(
    ("at_us", "longest_us"),
    [
        ([], 100),
        ([50], 50),
        ([10, 90], 80),
        ([5], 95),
        ([-30, 20], 80),
        ([-30], 130),
        ([95, 120], 95),
        ([20, 40, 60, 80, 130], 20),
    ],
)
def test_a_gap_begins_with_the_last_answer_before_and_is_over_when_the_time_is(
    at_us: list[int], longest_us: int
) -> None:
    assert longest_gap_us(at_us, 0, 100) == longest_us


def test_the_nearest_majority_is_of_those_alive() -> None:
    assert survivors_rtt_us(MATRIX, "CA", "IR") == 72_000
    assert survivors_rtt_us(MATRIX, "CA", "OR") == 113_000
    assert survivors_rtt_us(MATRIX, "JP", "CA") == 162_000


def test_what_each_surviving_site_noticed() -> None:
    outage = Outage(site="OR", killed_us=1_000, restarted_us=2_000, serving_us=2_500, until_us=3_000)
    answers = {("CA", OTHER): [Answer(at, 50) for at in range(0, 3_000, 100)], ("CA", SHARED): [Answer(900, 500)]}
    due = {("CA", OTHER): [*range(0, 3_000, 100), 1_001], ("CA", SHARED): [900]}
    found = {(gap.site, gap.kind): gap for gap in gaps(MATRIX, outage, answers, due, quiet_us=1_000)}
    assert {site for site, _ in found} == {"CA", "VA", "IR", "JP"}
    other, shared = found["CA", OTHER], found["CA", SHARED]
    assert (other.before_us, other.down_us, other.back_us, other.wait_us, other.unanswered) == (100, 100, 100, 50, 1)
    assert other.within_rtt and other.spacing_us == 100
    assert (shared.down_us, shared.back_us, shared.wait_before_us, shared.wait_us) == (600, 1_600, 500, None)
    assert found["JP", OTHER].down_us == 1_000 and found["JP", OTHER].wait_us is None


def test_answers_have_to_keep_coming_while_a_site_is_dead_and_while_it_returns() -> None:
    outage = Outage(site="OR", killed_us=1_000_000, restarted_us=2_000_000, serving_us=2_500_000, until_us=3_000_000)

    def within_rtt(silent_us: range) -> bool:
        at_us = [at for at in range(0, 3_000_000, 10_000) if at not in silent_us]
        found = gaps(MATRIX, outage, {("CA", OTHER): [Answer(at, 0) for at in at_us]}, {}, quiet_us=1_000_000)
        return next(gap.within_rtt for gap in found if (gap.site, gap.kind) == ("CA", OTHER))

    assert within_rtt(range(1_500_000, 1_600_000))
    assert within_rtt(range(500_000, 700_000)), "nobody had died"
    assert not within_rtt(range(1_500_000, 1_620_000))
    assert not within_rtt(range(2_500_000, 2_620_000))


def test_buckets_count_replies_when_they_come_and_waits_when_they_are_due() -> None:
    answers = [Answer(10 * at, 100) for at in range(-10, 40)]
    first, second, third = buckets(answers, bucket_us=200, until_us=600)
    assert first == Bucket(20, 100, 100) and second == Bucket(20, 100, 100)
    assert third == Bucket(10, None, None)
    assert next(buckets(answers[10:], bucket_us=190, until_us=190)).p50_us is None, "a median needs ten beyond it"
    (one,) = buckets(answers, bucket_us=300, until_us=300)
    assert one == Bucket(30, 100, 100)


def test_who_dies_first_is_the_leaders_nearest() -> None:
    assert who_dies(FailoverOptions(), MATRIX) == ("CA", "OR")
    assert who_dies(FailoverOptions(leader="IR"), MATRIX) == ("IR", "VA")
    assert sparks([0, 1, 4, 8]) == " ▂▅█"
