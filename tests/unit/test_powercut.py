"""What a power cut may leave behind, and what not: the judgement of the bench, and what it says when it cannot run."""

from __future__ import annotations

import pytest
import trio
from click.testing import CliRunner

from bench import powercut
from bench.__main__ import bench
from bench.powercut import Outcome, PowercutOptions, PowercutResult
from bench.powercut_guest import SHARED, SITES, keys
from epaxos.errors import ConfigError


def everywhere(**values: int) -> dict[str, dict[str, int]]:
    return {key: dict.fromkeys(SITES, value) for key, value in values.items()}


def test_what_was_acknowledged_or_may_have_been_applied_is_there() -> None:
    outcome = Outcome()
    outcome.judge(everywhere(k=0))
    outcome.ack("k", 1)
    outcome.ack("k", 2)
    outcome.judge(everywhere(k=2))
    outcome.judge(everywhere(k=3))
    assert outcome.lost == [] and outcome.acknowledged["k"] == 2


def test_an_acknowledged_increment_that_is_gone_is_lost() -> None:
    outcome = Outcome()
    outcome.ack("k", 2)
    outcome.judge(everywhere(k=1))
    assert outcome.lost == ["cut 0: k is 1, and 2 was acknowledged"]


def test_what_was_read_after_one_cut_must_survive_the_next() -> None:
    outcome = Outcome()
    outcome.judge(everywhere(k=5))
    outcome.judge(everywhere(k=4))
    assert len(outcome.lost) == 1


def test_replicas_that_differ_or_say_nothing_have_lost_something() -> None:
    outcome = Outcome()
    outcome.judge({"k": dict.fromkeys(SITES, 1) | {"C": 2}})
    outcome.judge({"k": {"A": 2}})
    assert len(outcome.lost) == 2


def test_a_number_given_twice_to_the_key_that_all_share_is_a_lost_increment() -> None:
    outcome = Outcome()
    for number in (1, 2, 2):
        outcome.ack(SHARED, number)
    assert outcome.lost == ["cut 0: shared was 2 before"]


def test_a_control_that_loses_nothing_proves_nothing() -> None:
    blind = PowercutResult(options=PowercutOptions(), synced=Outcome(cuts=1), control=Outcome(cuts=1))
    assert len(blind.wrong) == 1 and "NO" in powercut.as_table(blind)
    seeing = PowercutResult(options=PowercutOptions(), synced=Outcome(cuts=1), control=Outcome(cuts=1, lost=["k"]))
    assert seeing.wrong == [] and powercut.as_table(seeing).endswith("yes")
    assert powercut.to_json(seeing)["control"]["lost"] == ["k"]


def test_every_site_has_clients_of_its_own_key_and_of_the_shared_one() -> None:
    assert set(keys()) == set(SITES)
    assert all(SHARED in of_site and len(of_site) == len(set(of_site)) >= 2 for of_site in keys().values())


def test_without_its_programs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="user-mode-linux"):
        trio.run(powercut.run_powercut, PowercutOptions())
    ran = CliRunner().invoke(bench, ["powercut", "--help"])
    assert "python -m bench powercut --cuts 20" in ran.output
