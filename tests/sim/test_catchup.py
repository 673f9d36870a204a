"""A replica comes back after it has missed hundreds of instances, in virtual time: the bench's promise, in small."""

from __future__ import annotations

import json
from functools import partial

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.catchup import CatchupOptions, CatchupResult, as_table, run_catchup
from bench.virtual import LINKS_UP_US, SECOND_US, Lab
from epaxos.commands.status import table
from topology import load


@pytest.fixture(scope="module")
def result() -> CatchupResult:
    return run_catchup(CatchupOptions(away=1_000))


def test_it_learns_what_it_missed_at_a_bounded_rate_and_the_others_do_not_notice(result: CatchupResult) -> None:
    assert result.missed >= 1_000 and result.took_us is not None
    assert result.wrong == [], as_table(result)
    assert max(each["missing"] for each in result.shown) > 200, "its status says how far it is"


def test_a_link_that_breaks_meanwhile_costs_its_clients_no_more_than_a_few_round_trips() -> None:
    """Everybody writes one key, so whoever returns answers for it only when nothing is missing. What was on its way on
    the link that broke must not be waited for as long as anything comes, which under load is for ever."""
    matrix = load("gryff5")
    lab = Lab(matrix)
    back, other = lab.nodes[matrix.index("OR")], lab.nodes[matrix.index("VA")]
    killed_us = LINKS_UP_US + SECOND_US // 2
    up_us, until_us = killed_us + 3 * SECOND_US, killed_us + 6 * SECOND_US
    for node in lab.nodes:
        key = partial(own_or_shared, node.me)
        lab.open_loop(node.me, rate_per_s=50, from_us=LINKS_UP_US, until_us=until_us, key=key)
    lab.at(killed_us, lab.cut_power, back.me)
    lab.at(up_us, lab.restart, back)
    lab.at(up_us + 200_000, lab.flap, back, other, 100_000)
    lab.run_until(until_us + SECOND_US)
    took_us = [each.took_us for each in lab.asked if each.site == back.me and each.asked_us > up_us]
    assert max(us or SECOND_US for us in took_us) < SECOND_US


@pytest.mark.parametrize("seed", [2, 5])
def test_what_a_returned_replica_is_asked_at_once_waits_for_links_and_for_no_timeout(seed: int) -> None:
    """Its own links are there before those to it, so what it sends over them is answered in vain. A link is up after
    three round trips at the latest; half a round trip later it is known to be, and then it takes one more."""
    matrix = load("gryff5")
    lab = Lab(matrix, seed=seed)
    back = lab.nodes[matrix.index("CA")]
    lab.at(LINKS_UP_US, lab.cut_power, back.me)
    up_us = LINKS_UP_US + SECOND_US
    lab.at(up_us, lab.restart, back)
    for number in range(10):
        lab.at(up_us + 1 + number * 50_000, lab.ask, back.me, b"%d" % number, b"v")
    lab.run_until(up_us + 5 * SECOND_US)
    _, second_us = sorted(2 * matrix.one_way_us("CA", site) for site in matrix.sites if site != "CA")[:2]
    took_us = [each.took_us for each in lab.asked]
    assert len(took_us) == 10 and max(us or SECOND_US for us in took_us) < second_us * 9 // 2 + 10_000


def own_or_shared(site: int, number: int) -> bytes:
    """The key of a command: every tenth of a site's writes the one that all write."""
    return b"%d" % site if number % 10 else b"shared"


def test_the_command_line_says_the_same() -> None:
    ran = CliRunner().invoke(bench, ["catchup", "--away", "300", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["missed"] >= 300 and said["took_us"] is not None and said["wrong"] == []


def test_the_status_of_a_replica_says_how_many_are_left_and_how_fast_it_goes() -> None:
    status = {
        "name": "JP",
        "protocol": "epaxos",
        "up_s": 3.0,
        "peers": {"CA": {"up": True}},
        "executed": 7,
        "behind": 2,
        "in_flight": 0,
        "commands": {"fast": 0, "slow": 0},
        "commit_us": {"count": 0},
        "execute_us": {"count": 0},
        "disk": {"syncs": 1, "sync_us_max": 900, "used_bytes": 12_340_000},
    }
    away = table([status | {"detail": {"catching_up": {"missing": 19_204, "per_s": 3_100}}}], ["JP"])
    assert "19204 (3100/s)" in away
    assert "12.3" in away
    assert "19204" in table([status | {"detail": {"catching_up": {"missing": 19_204, "per_s": 0}}}], ["JP"])
    assert "learn" in table([status | {"detail": {}}], ["JP"])
