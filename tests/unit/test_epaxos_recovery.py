"""Crashes and restarts by hand: what a replica finishes of its own, what it asks for, what it answers."""

from __future__ import annotations

import pytest

from epaxos.command import NOP, Batch
from epaxos.errors import Rejected, StorageError
from epaxos.ids import BatchNumber, InstanceId
from epaxos.messages import (
    Accept,
    AcceptOK,
    Commit,
    CommitQuery,
    Nack,
    PreAccept,
    PreAcceptOK,
    Recover,
    RecoverOK,
    SlotRange,
)
from epaxos.packing import encode_run
from epaxos.protocols.epaxos.query import ANSWERS_MAX
from epaxos.protocols.interface import PeerUp, Receive
from epaxos.testing.byhand import RETRY_US, SECRET, ByHand, append, set_

A1 = InstanceId(0, 1, 0)


def batch(number: int = 1, *, origin: int = 0, value: str = "x") -> Batch:
    return Batch.of(BatchNumber(origin, 1, number), encode_run(SECRET, [set_("k", value)]))


def converged(cluster: ByHand) -> bool:
    return len({tuple(state) for state in cluster.states()}) == 1


def test_a_recovery_is_sent_again_until_a_quorum_answers() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.crash(0)
    cluster.restart(0)
    assert cluster.drop(Recover) == 2 * 2, "at its start, and when it had its links"
    cluster.wait(RETRY_US)
    assert cluster.pass_on(Recover) == 2
    cluster.pass_on(RecoverOK)
    assert cluster.drop(Accept) == 2
    cluster.wait(RETRY_US)
    assert cluster.pass_on(Accept) == 2
    cluster.settle()
    assert cluster.sites[2].protocol.recall(A1) == (NOP, (0, 0, 0))


def test_who_could_not_be_reached_is_asked_as_soon_as_there_is_a_link() -> None:
    """A replica that returns begins to recover its own before it has a link to anybody; by the time it has them, the
    next sending may be eight round trips away."""
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.crash(0)
    cluster.restart(0)
    cluster.wait(1_000)
    cluster.drop()
    cluster.turn(0, PeerUp(peer=1))
    assert [f.target for f in cluster.pick(Recover)] == [1]
    cluster.pass_on(Recover)
    cluster.pass_on(RecoverOK)
    assert cluster.drop(Accept) == 2
    cluster.turn(0, PeerUp(peer=2))
    assert [f.target for f in cluster.pick(Accept)] == [2]
    cluster.settle()
    assert cluster.sites[1].protocol.recall(A1) == (NOP, (0, 0, 0))


def test_recover_names_ranges_of_slots() -> None:
    cluster = ByHand(3)
    for i in range(4):
        cluster.submit(0, set_(f"k{i}", "x"), stream=i)
        cluster.wait(1_000)
    cluster.drop()
    cluster.crash(0)
    cluster.restart(0)
    assert {(f.message.first, f.message.last) for f in cluster.pick(Recover, target=1)} == {(1, 4)}
    cluster.settle()
    assert cluster.sites[1].engine.executor.executed().watermark == (4, 0, 0)


def test_a_nack_ends_the_ballot_and_is_outbid_later() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop()
    cluster.crash(0)
    cluster.restart(0)
    cluster.drop(Recover)
    cluster.turn(0, Receive(peer=1, message=Nack(id=A1, ballot=1)))
    assert cluster.sites[0].protocol.state.live[A1].recovery is not None, "that is the own ballot"
    cluster.turn(0, Receive(peer=1, message=Nack(id=A1, ballot=6)))
    assert cluster.sites[0].protocol.state.live[A1].recovery is None
    cluster.wait(10 * RETRY_US)
    assert {f.message.ballot for f in cluster.pick(Recover, source=0)} == {7}
    cluster.heal()
    assert converged(cluster)
    cluster.turn(0, Receive(peer=1, message=Nack(id=A1, ballot=99)))
    assert cluster.sites[0].protocol.recall(A1) is not None, "a decision is not undone"


def test_4_6_past_its_deadline_a_nop_is_rejected_and_never_proposed_again() -> None:
    cluster = ByHand(3)
    waiter = cluster.submit(0, set_("k", "x"), timeout_us=50_000)
    cluster.drop()
    cluster.turn(0, Receive(peer=1, message=Recover(epoch=0, lane=0, first=1, last=1, ballot=2)))
    cluster.now_us += 50_000
    vote = AcceptOK(id=A1, ballot=2, nop=True, dep=(0, 0, 0))
    cluster.turn(0, Receive(peer=1, message=vote), Receive(peer=2, message=vote))
    (error,) = waiter.errors
    assert isinstance(error, Rejected) and error.reason == "deadline"
    cluster.heal()
    assert cluster.sites[0].machine.get(b"k") is None and converged(cluster)


def test_a_restart_after_a_crash_of_everybody_loses_nothing_acknowledged() -> None:
    cluster = ByHand(3)
    for i, value in enumerate(("a", "b", "c")):
        assert cluster.submit(i, append("k", value)) and cluster.settle() is None
    before = cluster.states()
    for i in range(3):
        cluster.crash(i)
    for i in range(3):
        cluster.restart(i)
    cluster.heal()
    assert cluster.states() == before


def test_a_restart_on_the_same_slots_is_impossible() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.settle()
    cluster.crash(0)
    cluster.restart(0)
    cluster.heal()
    cluster.submit(0, set_("k", "y"))
    assert cluster.pick(PreAccept)[0].message.id == InstanceId(0, 2, 0)


def test_the_window_counts_what_an_earlier_life_left_unexecuted() -> None:
    cluster = ByHand(3, window=2)
    for i in range(2):
        cluster.submit(0, set_(f"k{i}", "v"), stream=i)
        cluster.wait(1_000)
    cluster.drop()
    cluster.crash(0)
    cluster.restart(0)
    assert cluster.sites[0].engine.admission.credit == 0
    cluster.heal()
    assert cluster.sites[0].engine.admission.credit == 2


def test_4_4_a_smaller_window_counts_what_a_larger_one_let_in() -> None:
    cluster = ByHand(3, window=4)
    for i in range(4):
        cluster.submit(0, set_(f"k{i}", "v"), stream=i)
        cluster.wait(1_000)
    cluster.drop()
    cluster.crash(0)
    cluster.window = 2
    cluster.restart(0)
    assert cluster.sites[0].engine.admission.credit == 0
    cluster.heal()
    assert cluster.sites[0].engine.admission.credit == 2


def test_4_4_a_slot_that_others_spent_as_a_gap_makes_the_window_no_larger() -> None:
    cluster = ByHand(3, window=2)
    cluster.poke(1, lambda protocol: protocol.recovery.start([protocol.state.touch(A1)]))
    cluster.settle()
    assert cluster.sites[0].engine.executor.executed().watermark == (1, 0, 0)
    assert cluster.sites[0].engine.admission.credit == 2


def test_blocked_execution_asks_the_coordinator_and_then_everybody() -> None:
    cluster = ByHand(3)
    cluster.submit(0, append("k", "a"))
    cluster.pass_on(PreAccept, target=1)
    cluster.pass_on(PreAcceptOK, target=0)
    cluster.drop()
    cluster.submit(1, append("k", "b"))
    cluster.wait(1_000)
    cluster.pass_on(PreAccept, source=1, target=0)
    cluster.pass_on(PreAcceptOK, target=1)
    cluster.pass_on(Accept, target=0)
    cluster.pass_on(AcceptOK, target=1)
    assert cluster.sites[1].engine.executor.waiting() == 1
    cluster.drop()
    asked = []
    for _ in range(12):
        cluster.wait(RETRY_US // 2)
        asked += [f.target for f in cluster.pick(CommitQuery, source=1) if f.message.ranges == (SlotRange(0, 1, 1),)]
        cluster.drop()
    assert asked[0] == 0 and 2 in asked
    cluster.heal()
    assert converged(cluster)


def test_a_replica_that_was_away_catches_up() -> None:
    cluster = ByHand(3)
    cluster.crash(2)
    for i in range(ANSWERS_MAX + 20):
        cluster.submit(i % 2, set_(f"k{i}", "v"), stream=i)
        cluster.settle()
    cluster.restart(2)
    cluster.heal()
    assert converged(cluster)
    assert cluster.sites[2].engine.executor.executed().watermark[:2] == ((ANSWERS_MAX + 20) // 2,) * 2


def test_a_replica_that_heard_nothing_at_all_finds_out() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.drop(target=2)
    cluster.settle()
    cluster.drop(target=2)
    cluster.heal()
    assert converged(cluster)


def test_executed_instances_leave_memory_and_are_answered_from_the_log() -> None:
    cluster = ByHand(3, lazy_us=1_000)
    cluster.submit(0, set_("k", "x"))
    cluster.settle()
    cluster.wait(2_000)
    assert all(not site.protocol.state.live for site in cluster.sites)
    cluster.turn(1, Receive(peer=2, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, 1),))))
    (answer,) = cluster.pick(Commit, source=1)
    assert answer.message.payload == batch()


def test_a_query_is_answered_in_bounded_pieces_and_unknown_slots_with_silence() -> None:
    cluster = ByHand(1)
    for i in range(ANSWERS_MAX + 5):
        cluster.submit(0, set_(f"k{i}", "v"), stream=i)
    out = cluster.turn(0, Receive(peer=0, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, 1 << 40),))))
    assert len(out.sends) == ANSWERS_MAX
    out = cluster.turn(0, Receive(peer=0, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 5_000, 6_000),))))
    assert not out.sends


@pytest.mark.parametrize("letter", [b"i", b"c"])
def test_a_log_with_a_hole_is_refused(letter: bytes) -> None:
    cluster = ByHand(1)
    cluster.submit(0, set_("k", "x"))
    cluster.wait(100_000)
    site = cluster.sites[0]
    disk = site.disk.crash()
    (key,) = [key for key, _ in disk.scan(letter, bytes([letter[0] + 1]))]
    del disk._records[key]
    disk._keys.remove(key)
    site.disk, site.up = disk, False
    with pytest.raises(StorageError, match=r"0\.1"):
        cluster.restart(0)
