"""Seeds of EPaxos: a few in every change's checks, more with the slow tests; and what running seeds tells."""

from __future__ import annotations

import json

import pytest

from epaxos.cli import run
from epaxos.protocols.registry import VIEWS
from epaxos.testing import faults
from epaxos.testing.faults import KINDS, KINDS_MIN, draw
from epaxos.testing.forks import Forks
from epaxos.testing.seeds import MIX, SeedResult, Setting, run_seed, run_seeds, setting
from epaxos.testing.shrinking import shrink
from epaxos.testing.summary import Summary
from epaxos.testing.workload import COMMANDS_MIN
from tests.sim.sequencer import Sequencer
from tests.sim.test_sequencer import Askew, factory


def summed(results: list[SeedResult]) -> Summary:
    summary = Summary()
    for result in results:
        summary.add(result)
    return summary


@pytest.mark.parametrize(
    ("n", "seeds"), [(5, range(20)), (3, range(100, 110)), (7, range(200, 205)), (1, range(300, 303))]
)
def test_nothing_goes_wrong(n: int, seeds: range) -> None:
    summary = summed(list(run_seeds(seeds, protocol="epaxos", n=n)))
    assert summary.violations == []
    assert summary.counted == summary.seeds == len(seeds)
    assert summary.undecided == 0
    if n > 1:
        assert summary.recoveries >= summary.seeds, "less than one recovery a seed proves little"


def is_rare(cell: str) -> bool:
    """May sixty seeds miss it? `make sim` reports what thousands missed."""
    phase, message = cell.split()
    short_lived = phase.endswith("candidate") and message not in ("RequestVote", "Vote")
    seldom = message in ("Validate", "ValidateOK", "Waiting", "TimeoutNow", "ReadIndexOK")
    return short_lived or seldom or cell in ("leader AppendEntries", "unknown AcceptOK")


@pytest.mark.slow
def test_sixty_seeds_of_the_mix_reach_every_fault_and_nearly_every_transition() -> None:
    summary = summed(list(run_seeds(range(1_000, 1_060))))
    assert summary.violations == []
    assert set(summary.struck) == {kind for kind in KINDS if kind in faults.STRIKING}
    assert [cell for cells in summary.never_visited().values() for cell in cells if not is_rare(cell)] == []
    assert summary.settings.keys() == {f"{protocol} n={n}" for protocol, n in MIX}
    assert 0 < summary.nops < summary.instances and summary.steps > summary.turns


def test_the_number_of_a_seed_says_what_it_runs() -> None:
    assert {setting(seed) for seed in range(len(MIX))} == set(MIX)
    assert setting(3) == setting(3 + len(MIX)) == Setting("epaxos", 5)
    assert setting(3, protocol="raft") == Setting("raft", 5) and setting(3, n=7) == Setting("epaxos", 7)


def test_every_cell_that_was_visited_is_one_that_is_expected() -> None:
    for protocol in VIEWS:
        result = run_seed(11, protocol=protocol)
        assert result.cells.keys() <= VIEWS[protocol].cells
        assert 100 < sum(result.cells.values()) <= result.messages


def test_a_seed_is_worth_counting() -> None:
    result = run_seed(3)
    assert result.counts and result.commands >= COMMANDS_MIN and len(result.faults) >= KINDS_MIN
    assert sum(result.outcomes.values()) >= result.commands and result.outcomes["open"] == 0
    assert result.lives >= 5 and result.steps > 300 and result.messages > 300 and result.sim_us > 200_000


@pytest.mark.parametrize("seed", [6835, 7882])
def test_everything_is_read_when_everybody_is_back(seed: int) -> None:
    """After a siege a replica may die once more when all else is over: what it was asked then held up its next life."""
    assert run_seed(seed, protocol=setting(seed).protocol, n=setting(seed).n).violations == ()


def test_swarms_differ_and_reach_every_kind() -> None:
    swarms = [draw(Forks(seed), 5) for seed in range(300)]
    assert {kind for swarm in swarms for kind in swarm.kinds} == set(KINDS)
    assert {len(swarm.kinds) for swarm in swarms} == set(range(KINDS_MIN, len(KINDS) + 1))
    assert {swarm.limits.window for swarm in swarms} >= {1, 1024}
    assert all(list(swarm.strikes) == sorted(swarm.strikes) for swarm in swarms)


@pytest.mark.parametrize("seed", range(5))
def test_leaving_out_a_kind_leaves_the_others_as_they_were(seed: int) -> None:
    whole = draw(Forks(seed), 5)
    for kind in whole.kinds:
        less = draw(Forks(seed), 5, frozenset({kind}))
        assert less.kinds == tuple(other for other in whole.kinds if other != kind)
        assert less.strikes == tuple(strike for strike in whole.strikes if strike.kind != kind)
        assert (less.fault_us, less.limits, less.retry_us) == (whole.fault_us, whole.limits, whole.retry_us)


def test_a_failing_seed_shrinks_to_the_faults_and_commands_that_matter() -> None:
    whole = run_seed(0, protocol=factory(Askew))
    small = shrink(0, protocol=factory(Askew))
    assert set(small.without) == set(whole.faults), "it is wrong without any fault"
    assert small.result.violations and small.result.commands == small.commands < whole.commands
    again = run_seed(0, protocol=factory(Askew), without=small.without, commands=small.commands)
    assert again.trace_hash == small.result.trace_hash
    assert f"--commands {small.commands}" in small.replay and f"--without {small.without[0]}" in small.replay
    with pytest.raises(ValueError, match="does not fail"):
        shrink(0, protocol=factory(Sequencer))


def test_a_seed_runs_with_less_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    whole, less = run_seed(7), run_seed(7, commands=10)
    assert less.commands == 10 and less.faults == whole.faults
    kind = whole.faults[0]
    assert run(["sim", "--seed", "7", "--commands", "10", "--without", kind]) == 0
    printed = capsys.readouterr().out
    assert "10 commands" in printed and kind not in printed.splitlines()[0]
    assert run(["sim", "--seed", "7", "--without", "gremlins"]) == 2
    assert "no kind of fault gremlins; there are" in capsys.readouterr().err


def test_jobs_change_the_order_of_results_only() -> None:
    alone = {result.seed: result.trace_hash for result in run_seeds(range(4))}
    assert {result.seed: result.trace_hash for result in run_seeds(range(4), jobs=2)} == alone


def test_the_summary_says_what_was_run() -> None:
    text = str(summed([run_seed(0), run_seed(0, protocol=factory(Askew))]))
    assert text.startswith("2 seeds (build n=5 1, epaxos n=5 1), ") and "1 violations" in text
    assert "simulated hours" in text and "% of them Nop" in text and "(phase, message) visited; never: " in text


def test_the_command_sums_up_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--seeds", "7..8"]) == 0
    assert capsys.readouterr().out.startswith("2 seeds")
    assert run(["sim", "--seed", "7", "--trace"]) == 0
    printed = capsys.readouterr().out
    assert run_seed(7).trace_hash in printed and "no violation" in printed and " takes " in printed


def test_a_program_can_read_the_summary_and_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--seeds", "17..17", "--json"]) == 0
    many = json.loads(capsys.readouterr().out)
    assert many["settings"] == {"raft n=5": 1} and many["struck"] and many["violations"] == []
    assert many["cells"]["raft"]["follower AppendEntries"] > 0 and many["never_visited"]["raft"]
    assert run(["sim", "--seed", "17", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["cells"] == many["cells"]["raft"] and (one["protocol"], one["n"]) == ("raft", 5)
