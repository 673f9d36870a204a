"""A failing seed becomes a scenario file: taped, played by hand, reduced, written; and the file replays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from epaxos import quorums
from epaxos.cli import run
from epaxos.protocols.epaxos import state as epaxos_state
from epaxos.protocols.raft import state as raft_state
from epaxos.quorums import Quorums
from epaxos.testing import events
from epaxos.testing.invariants import ALL, Agreement, Convergence
from epaxos.testing.reading import ScenarioError
from epaxos.testing.record import Violation
from epaxos.testing.reducing import Reduction
from epaxos.testing.rehearsal import Rehearsal, Script
from epaxos.testing.retelling import retold, tape
from epaxos.testing.scenario import differences
from epaxos.testing.seeds import run_seed
from epaxos.testing.shrinking import shrink

SOUND: Sequence = [kind for kind in ALL if not kind.at_rest]


def content_with_less(n: int) -> Quorums:
    """One vote less than it takes: two decisions of one id are possible."""
    real = quorums.quorums(n)
    return real._replace(slow=real.slow - 1, fast=real.fast - 1, majority=real.majority - 1)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (epaxos_state, raft_state):
        monkeypatch.setattr(module, "quorums", content_with_less)


@pytest.mark.parametrize(("protocol", "n"), [("epaxos", 3), ("epaxos", 5), ("raft", 5)])
def test_a_tape_played_by_hand_is_the_same_run(protocol: str, n: int) -> None:
    """Message by message; what a replica sends depends on all that it has taken, and when."""
    told = 0
    for seed in range(4):
        script = tape(seed, protocol=protocol, n=n)
        rehearsal = Rehearsal(script, SOUND)
        assert rehearsal.run() is None
        assert rehearsal.happened == script.events
        told += sum(isinstance(event, events.Deliver) for event in script.events)
    assert told > 500


def test_what_cannot_happen_does_not() -> None:
    script = tape(3, protocol="epaxos", n=3)
    nobody_asks = [event for event in script.events if not isinstance(event, events.Turn)]
    rehearsal = Rehearsal(Script(script.settings, nobody_asks), SOUND)
    assert rehearsal.run() is None
    assert not any(isinstance(event, events.Deliver) for event in rehearsal.happened), "nobody has sent anything"


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("protocol", "n"), [("epaxos", 3), ("raft", 5)])
def test_a_failing_seed_becomes_a_scenario_file(
    protocol: str, n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = first_failing(protocol, n)
    argv = ["sim", "--seed", str(seed), "--protocol", protocol, "--replicas", str(n), "--shrink", "--json"]
    assert run(argv) == 1
    found = json.loads(capsys.readouterr().out)
    path = tmp_path / "found.txt"
    path.write_text(found["scenario"])
    assert not differences(path), "it replays"
    text = path.read_text()
    assert f"# Found by: epaxos sim --seed {seed} --protocol {protocol}" in text
    seen = "WRONG: " in text.split("agreement\n----\n")[1]
    assert seen or protocol == "raft", "with Raft it is seen inside, before it shows"
    assert len(text.split("\n\n")) < 60, "a person reads it"


@pytest.mark.usefixtures("broken")
def test_people_get_the_file_below_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--seed", str(first_failing("epaxos", 3)), "--replicas", "3", "--shrink"]) == 1
    printed = capsys.readouterr().out
    assert "as a scenario file" in printed and "\ncluster 3" in printed and "\nagreement\n----\n" in printed


def test_a_world_that_does_not_come_to_rest_has_no_scenario(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deaf(self: Convergence, final: object) -> None:
        raise self.no("nobody moves")

    monkeypatch.setattr(Convergence, "finished", deaf)
    with pytest.raises(ScenarioError, match="convergence is broken by what never happened"):
        retold(shrink(1, n=3))
    assert run(["sim", "--seed", "1", "--replicas", "3", "--shrink"]) == 1
    said = capsys.readouterr()
    assert "there is no scenario file of it: convergence" in said.out + said.err


def test_what_the_events_do_not_break_has_no_scenario() -> None:
    script = tape(3, protocol="epaxos", n=3)
    assert not Reduction(script, Violation(Agreement.name, "somebody dreamt it")).run()


def first_failing(protocol: str, n: int) -> int:
    return next(seed for seed in range(60) if is_reducible(run_seed(seed, protocol=protocol, n=n).violations))


def is_reducible(violations: tuple[str, ...]) -> bool:
    return bool(violations) and violations[0].partition(":")[0] in {kind.name for kind in SOUND}
