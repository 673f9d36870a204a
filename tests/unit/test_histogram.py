"""The histogram: every value within 1 %, exact sums, and parts that add up to the whole."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from epaxos.observe.histogram import MAX_VALUE, Histogram

values = st.integers(0, 1 << 20) | st.integers(0, MAX_VALUE)


@given(value=values)
def test_any_value_comes_back_within_one_percent(value: int) -> None:
    histogram = Histogram([0, value, MAX_VALUE])
    assert abs(histogram.percentile(50) - value) <= value / 100


@given(many=st.lists(values, min_size=1, max_size=200), percent=st.floats(0, 100))
def test_a_percentile_is_the_value_of_that_rank(many: list[int], percent: float) -> None:
    exact = sorted(many)[max(math.ceil(len(many) * percent / 100), 1) - 1]
    assert abs(Histogram(many).percentile(percent) - exact) <= exact / 100


@given(many=st.lists(values, max_size=100))
def test_count_sum_and_extremes_are_exact(many: list[int]) -> None:
    histogram = Histogram(many)
    assert (histogram.count, histogram.total) == (len(many), sum(many))
    assert (histogram.low, histogram.high) == ((min(many), max(many)) if many else (0, 0))
    if many:
        assert histogram.percentile(100) <= histogram.high
        assert histogram.percentile(0) >= histogram.low


def test_several_at_once_count_as_often() -> None:
    histogram = Histogram()
    histogram.record(10, 98)
    histogram.record(5_000, 2)
    histogram.record(7, 0)
    assert histogram.count == 100
    assert histogram.percentiles((50, 98, 99)) == [10, 10, histogram.percentile(100)]


def test_values_below_128_are_exact_and_absurd_ones_are_bounded() -> None:
    histogram = Histogram(range(128))
    assert [histogram.percentile((value + 0.5) * 100 / 128) for value in range(128)] == list(range(128))
    assert Histogram([-5]).percentile(50) == 0
    assert Histogram([1 << 70]).percentile(50) == MAX_VALUE


def test_an_empty_histogram_answers_zero_and_reset_empties() -> None:
    histogram = Histogram([3, 4])
    histogram.reset()
    assert (histogram.count, histogram.total, histogram.low, histogram.high) == (0, 0, 0, 0)
    assert histogram.percentiles((0, 50, 100)) == [0, 0, 0]


@given(many=st.lists(st.integers(0, 1 << 22), max_size=100), bound=st.integers(-1, 1 << 22))
def test_at_most_counts_up_to_the_bound_and_its_bucket(many: list[int], bound: int) -> None:
    counted = Histogram(many).at_most(bound)
    assert sum(value <= bound for value in many) <= counted <= sum(value <= bound * 1.016 for value in many)


@pytest.mark.parametrize("percent", [-0.1, 100.1])
def test_only_percentages_are_percentages(percent: float) -> None:
    with pytest.raises(ValueError, match="is not a percentage"):
        Histogram([1]).percentile(percent)
