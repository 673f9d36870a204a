"""Forks of a seed are independent of each other and of the order in which they are asked for."""

from __future__ import annotations

from epaxos.testing.forks import Forks, between, chance, log_between, pick


def test_a_draw_in_one_fork_does_not_move_another() -> None:
    calm, busy = Forks(7), Forks(7)
    for _ in range(100):
        busy["disk"].random()
    assert [calm["net"].random() for _ in range(5)] == [busy["net"].random() for _ in range(5)]


def test_seeds_and_names_differ() -> None:
    draws = {Forks(seed)[name].random() for seed in (1, 2) for name in ("net", "disk")}
    assert len(draws) == 4


def test_a_fork_goes_on_where_it_was() -> None:
    forks = Forks(1)
    first = forks["net"].random()
    assert forks["net"].random() != first
    assert Forks(1)["net"].random() == first


def test_draws_stay_within_their_bounds_and_draw_once() -> None:
    rng = Forks(3)["any"]
    drawn = [between(rng, 2, 5) for _ in range(200)]
    assert set(drawn) == {2, 3, 4, 5}
    spread = [log_between(rng, 1, 1_000) for _ in range(300)]
    assert min(spread) >= 1 and max(spread) <= 1_000 and sum(value < 32 for value in spread) > 100
    assert {pick(rng, "ab") for _ in range(50)} == {"a", "b"}
    assert not any(chance(rng, 0.0) for _ in range(50)) and all(chance(rng, 1.0) for _ in range(50))
    never, always = Forks(3), Forks(3)
    chance(never["x"], 0.0)
    chance(always["x"], 1.0)
    assert never["x"].random() == always["x"].random()
