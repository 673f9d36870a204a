"""How much a cluster takes before commands queue: what `before_they_queue` makes of ever more clients."""

from __future__ import annotations

from array import array

import pytest

from bench.closed_loop import Closed
from bench.outage import LANES, before_they_queue

pytestmark = pytest.mark.trio


def machine(most_per_s: float, idle_us: int):
    """A cluster that answers so many commands a second at most; below that each takes as long as when it is idle."""
    asked: list[int] = []

    async def run(clients: int) -> Closed:
        asked.append(clients)
        took_us = max(idle_us, round(clients / most_per_s * 1e6))
        return Closed(seconds=1.0, took_us=array("q", [took_us] * round(clients / took_us * 1e6)))

    return run, asked


async def test_clients_are_doubled_until_a_command_takes_them_half_as_long_again() -> None:
    run, asked = machine(most_per_s=200, idle_us=100_000)
    assert (await before_they_queue(run)).per_s == 200  # 24 clients wait 120 ms, 48 would wait 240
    assert asked == [3, 6, 12, 24, 48]


async def test_a_machine_that_is_never_full_ends_with_as_many_as_the_load_has_connections() -> None:
    run, asked = machine(most_per_s=1e9, idle_us=100_000)
    assert (await before_they_queue(run)).per_s == 1_920
    assert asked[-1] == LANES


async def test_who_is_full_from_the_first_keeps_what_it_gives() -> None:
    run, asked = machine(most_per_s=20, idle_us=100_000)
    assert (await before_they_queue(run)).per_s == 20
    assert asked == [3, 6]
