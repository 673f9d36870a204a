"""The durability gate: nothing leaves before what it reveals is durable, and lazy records still get written."""

from __future__ import annotations

from epaxos.gate import Gate, Timers
from epaxos.ids import InstanceId
from epaxos.messages import TimeoutNow
from epaxos.protocols.interface import NOTHING, Save, Send


class NoApplier:
    """An engine that has executed nothing."""

    def __init__(self) -> None:
        self.cursor = 0
        self.delivered = 0
        self.pending: tuple[bytes, bytes] | None = None

    def record(self) -> tuple[bytes, bytes] | None:
        record, self.pending = self.pending, None
        return record


def save(mark: int, *, key: bytes = b"k", urgent: bool = True) -> Save:
    return Save(puts=((key, b"%d" % mark),), mark=mark, urgent=urgent)


def send(**after: int) -> Send:
    return Send(peers=(1,), message=TimeoutNow(term=1), **after)


def test_a_send_waits_for_the_urgent_save_before_it() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    gate.save(save(1))
    gate.hold(send())
    assert gate.release() == []
    group = gate.flush(0, applier)
    assert group is not None and group.puts == ((b"k", b"1"),)
    assert gate.durable(group.mark, applier) == 1
    assert gate.release() == [send()]


def test_an_explicit_exception_leaves_at_once() -> None:
    gate = Gate(lazy_us=5_000)
    gate.save(save(1))
    gate.hold(send(after=NOTHING))
    assert gate.release() == [send(after=NOTHING)]


def test_held_effects_leave_in_order_and_only_as_far_as_the_disk_is() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    gate.save(save(1))
    gate.hold(send())
    first = gate.flush(0, applier)
    gate.save(save(2))
    gate.hold(send())
    second = gate.flush(0, applier)
    assert first is not None and second is not None
    assert gate.durable(first.mark, applier) == 1
    assert len(gate.release()) == 1
    assert gate.durable(second.mark, applier) == 2
    assert len(gate.release()) == 1


def test_lazy_records_ride_along_or_wait_for_the_lazy_timer() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    gate.save(save(1, key=b"lazy", urgent=False))
    gate.hold(send())
    assert gate.release() == [send()], "nothing waits for a lazy record"
    assert gate.flush(100, applier) is None
    assert gate.wake_us == 5_100
    assert gate.flush(5_099, applier) is None
    group = gate.flush(5_100, applier)
    assert group is not None and gate.wake_us is None
    gate.save(save(2, key=b"lazy", urgent=False))
    gate.save(save(3, key=b"urgent"))
    group = gate.flush(5_200, applier)
    assert group is not None and {key for key, _ in group.puts} == {b"lazy", b"urgent"}


def test_waiting_for_a_lazy_mark_makes_it_urgent() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    gate.save(save(1, urgent=False))
    gate.hold(send(after=1))
    assert gate.release() == []
    group = gate.flush(0, applier)
    assert group is not None
    assert gate.durable(group.mark, applier) == 1
    assert gate.release() == [send(after=1)]


def test_of_puts_and_drops_of_one_key_the_last_counts() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    gate.save(Save(puts=((b"a", b"1"), (b"b", b"1")), mark=1))
    gate.save(Save(puts=(), drops=(b"a", b"c"), mark=2))
    gate.save(Save(puts=((b"c", b"3"),), mark=3))
    group = gate.flush(0, applier)
    assert group is not None
    assert dict(group.puts) == {b"b": b"1", b"c": b"3"} and group.drops == (b"a",)


def test_apply_marks_move_the_log_only_when_durable() -> None:
    gate, applier = Gate(lazy_us=5_000), NoApplier()
    applier.pending, applier.cursor = (b"a1", b"x"), 7
    assert gate.flush(0, applier) is None
    group = gate.flush(5_000, applier)
    assert group is not None and group.puts == ((b"a1", b"x"),)
    assert applier.delivered == 0
    assert gate.durable(group.mark, applier) is None, "the protocol saved nothing"
    assert applier.delivered == 7


def test_timers_fire_in_order_once_and_can_be_moved_and_cleared() -> None:
    timers = Timers()
    timers.set("late", 30)
    timers.set(("fast", InstanceId(0, 1, 0)), 10)
    timers.set("moved", 5)
    timers.set("moved", 20)
    timers.set("cleared", 1)
    timers.clear("cleared")
    timers.clear("never set")
    assert timers.next_us() == 10
    assert list(timers.due(25)) == [("fast", InstanceId(0, 1, 0)), "moved"]
    assert list(timers.due(25)) == []
    assert timers.next_us() == 30
    assert list(timers.due(30)) == ["late"]
    assert timers.next_us() is None
