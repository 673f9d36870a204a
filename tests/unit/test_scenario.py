"""The runner of scenario files: what it tells, and what it says about files that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from epaxos.cli import run
from epaxos.command import NOP, Batch
from epaxos.ids import BatchNumber, InstanceId
from epaxos.messages import Commit, PreAccept, PreAcceptOK
from epaxos.packing import encode_run
from epaxos.protocols.interface import Receive
from epaxos.testing import agreement, events
from epaxos.testing.byhand import SECRET, append, set_
from epaxos.testing.narrator import Narrator
from epaxos.testing.reading import ScenarioError
from epaxos.testing.scenario import differences, rewritten
from epaxos.testing.writing import write_scenario

X, Y = InstanceId(0, 1, 0), InstanceId(0, 1, 1)
NONE = (0, 0, 0)


def told(*blocks: str) -> list[str]:
    """What the last block of a file tells."""
    return rewritten("\n\n".join(blocks)).rstrip("\n").split("----\n")[-1].split("\n")


def test_an_event_is_told_with_the_state_before_and_after_and_the_messages() -> None:
    assert told("cluster 3", "submit A x SET k 1", "deliver A->B PreAccept") == [
        "B  x was nothing",
        "B  x now PRE bal=0 abal=0 dep={} init_dep={}",
        "B -> A  PreAcceptOK x dep={}",
    ]


def test_executions_and_answers_are_told() -> None:
    lines = told("cluster 3", "submit A x APPEND k 1", "deliver A->B PreAccept", "deliver B->A")
    assert lines == [
        "A  x was PRE bal=0 abal=0 dep={} init_dep={} lead0",
        "A  x now COM dep={} init_dep={}",
        "A  notes fast_commit x",
        "A  executes x: APPEND k 1",
        "A  answers x: 1",
        "A -> B  Commit x dep={}",
        "A -> C  Commit x APPEND k 1 dep={}",
    ]


def test_a_held_disk_holds_back_what_it_must() -> None:
    setup = ("cluster 3", "hold-disk A", "submit A x SET k 1")
    assert told(*setup) == ["A  x was nothing", "A  x now PRE bal=0 abal=0 dep={} init_dep={} lead0"]
    assert told(*setup, "disk A") == ["A  nothing", "A  has 1 unsynced writes"]
    assert told(*setup, "sync A") == ["A -> B C  PreAccept x SET k 1 init_dep={}"]
    assert told(*setup, "crash A") == [
        "A  is down; of 1 unsynced writes, 0 had reached the disk",
        "A  x was PRE bal=0 abal=0 dep={} init_dep={} lead0",
        "A  x now nothing",
    ]
    assert "A -> B C  Recover x ballot=1" in told(*setup, "crash A keep=1\nrestart A\nsync A")
    assert told(*setup, "release-disk A", "disk A") == ["A  x: PRE bal=0 abal=0 dep={} init_dep={}"]


def test_lost_and_repeated_messages() -> None:
    setup = ("cluster 3", "submit A x SET k 1", "dup A->B PreAccept", "drop A->C")
    assert told(*setup) == ["lost: A -> C  PreAccept x SET k 1 init_dep={}"]
    assert told(*setup, "deliver A->B once\nflights") == [
        "B  x was nothing",
        "B  x now PRE bal=0 abal=0 dep={} init_dep={}",
        "B -> A  PreAcceptOK x dep={}",
        "A -> B  PreAccept x SET k 1 init_dep={}",
        "B -> A  PreAcceptOK x dep={}",
    ]
    assert told(*setup, "drop *->* Commit") == ["ok"]


def test_clocks_timers_and_links() -> None:
    assert told("cluster 3", "timers A") == ["A  tick in 800 ms"]
    assert told("cluster 3", "wait 30ms", "timers A") == ["A  tick in 770 ms"]
    assert told("cluster 3", "wake A tick", "timers A\ntimers B") == ["A  tick in 800 ms", "B  tick in 800 ms"]
    assert told("cluster 3", "link-down B->A", "state") == ["A  nothing", "B  suspects: A", "C  nothing"]
    assert told("cluster 3", "link-down B->A", "link-up B->A", "state suspects") == [f"{i}  nothing" for i in "ABC"]
    assert "tick" in told("cluster 3", "rtt A->B 300ms", "wake A tick", "timers A")[0]


def test_ids_without_a_command_of_their_own_can_be_named() -> None:
    lines = told("cluster 3", "recover B A.1 quorum=C", "name A.1 gap\nstate gap")
    assert lines[0] == "gap is A.1" and lines[2].startswith("B  gap: ACC NOP bal=2")


def test_late_answers_are_under_way_and_the_others_lost() -> None:
    setup = ("cluster 5", "recover B A.1 quorum=C,D late=E", "flights")
    assert [line for line in told(*setup) if "Recover " in line] == ["B -> E  Recover A.1 ballot=2"]


def test_the_views_of_the_end() -> None:
    lines = told("cluster 3", "submit A x APPEND k x", "settle", "history\nlog A\nagreement")
    assert lines == [
        "x at A: APPEND k x: 1",
        "A  1. x: APPEND k x",
        "x is APPEND k x dep={} at A B C",
        "order x at A B C",
        "state k=x at A B C",
        "agreed",
    ]


def two_commands() -> Narrator:
    """x and y of A and B, in this order everywhere."""
    told = Narrator(3)
    for site, name in ((0, "x"), (1, "y")):
        run = encode_run(SECRET, [append("k", name)])
        told.event(lambda site=site, name=name, run=run: told.submit(site, name, run, stream=1))
        told.cluster.settle()
    assert agreement.report(told)[-1] == "agreed"
    return told


def test_two_decisions_of_one_id_are_wrong() -> None:
    told = two_commands()
    told.cluster.decided[X][NOP, NONE] = {2}
    report = agreement.report(told)
    assert report[-1] == "WRONG: x was decided in 2 ways"
    assert "x is NOP dep={} at C" in report


def test_conflicting_commands_of_which_neither_depends_on_the_other_are_wrong() -> None:
    told = two_commands()
    ((payload, _),) = told.cluster.decided[Y]
    told.cluster.decided[Y] = {(payload, NONE): {0, 1, 2}}
    assert agreement.report(told)[-1] == "WRONG: x and y conflict, and neither depends on the other"


def test_conflicting_commands_in_two_orders_are_wrong() -> None:
    told = two_commands()
    told.cluster.sites[2].groups.reverse()
    report = agreement.report(told)
    assert report[-1] == "WRONG: x and y ran in both orders"
    assert "order x y at A B" in report and "order y x at C" in report


def test_a_replica_that_finds_something_wrong_stops_and_says_so() -> None:
    told = two_commands()
    wrong = Commit(id=X, payload=NOP, dep=NONE)
    (line,) = told.event(lambda: told.cluster.turn(2, Receive(peer=0, message=wrong)), brief=True)
    assert line.startswith("C  stops: AssertionError: agreement violated at 0.1")
    assert not told.cluster.sites[2].up


def test_sessions_are_told() -> None:
    setup = ("cluster 3", "open A s", "heal 1s", "submit B x session=s number=2 floor=0 INCR k", "settle")
    again = told(*setup, "submit C y session=s number=2 floor=0 INCR k\nsettle\nhistory")
    assert again[-3:] == [
        "s at A: OPEN 0.1.1: done",
        "x at B: INCRBY k 1 session=0.1.1 number=2 floor=0: 1",
        "y at C: INCRBY k 1 session=0.1.1 number=2 floor=0: 1",
    ]
    ended = told(*setup, "end B e s\nsettle\nsubmit A y session=s number=3 INCR k\nsettle\nhistory")
    assert ended[-2:] == [
        "e at B: BARRIER 0.1.1: done",
        "y at A: INCRBY k 1 session=0.1.1 number=3 floor=2: session_closed: session 0.1.1 is closed, or never was",
    ]


def test_raft_is_told_in_its_own_words() -> None:
    lines = told("cluster 3 protocol=raft", "wake A election", "settle", "submit A x SET k 1", "settle\nagreement")
    assert lines[-4:] == ["2 is SET k 1 at A B C", "order 1 2 at A B C", "state k=1 at A B C", "agreed"]
    assert told("cluster 3 protocol=raft", "wake A election", "settle", "state term") == [
        "A  term: 1 vote=A leader",
        "B  term: 1 vote=A follower of A",
        "C  term: 1 vote=A follower of A",
    ]


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ("submit A x SET k 1", "line 1: the first command makes the cluster: cluster N"),
        ("cluster 99", "1 to 13 replicas"),
        ("cluster 3 colour=red", "cluster N"),
        ("cluster 3 protocol=paxos", "there are epaxos, raft"),
        ("cluster 3 window=0", "window=0 is not from 1 to"),
        ("cluster 3\nfrobnicate", "line 2: 'frobnicate' is no command; there are submit, open"),
        ("cluster 3\nsubmit D x SET k 1", "'D' is no replica; there are A, B, C"),
        ("cluster 3\nsubmit A", "a name is missing (submit SITE NAME"),
        ("cluster 3\nsubmit A X SET k 1", "'X' is no name"),
        ("cluster 3\nsubmit A x SET k 1\nsubmit A x SET k 2", "line 3: the name x is taken"),
        ("cluster 3\nsubmit A x", "a command is missing"),
        ("cluster 3\nsubmit A x PING", "nothing is replicated"),
        ("cluster 3\nsubmit A x SET k", "wrong number of arguments"),
        ("cluster 3\nsubmit A x timeout=5 SET k 1", "'5' is no duration"),
        ("cluster 3\nsubmit A x session=s SET k 1", "'s' is no session; there are: none"),
        ("cluster 3\nopen A s\nsubmit A x session=s number=0 SET k 1", "number=0 is not from 1 to"),
        ("cluster 3\nopen A s\nsubmit A x session=s number=2 floor=2 SET k 1", "floor=2 is not from 0 to 1"),
        ("cluster 3\nopen A s\nsubmit A x session=s number=9999 floor=1 SET k 1", "is not within 1024 above the floor"),
        ("cluster 3\nopen A s\nsubmit A x session=s GET k", "has a place in FIFO sessions only"),
        ("cluster 3\nopen A s\nend A e t", "'t' is no session; there are: s"),
        ("cluster 3\nsubmit A,B x SET k 1", "one replica is meant here"),
        ("cluster 3\nsubmit A 'x", "line 2: No closing quotation"),
        ("cluster 3\ndeliver A PreAccept", "'A' is no link; write A->B"),
        ("cluster 3\ndeliver A->B Preaccept", "'Preaccept' is no message; there are PreAccept"),
        ("cluster 3\ndeliver A->B PreAccept", "no such message is under way; there are: none"),
        ("cluster 3\nsettle now", "'now' is too much (settle)"),
        ("cluster 3\nwait soon", "'soon' is no duration"),
        ("cluster 3\nwake A fast", "no such timer is set; there are: tick"),
        ("cluster 3\nsync A", "the disk of A has nothing to sync"),
        ("cluster 3\ncrash A keep=1", "keep=1 is not from 0 to 0"),
        ("cluster 3\nrestart A", "A is up"),
        ("cluster 3\ncrash A\ncrash A", "A is down"),
        ("cluster 3\nrecover A y", "'y' is no id; known are none, others are written as A.1"),
        ("cluster 3\n\n----", "no command stands before ----"),
    ],
)
def test_a_file_without_sense_says_where_and_what_is_allowed(commands: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        rewritten(commands)
    assert message in str(caught.value)


def test_the_command_line_compares_and_rewrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.txt"
    path.write_text("# A story.\ncluster 3\n\nsubmit A x SET k 1\n----\nnothing comes of it\n")
    assert run(["scenario", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "-nothing comes of it" in shown and "+A  x was nothing" in shown and "0 of 1 scenarios" in shown
    assert run(["scenario", "--rewrite", str(path)]) == 0
    assert "read it before you believe it" in capsys.readouterr().out
    assert run(["scenario", str(path)]) == 0 and not differences(path)
    assert run(["scenario", "--rewrite", str(path)]) == 0
    assert "nothing to rewrite" in capsys.readouterr().out
    path.write_text("cluster 3\n\nfly A\n")
    assert run(["scenario", str(path)]) == 1
    assert f"{path}: line 3: 'fly' is no command" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ turns by hand


def test_what_arrives_where_turns_are_held_is_taken_in_one_turn() -> None:
    setup = ("cluster 3", "hold-turns B", "submit A x SET k 1\nsubmit A y SET k 2\ndeliver A->B PreAccept")
    assert not any(line.startswith("B") for line in told(*setup))
    takes = [
        "B  x was nothing",
        "B  x now PRE bal=0 abal=0 dep={} init_dep={}",
        "B  y was nothing",
        "B  y now PRE bal=0 abal=0 dep={x} init_dep={x}",
    ]
    answers = ["B -> A  PreAcceptOK x dep={}", "B -> A  PreAcceptOK y dep={x}"]
    assert told(*setup, "turn B") == takes
    assert told(*setup, "turn B", "turn B") == answers, "that its disk has them arrives like everything else"
    assert told(*setup, "release-turns B") == [*takes, *answers]
    assert told(*setup, "release-turns B", "submit B z SET j 1")[0] == "B  z was nothing", "at once again"
    after = told(*setup, "crash B", "restart B alone", "turn B", "turn B", "flights")
    assert not any("PreAcceptOK" in line for line in after), "what was not taken is lost with the power"


def test_a_turn_comes_after_a_time_and_to_timers() -> None:
    setup = ("cluster 3", "submit A x SET k 1\ndrop A->*", "timers A")
    assert told(*setup) == ["A  tick in 100 ms"]
    assert told(*setup[:2], "turn A 30ms", "timers A") == ["A  tick in 70 ms"]
    assert told(*setup[:2], "turn A tick") == ["A -> B C  PreAccept x SET k 1 init_dep={}"]
    assert told(*setup[:2], "turn A 30ms tick, tick") == told(*setup[:2], "turn A tick")
    with pytest.raises(ScenarioError, match="no such timer is set; there are: tick"):
        told(*setup[:2], "turn A recover x")


def test_a_client_goes_away() -> None:
    setup = ("cluster 3", "submit A x SET k 1", "cancel A x", "deliver A->B PreAccept\ndeliver B->A")
    assert not any("answers" in line for line in told(*setup))
    with pytest.raises(ScenarioError, match="no command 'x' was handed in at B; there are: none"):
        told(*setup[:2], "cancel B x")


def test_a_run_of_several_commands_is_handed_in_as_bytes() -> None:
    run_hex = encode_run(SECRET, [set_("k", "1"), append("k", "2")]).hex()
    setup = ("cluster 3", f"submit A x run={run_hex}", "deliver A->B PreAccept\ndeliver B->A", "history")
    assert told(*setup) == ["x at A: SET k 1; APPEND k 2: OK; 2"]
    for wrong in ("run=12", "run=xy"):
        with pytest.raises(ScenarioError, match=f"{wrong} is no run: "):
            told("cluster 3", f"submit A x {wrong}")


def test_who_restarts_alone_has_no_links() -> None:
    setup = ("cluster 3", "submit A x SET k 1\ncrash A")
    asks = "A -> B C  Recover x ballot=1"
    assert asks in told(*setup, "restart A") and asks in told(*setup, "restart A alone")
    assert any("CommitQuery" in line for line in told(*setup, "restart A"))
    assert not any("CommitQuery" in line for line in told(*setup, "restart A alone"))


def test_the_limits_of_a_cluster_are_the_files() -> None:
    opened = ("open A s", "deliver A->B PreAccept\ndeliver B->A PreAcceptOK")
    assert told("cluster 3", *opened, "open A t")[0] == "A  t was nothing"
    assert told("cluster 3 sessions=1", *opened, "open A t")[0] == "A  answers t: busy: 1 sessions are open"
    assert told("cluster 3 protocol=raft chance=7", "timers A") != told("cluster 3 protocol=raft chance=8", "timers A")
    with pytest.raises(ScenarioError, match="batch_age_us=soon is not from 0 to"):
        told("cluster 3 batch_age_us=soon")


# ------------------------------------------------------------------------------------------------- written by a program


def test_a_scenario_is_written_from_events(tmp_path: Path) -> None:
    batch = Batch.of(BatchNumber(0, 1, 1), encode_run(SECRET, [set_("k", "a b")]))
    asks = PreAccept(id=X, payload=batch, init_dep=NONE)
    text = write_scenario(
        3,
        [
            events.Submit(0, 1, batch.run),
            events.Deliver(0, 1, asks),
            events.Deliver(0, 1, asks),
            events.Drop(1, 0, PreAcceptOK(id=X, dep=NONE)),
            events.HoldDisk(2),
            events.Deliver(0, 2, asks),
            events.Sync(2),
            events.Act("recover", 1, X),
            events.Wake(1, "tick"),
            events.Crash(0),
            events.Restart(0),
        ],
        story="Found by a program.\nTwo lines.",
    )
    path = tmp_path / "found.txt"
    path.write_text(text)
    assert not differences(path)
    assert text.startswith("# Found by a program.\n# Two lines.\ncluster 3\n----\nok\n")
    lines = text.splitlines()
    assert lines.count("deliver A->B PreAccept once") == 2 and lines.count("dup A->B PreAccept") == 1
    for line in (
        "submit A x SET k 'a b'",
        "hold-disk C",
        "sync C groups=1",
        "recover B x",
        "wake B tick",
        "crash A",
        "restart A",
        "agreement",
    ):
        assert line in lines


def test_what_cannot_be_replayed_says_so_in_its_place() -> None:
    lost = PreAcceptOK(id=X, dep=NONE)
    text = write_scenario(3, [events.Deliver(1, 0, lost), events.Restart(1)], story="Too free.")
    assert text.splitlines()[-1].startswith("does not replay: no such message is under way")
    assert "restart" not in text
