"""The model: small scopes to the end, a few walks, and what comes out when the protocol is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from epaxos.cli import run
from epaxos.messages import PreAccept
from epaxos.protocols.epaxos import verdict
from epaxos.testing.model import explore
from epaxos.testing.model.explore import Explorer
from epaxos.testing.model.scope import SCOPES
from epaxos.testing.model.site import Crash, Deliver, Recover, Said, Site, Submit, Sync
from epaxos.testing.model.walks import Walker, walk_many
from epaxos.testing.scenario import differences


def test_a_small_scope_is_visited_to_the_end_and_always_alike() -> None:
    first, second = (Explorer(SCOPES["commit"]).run() for _ in range(2))
    assert first.violation is None and first.complete
    assert first.states > 5_000 and first.real_steps < first.states
    assert (first.states, first.depth, first.real_steps) == (second.states, second.depth, second.real_steps)


@pytest.mark.parametrize("name", [name for name in SCOPES if name != "commit"])
def test_every_scope_begins_well(name: str) -> None:
    found = Explorer(replace(SCOPES[name], depth=6)).run()
    assert found.violation is None and not found.complete and found.depth == 6


def test_a_bound_of_states_is_kept() -> None:
    found = Explorer(SCOPES["deep"], states_max=100).run()
    assert not found.complete and found.violation is None and found.bound == "states" and found.states < 100_000


def test_a_scope_with_more_histories_than_a_world_has_room_for_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explore, "HISTORIES_MAX", 50)
    assert run(["model", "--scope", "commit"]) == 0
    assert "bounded by histories" in capsys.readouterr().out


@pytest.mark.parametrize(("n", "walks"), [(3, 60), (5, 60), (7, 30)])
def test_a_few_walks_hold(n: int, walks: int) -> None:
    found = Walker(n, seed=1).run(0, walks)
    assert found.violation is None and found.walks == walks
    assert found.recoveries > walks // 2 and found.restarts > 0
    assert found.decided["value"] > 0 and found.decided["nop"] > 0


def test_a_walk_is_a_function_of_its_number() -> None:
    whole = Walker(5, seed=3).run(0, 20)
    parts = [Walker(5, seed=3).run(first, 10) for first in (10, 0)]
    assert whole.moves == sum(part.moves for part in parts) and whole.decided == parts[0].decided + parts[1].decided


def test_jobs_take_the_same_walks() -> None:
    alone, shared = (list(walk_many(3, 2, 0, 20, jobs)) for jobs in (1, 2))
    assert [one.moves for one in alone] == [one.moves for one in shared]


def test_a_recovery_that_is_wrong_is_found_and_told_as_a_scenario(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdict, "candidate", lambda state, replies: None)
    assert run(["model", "--scope", "one", "--out", str(tmp_path)]) == 1
    assert "VIOLATED" in capsys.readouterr().out
    text = (tmp_path / "one.txt").read_text()
    assert "# I8: 0.1 is decided fast" in text and "submit A x" in text and "recover " in text
    assert list(differences(tmp_path / "one.txt")) == [], "the file tells what happens when it is played"


def test_a_walk_that_goes_wrong_can_be_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdict, "candidate", lambda state, replies: None)
    assert run(["model", "--walks", "400", "--replicas", "3", "--out", str(tmp_path)]) == 1
    (path,) = tmp_path.iterdir()
    number = path.stem.rpartition("-")[2]
    capsys.readouterr()
    assert run(["model", "--walks", "1", "--replicas", "3", "--first", number, "--out", str(tmp_path)]) == 1
    assert "1 walks of 3 replicas" in capsys.readouterr().out


def test_scopes_are_listed_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and scope.story in listed for name, scope in SCOPES.items())
    assert run(["model", "--scope", "no-such-scope"]) == 2
    assert "known: commit" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- one site


def site(me: int, *, slow_disk: bool = False) -> Site:
    return Site(me, 3, slow_disk=slow_disk, mortal=True, asked=True)


def kinds(said: list[Said]) -> list[str]:
    return [type(what).__name__ for _, what in said]


def test_a_copy_goes_its_own_way() -> None:
    a = site(0)
    (preaccept, _) = [what for _, what in a.take(Submit(SCOPES["commit"].batches[0])) if isinstance(what, PreAccept)]
    b = site(1)
    b.take(Deliver(0, preaccept))
    b.take(Recover(preaccept.id))
    twin, before = b.copy(), b.digest()
    assert twin.digest() == before
    twin.take(Crash(0))
    assert b.digest() == before != twin.digest()


def test_nothing_leaves_before_a_slow_disk_has_it() -> None:
    a = site(0, slow_disk=True)
    assert a.take(Submit(SCOPES["commit"].batches[0])) == []
    assert kinds(a.take(Sync())) == ["PreAccept", "PreAccept"]
    forgetful = site(0, slow_disk=True)
    forgetful.take(Submit(SCOPES["commit"].batches[0]))
    forgetful.take(Crash(0))
    assert forgetful.digest() == site(0, slow_disk=True).digest()
