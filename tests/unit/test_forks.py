"""Named forks: one seed, many independent sources of chance."""

from __future__ import annotations

from collections import Counter

import pytest

from epaxos.testing.forks import Forks, between, chance, log_between, pick


def draws(forks: Forks, name: str, count: int = 20) -> list[float]:
    return [forks[name].random() for _ in range(count)]


def test_a_seed_gives_the_same_forks_again() -> None:
    assert draws(Forks(7), "net") == draws(Forks(7), "net")


def test_the_first_draws_are_pinned_so_that_reported_seeds_stay_what_they_are() -> None:
    assert [Forks(1)["net"].randrange(0, 10**6), Forks(1)["core.0"].randrange(0, 10**6)] == [889113, 790956]


@pytest.mark.parametrize("other", ["disk", "core.0", "core.1", "workload"])
def test_names_and_seeds_give_different_forks(other: str) -> None:
    assert draws(Forks(7), "net") != draws(Forks(7), other)
    assert draws(Forks(7), other) != draws(Forks(8), other)


def test_drawing_from_one_fork_moves_no_other() -> None:
    busy, idle = Forks(7), Forks(7)
    draws(busy, "disk", 1000)
    assert draws(busy, "net") == draws(idle, "net")


def test_asking_twice_goes_on_where_the_fork_stood() -> None:
    forks = Forks(7)
    assert draws(forks, "net", 10) + draws(forks, "net", 10) == draws(Forks(7), "net", 20)


def test_every_helper_draws_exactly_once() -> None:
    once = Forks(7)["x"]
    once.random()
    after = once.random()
    for helper in (
        lambda rng: chance(rng, 0.0),
        lambda rng: chance(rng, 1.0),
        lambda rng: pick(rng, "abc"),
        lambda rng: between(rng, 3, 3),
        lambda rng: log_between(rng, 1, 1),
    ):
        rng = Forks(7)["x"]
        helper(rng)
        assert rng.random() == after


def test_what_helpers_draw_is_in_bounds_and_reaches_them() -> None:
    rng = Forks(7)["x"]
    assert Counter(between(rng, 2, 4) for _ in range(300)).keys() == {2, 3, 4}
    assert {pick(rng, "ab") for _ in range(100)} == {"a", "b"}
    logs = [log_between(rng, 10, 10_000) for _ in range(2000)]
    assert min(logs) >= 10 and max(logs) <= 10_000
    assert 500 < sum(value < 100 for value in logs) < 850  # one order of magnitude of three
    assert not any(chance(rng, 0.0) for _ in range(100)) and all(chance(rng, 1.0) for _ in range(100))
