"""The planner against the closed forms, and against placements tried one by one."""

from __future__ import annotations

import itertools
import json

import pytest
from click.testing import CliRunner

from epaxos.cli import cli
from epaxos.errors import ConfigError
from topology import bounds, load
from topology.planner import advice, plan

GRYFF = load("gryff5")


def test_with_a_replica_at_every_site_it_is_the_closed_form() -> None:
    epaxos, raft = plan(GRYFF, dict.fromkeys(GRYFF.sites, 1.0), sizes=[5])
    assert epaxos.clients_us == {site: bounds.epaxos_fast_us(GRYFF, site) for site in GRYFF.sites}
    assert (raft.leader, raft.mean_us) == (bounds.best_leader(GRYFF).site, bounds.best_leader(GRYFF).mean_us)
    assert raft.clients_us == {site: bounds.raft_us(GRYFF, site, "CA") for site in GRYFF.sites}


def test_the_best_placement_is_the_best_of_all() -> None:
    weights = {"CA": 2.0, "JP": 1.0}
    (epaxos,) = [choice for choice in plan(GRYFF, weights, sizes=[3]) if choice.protocol == "epaxos"]
    means = []
    for replicas in itertools.combinations(GRYFF.sites, 3):
        placed = GRYFF.only(replicas)
        seen = {
            site: min((GRYFF.between_us(site, r), bounds.epaxos_fast_us(placed, r)) for r in replicas)
            for site in weights
        }
        means.append((2 * sum(seen["CA"]) + sum(seen["JP"])) / 3)
    assert epaxos.mean_us == min(means)


def test_conflicts_cost_a_slow_round_and_raft_nothing() -> None:
    calm, rough = (plan(GRYFF, dict.fromkeys(GRYFF.sites, 1.0), sizes=[5], conflict=share) for share in (0.0, 0.5))
    of = {(choice.protocol, share): choice for share, all_ in (("calm", calm), ("rough", rough)) for choice in all_}
    assert of["raft", "calm"] == of["raft", "rough"]
    for site in GRYFF.sites:
        fast, slow = bounds.epaxos_fast_us(GRYFF, site), bounds.epaxos_slow_us(GRYFF, site)
        assert of["epaxos", "rough"].clients_us[site] == fast + 0.5 * (slow - fast)


def test_it_says_raft_where_raft_wins() -> None:
    matrix = load("gcp13")
    choices = plan(matrix, dict.fromkeys(matrix.sites, 1.0), sizes=[13])
    assert (choices[0].protocol, choices[0].leader) == ("raft", "IA")
    assert advice(choices).startswith("Take raft led from IA")


def test_many_sites_are_planned_by_growing() -> None:
    matrix = load("gcp13")
    for choice in plan(matrix, {"JP": 1.0, "DE": 1.0}, sizes=[3, 5]):
        assert set(choice.replicas) <= set(matrix.sites) and choice.mean_us > 0


@pytest.mark.parametrize(
    ("weights", "sizes", "conflict", "why"),
    [
        ({"XX": 1.0}, [3], 0.0, "no site 'XX'"),
        ({}, [3], 0.0, "no clients"),
        ({"CA": 0.0}, [3], 0.0, "no clients"),
        ({"CA": 1.0}, [6], 0.0, "1 to 5 can be placed"),
        ({"CA": 1.0}, [3], 2.0, "between 0 and 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    weights: dict[str, float], sizes: list[int], conflict: float, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        plan(GRYFF, weights, sizes=sizes, conflict=conflict)


def test_the_command_prints_a_table_and_advice() -> None:
    shown = CliRunner().invoke(cli, ["plan", "gryff5", "--clients", "CA=3,JP", "--replicas", "3,5"])
    assert shown.exit_code == 0, shown.output
    assert "may be" in shown.output and "Take epaxos at" in shown.output
    value = json.loads(CliRunner().invoke(cli, ["plan", "gryff5", "--json"]).output)
    assert [len(choice["replicas"]) for choice in value["choices"]].count(5) == 2
    assert CliRunner().invoke(cli, ["plan", "gryff5", "--clients", "CA=x"]).exit_code != 0
