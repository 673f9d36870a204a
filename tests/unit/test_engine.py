"""The engine, driven by a protocol that only says what the test tells it to: no rule of any protocol is needed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from epaxos.command import READ, Batch, Entry, Payload
from epaxos.engine import Engine, Turn
from epaxos.errors import MachineError, Rejected, StorageError, Unknown
from epaxos.execution.total import TotalExecutor
from epaxos.ids import BatchNumber, InstanceId
from epaxos.machines.interface import BatchMachine
from epaxos.messages import TimeoutNow
from epaxos.packing import barrier_run, encode_run
from epaxos.protocols.interface import (
    NOTHING,
    Blocked,
    ClearTimer,
    Credit,
    Decide,
    Durable,
    Effect,
    Event,
    Executed,
    Learn,
    Note,
    Now,
    Order,
    PeerUp,
    Propose,
    Protocol,
    Read,
    Save,
    Send,
    Serve,
    SetTimer,
    Settle,
    Start,
    Wake,
)
from epaxos.storage.memory import MemoryDisk
from epaxos.submission import Cancel, Limits, Submit

SECRET = bytes(16)


class Puppet(Protocol):
    """Records its events; answers with what was put into `answers` for that type of event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.answers: dict[type, list[Effect]] = {Start: [Credit(n=100)]}
        self.decisions: dict[InstanceId, tuple[Payload, Order]] = {}

    def step(self, now: Now, event: Event) -> list[Effect]:
        self.events.append(event)
        return self.answers.pop(type(event), [])

    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        return self.decisions.get(id_)

    def status(self) -> Mapping[str, object]:
        return {"events": len(self.events)}

    def digest(self) -> bytes:
        return repr(self.events).encode()

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class ReadingPuppet(Puppet):
    reads_apart = True


class Echo(BatchMachine):
    """Replies to each command with its payload, and remembers them."""

    def __init__(self) -> None:
        self.applied: list[Batch] = []

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        if b"poison" in batch.data:
            raise ZeroDivisionError("poison")
        self.applied.append(batch)
        return [b"%d" % span for span in spans]

    def save(self) -> Iterable[bytes]:
        return [batch.data for batch in self.applied]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.applied = [Batch(chunk) for chunk in chunks]


class Waiter:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def reply(self, first: int, count: int, data: bytes) -> None:
        self.heard.append((first, count, data))

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        self.heard.append(type(error))


class Rig:
    """An engine on a memory disk with a puppet for a protocol."""

    def __init__(self, puppet: Puppet | None = None, disk: MemoryDisk | None = None, **limits: int) -> None:
        self.puppet = puppet or Puppet()
        self.disk = disk or MemoryDisk()
        self.machine = Echo()
        self.now_us = 0
        self.engine = Engine(
            me=0,
            n=1,
            incarnation=1,
            protocol=self.puppet,
            executor=TotalExecutor(1),
            machine=self.machine,
            log=self.disk,
            limits=Limits(**{"lazy_us": 5_000, **limits}),
        )

    def turn(self, *inputs: object, at_us: int | None = None) -> Turn:
        self.now_us = self.now_us if at_us is None else at_us
        out = self.engine.turn(Now(self.now_us, self.now_us), inputs)  # type: ignore[arg-type]  # tests pass any input
        if out.write is not None:
            self.disk.write(out.write)
        return out

    def synced(self) -> Turn:
        return self.turn(Durable(mark=self.disk.sync()))

    def does(self, event: type, *effects: Effect) -> None:
        self.puppet.answers[event] = list(effects)


def id_(slot: int) -> InstanceId:
    return InstanceId(0, slot, 0)


def run(key: bytes = b"k", payload: bytes = b"p", flags: int = 0) -> bytes:
    return encode_run(SECRET, [(Entry(0, flags, key, payload),)])


def batch(number: int, payload: bytes = b"p") -> Batch:
    return Batch.of(BatchNumber(9, 1, number), run(payload=payload))


def submit(waiter: Waiter, packed: bytes | None = None, *, stream: int = 1, deadline_us: int = 10**9) -> Submit:
    return Submit(waiter, stream, packed or run(), 1, deadline_us)


def test_the_first_turn_starts_the_protocol_and_hands_out_its_effects() -> None:
    rig = Rig()
    out = rig.turn()
    (start,) = rig.puppet.events
    assert isinstance(start, Start) and start.incarnation == 1 and start.executed.watermark == (0,)
    assert out.write is None and out.sends == [] and out.wake_us is None


def test_a_command_goes_from_submit_to_reply() -> None:
    rig, waiter = Rig(), Waiter()
    rig.turn()
    rig.turn(submit(waiter), at_us=10)
    (propose,) = rig.puppet.of(Propose)
    assert isinstance(propose, Propose) and propose.batch.name == (0, 1, 1)
    rig.does(PeerUp, Note(event="seen"), Decide(id=id_(1), payload=propose.batch, order=1))
    out = rig.turn(PeerUp(peer=1), at_us=30)
    assert waiter.heard == [(0, 1, b"1")]
    assert out.commits == out.executions == [(20, 1)]
    assert [note.event for note in out.notes] == ["seen"]
    assert rig.puppet.of(Executed) == [Executed(ids=(id_(1),))]
    assert rig.engine.status()["executed"] == 1


def test_nothing_leaves_before_it_is_durable() -> None:
    rig = Rig()
    message = TimeoutNow(term=1)
    rig.does(
        Start,
        Save(puts=((b"x", b"1"),), mark=1),
        Send(peers=(1,), message=message),
        Decide(id=id_(1), payload=batch(1), order=1),
        Send(peers=(2,), message=message, after=NOTHING),
    )
    out = rig.turn()
    assert [peers for peers, _ in out.sends] == [(2,)] and not rig.machine.applied
    out = rig.synced()
    assert [peers for peers, _ in out.sends] == [(1,)] and rig.machine.applied == [batch(1)]
    assert rig.puppet.of(Durable) == [Durable(mark=1)]


def test_timers_wake_the_protocol_once() -> None:
    rig = Rig()
    rig.does(Start, SetTimer(timer="a", at_us=50), SetTimer(timer="b", at_us=20), SetTimer(timer="c", at_us=10))
    rig.does(PeerUp, ClearTimer(timer="c"))
    rig.turn()
    out = rig.turn(PeerUp(peer=1))
    assert out.wake_us == 20
    rig.turn(at_us=60)
    rig.turn(at_us=70)
    assert rig.puppet.of(Wake) == [Wake(timer="b"), Wake(timer="a")]


def test_what_the_protocol_settles_is_told() -> None:
    rig, waiter = Rig(), Waiter()
    rig.turn()
    rig.turn(submit(waiter))
    rig.does(PeerUp, Settle(name=BatchNumber(0, 1, 1), outcome=Rejected("closed")))
    rig.turn(PeerUp(peer=1))
    rig.does(PeerUp, Settle(name=BatchNumber(0, 1, 1), outcome=Rejected("closed")))
    rig.turn(PeerUp(peer=1))
    assert waiter.heard == [Rejected]


def test_a_cancelled_or_late_waiter_hears_no_result() -> None:
    rig, cancelled, late = Rig(), Waiter(), Waiter()
    rig.turn()
    rig.turn(submit(cancelled), submit(late, stream=2, deadline_us=100))
    (propose,) = rig.puppet.of(Propose)
    rig.turn(Cancel(cancelled))
    rig.turn(at_us=100)
    assert late.heard == [Unknown]
    rig.does(PeerUp, Decide(id=id_(1), payload=propose.batch, order=1))
    rig.turn(PeerUp(peer=1))
    assert cancelled.heard == [] and late.heard == [Unknown]


def test_a_batch_has_the_soonest_deadline_of_its_commands_and_a_batch_of_reads_the_last() -> None:
    rig = Rig(ReadingPuppet())
    rig.turn()
    for flags in (0, READ):
        rig.turn(*[submit(Waiter(), run(flags=flags), stream=us + flags, deadline_us=us) for us in (9_000_000, 1_000)])
    (propose,), (read,) = rig.puppet.of(Propose), rig.puppet.of(Read)
    assert isinstance(propose, Propose) and isinstance(read, Read)
    assert (propose.deadline_us, read.deadline_us) == (1_000, 9_000_000)


def test_a_barrier_is_ordered_answered_and_not_applied() -> None:
    rig, waiter = Rig(), Waiter()
    rig.turn()
    rig.turn(submit(waiter, barrier_run()))
    (propose,) = rig.puppet.of(Propose)
    rig.does(PeerUp, Decide(id=id_(1), payload=propose.batch, order=1))
    rig.turn(PeerUp(peer=1))
    assert waiter.heard == [(0, 1, b"")] and not rig.machine.applied


def test_a_machine_that_raises_stops_the_replica() -> None:
    rig = Rig()
    rig.does(Start, Decide(id=id_(1), payload=batch(1, b"poison"), order=1))
    with pytest.raises(MachineError, match="poison"):
        rig.turn()


def test_reads_are_served_when_execution_has_reached_their_order() -> None:
    rig, waiter = Rig(ReadingPuppet()), Waiter()
    rig.turn()
    rig.turn(submit(waiter, run(flags=READ)))
    (read,) = rig.puppet.of(Read)
    assert isinstance(read, Read)
    rig.does(PeerUp, Serve(name=read.batch.name, order=1))
    rig.turn(PeerUp(peer=1))
    assert waiter.heard == []
    rig.does(PeerUp, Decide(id=id_(1), payload=batch(1), order=1))
    rig.turn(PeerUp(peer=1))
    assert waiter.heard == [(0, 1, b"1")]
    rig.does(PeerUp, Serve(name=read.batch.name, order=1))
    rig.turn(PeerUp(peer=1))
    assert waiter.heard == [(0, 1, b"1")], "a read is answered once"


def test_blocked_execution_is_reported_after_a_while_and_again() -> None:
    rig = Rig(blocked_us=100)
    rig.does(Start, Learn(id=id_(1), batch=batch(1)), Decide(id=id_(2), payload=batch(2), order=2))
    out = rig.turn()
    assert out.wake_us == 100 and not rig.puppet.of(Blocked)
    rig.turn(at_us=99)
    assert not rig.puppet.of(Blocked)
    rig.turn(at_us=100)
    rig.turn(at_us=150)
    rig.turn(at_us=200)
    assert len(rig.puppet.of(Blocked)) == 2
    rig.does(PeerUp, Decide(id=id_(1), payload=batch(1), order=1))
    out = rig.turn(PeerUp(peer=1))
    assert rig.engine.status()["behind"] == 0
    rig.turn(at_us=10_000)
    assert len(rig.puppet.of(Blocked)) == 2


def applied_rig() -> Rig:
    """Three commands in two groups, durable."""
    rig = Rig()
    rig.puppet.decisions = {id_(i): (batch(i, b"p%d" % i), i) for i in (1, 2)}
    rig.does(Start, *[Decide(id=i, payload=p, order=o) for i, (p, o) in rig.puppet.decisions.items()])
    rig.turn()
    rig.turn(at_us=5_000)
    rig.synced()
    return rig


def test_the_log_gives_durable_entries_and_resumes_behind_a_cursor() -> None:
    rig = Rig()
    rig.puppet.decisions = {id_(1): (batch(1, b"p1"), 1)}
    rig.does(Start, Decide(id=id_(1), payload=batch(1, b"p1"), order=1))
    out = rig.turn()
    assert out.delivered == 0 and rig.engine.entries(0, 10) == []
    rig = applied_rig()
    entries = rig.engine.entries(0, 10)
    assert [(entry.keys, entry.payload) for entry in entries] == [((b"k",), b"p1"), ((b"k",), b"p2")]
    assert rig.engine.entries(0, 1) == entries[:1]
    assert rig.engine.entries(entries[0].cursor, 10) == entries[1:]
    assert rig.engine.entries(entries[1].cursor, 10) == []
    assert entries[0].cursor < entries[1].cursor <= rig.turn().delivered


def test_a_restart_applies_again_what_was_applied_and_goes_on_behind_it() -> None:
    old = applied_rig()
    rig = Rig(disk=old.disk.crash())
    rig.puppet.decisions = old.puppet.decisions
    assert list(rig.engine.replay()) == [1, 2]
    assert rig.machine.applied == old.machine.applied
    rig.does(Start, *[Decide(id=i, payload=p, order=o) for i, (p, o) in old.puppet.decisions.items()])
    rig.turn()
    (start,) = rig.puppet.of(Start)
    assert isinstance(start, Start) and start.executed.watermark == (2,)
    assert len(rig.machine.applied) == 2, "decided again, not applied again"
    rig.does(PeerUp, Decide(id=id_(3), payload=batch(3, b"p3"), order=3))
    rig.turn(PeerUp(peer=1))
    rig.puppet.decisions[id_(3)] = (batch(3, b"p3"), 3)
    rig.turn(at_us=10_000)
    rig.synced()
    assert [entry.payload for entry in rig.engine.entries(0, 10)] == [b"p1", b"p2", b"p3"]


def test_apply_marks_without_their_decisions_are_refused() -> None:
    old = applied_rig()
    rig = Rig(disk=old.disk.crash())
    with pytest.raises(StorageError, match=r"0\.1"):
        list(rig.engine.replay())


def test_a_batch_of_an_earlier_life_is_applied_and_answered_to_nobody() -> None:
    rig = Rig()
    mine = Batch.of(BatchNumber(0, 0, 1), run())
    rig.does(Start, Decide(id=id_(1), payload=mine, order=1))
    out = rig.turn()
    assert rig.machine.applied == [mine] and out.executions == []


def test_shutting_down_answers_everybody() -> None:
    rig, proposed, waiting = Rig(), Waiter(), Waiter()
    rig.does(Start, Credit(n=1))
    rig.turn()
    rig.turn(submit(proposed))
    rig.turn(submit(waiting, stream=2))
    rig.engine.shut()
    assert proposed.heard == [Unknown] and waiting.heard == [Rejected]
