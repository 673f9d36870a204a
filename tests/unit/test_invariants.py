"""Each invariant accepts a run in which it holds, and says No to one in which only it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epaxos.command import NOP, READ, Batch, Command, Entry, Payload
from epaxos.ids import BatchNumber, InstanceId, ReplicaId
from epaxos.machines.kv import Op
from epaxos.machines.transactions import WATCHER_BYTES, exec_command
from epaxos.messages import Accept, AcceptOK, Message, PreAccept, RecoverOK
from epaxos.packing import encode_run
from epaxos.protocols.interface import Frontier, Order
from epaxos.testing.invariants import ALL, Final, Watch
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.record import Call, Form, Life, Outcome, Part, Record, Violation

SECRET = bytes(16)
A, B, A_AGAIN = Life(0, 1), Life(1, 1), Life(0, 2)
X, Y = InstanceId(0, 1, 0), InstanceId(0, 1, 1)
OK = b"+OK\r\n"


def write(value: bytes, key: bytes = b"k") -> Form:
    return Form((Entry(Op.SET, 0, key, value),), "set", (Part(key, "set", value),), pure=False)


def read(tag: bytes, key: bytes = b"k") -> Form:
    return Form((Entry(Op.GET, READ, key, tag),), "get", (Part(key, "get"),), pure=True)


def batch(number: int, *forms: Form) -> Batch:
    return Batch.of(BatchNumber(0, 1, number), encode_run(SECRET, [form.command for form in forms]))


class Run:
    """A run put together by hand, of replicas 0 and 1."""

    def __init__(self) -> None:
        self.record = Record(KvModel(), (b"k", b"l"))
        self.watch = Watch(self.record)
        self.record.logs = {A: [], B: []}
        self._ticks = 0

    def decide(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        for hook in self.watch.decided:
            hook(life, id_, payload, order)

    def send(self, life: Life, message: Message, *peers: ReplicaId) -> None:
        self.watch.sends(life, peers or (1 - life.replica,), message)

    def execute(self, life: Life, *groups: list[InstanceId]) -> None:
        for group in groups:
            for hook in self.watch.executed:
                hook(life, group)

    def apply(self, life: Life, *batches: Batch) -> None:
        for each in batches:
            applied = self.record.unpack(each)
            for hook in self.watch.applied:
                hook(life, applied)
            self.record.logs.setdefault(life, []).append(applied)

    def deliver(self, life: Life, cursor: int, form: Form) -> None:
        for hook in self.watch.delivered:
            entry = form.command[0]
            hook(life, cursor, (entry.op, tuple(each.key for each in form.command), entry.payload))

    def ask(self, form: Form, stream: int = 1) -> Call:
        self._ticks += 1
        call = Call(len(self.record.calls), A, stream, form, self._ticks)
        self.record.calls.append(call)
        return call

    def answer(self, call: Call, reply: bytes | None, outcome: Outcome = Outcome.DONE) -> None:
        self._ticks += 1
        call.returned, call.reply, call.outcome = self._ticks, reply, outcome

    def everywhere(self, *forms: Form) -> None:
        """Each form in a batch of its own, executed by everybody and read by every consumer."""
        for life in (A, B):
            self.apply(life, *(batch(number, form) for number, form in enumerate(forms, 1)))
            for cursor, form in enumerate(forms, 1):
                self.deliver(life, cursor, form)

    def finish(self, states: tuple[bytes, bytes] = (b"", b""), settled: bool = True) -> None:
        frontier = Frontier((0, 0), frozenset())
        self.watch.finished(
            Final(
                states={0: (states[0],), 1: (states[1],)},
                frontiers={0: frontier, 1: frontier},
                waiting={0: 0, 1: 0},
                settled=settled,
            )
        )


# ------------------------------------------------------------------------------------------- what violates what


def two_decisions(run: Run) -> None:
    run.decide(A, X, batch(1, write(b"1")), (0, 0))
    run.decide(B, X, batch(1, write(b"1")), (0, 1))


def two_payloads(run: Run) -> None:
    run.decide(A, X, batch(1, write(b"1")), (0, 0))
    run.decide(B, X, NOP, (0, 0))


def one_name_for_two_batches(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")))
    run.apply(B, batch(1, write(b"2")))


def nop_with_dependencies(run: Run) -> None:
    run.decide(A, X, NOP, (0, 1))


def after_itself(run: Run) -> None:
    run.decide(A, X, batch(1, write(b"1")), (1, 0))


def two_initial_dependencies(run: Run) -> None:
    run.send(A, PreAccept(id=X, payload=batch(1, write(b"1")), init_dep=(0, 0)))
    run.send(A_AGAIN, PreAccept(id=X, payload=batch(1, write(b"1")), init_dep=(0, 1)))


def evidence(ballot: int, init_dep: tuple[int, ...] = (0, 0)) -> RecoverOK:
    return RecoverOK(
        id=X,
        ballot=ballot,
        abal=0,
        phase=1,
        nop=False,
        payload=batch(1, write(b"1")),
        dep=(0, 0),
        registered=True,
        init_dep=init_dep,
    )


def other_evidence(run: Run) -> None:
    run.send(A, PreAccept(id=X, payload=batch(1, write(b"1")), init_dep=(0, 0)))
    run.send(B, evidence(2, init_dep=(0, 1)))


def two_proposals(run: Run) -> None:
    run.send(A, Accept(id=X, ballot=1, payload=NOP, dep=(0, 0)))
    run.send(A_AGAIN, Accept(id=X, ballot=1, payload=batch(1, write(b"1")), dep=(0, 0)))


def two_kinds_of_votes(run: Run) -> None:
    run.send(A, AcceptOK(id=X, ballot=1, nop=False, dep=(0, 0)))
    run.send(B, AcceptOK(id=X, ballot=1, nop=False, dep=(0, 1)))


def more_than_the_window(run: Run) -> None:
    run.record.window = 1
    run.send(A, PreAccept(id=X, payload=batch(1, write(b"1")), init_dep=(0, 0)))
    run.send(A, PreAccept(id=InstanceId(0, 2, 0), payload=batch(2, write(b"2")), init_dep=(1, 0)))


def more_of_a_lane_than_the_window(run: Run) -> None:
    run.record.window = 1
    run.execute(A, [X], [InstanceId(0, 2, 0)], [InstanceId(0, 3, 0), InstanceId(0, 1, 1)])
    run.execute(A, [InstanceId(0, 4, 0), InstanceId(0, 2, 1), InstanceId(0, 5, 0)])


def vote_below_a_promise(run: Run) -> None:
    run.send(A, evidence(4))
    run.send(A_AGAIN, AcceptOK(id=X, ballot=3, nop=True, dep=(0, 0)))


def twice_in_a_life(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")), batch(2, write(b"2")), batch(1, write(b"1")))


def two_batches_of_one_command(run: Run) -> None:
    run.answer(run.ask(write(b"1")), OK)
    run.everywhere(write(b"1"), write(b"1"))
    run.finish()


def rejected_and_executed(run: Run) -> None:
    run.answer(run.ask(write(b"1")), None, Outcome.REJECTED)
    run.everywhere(write(b"1"))
    run.finish()


def writes_in_two_orders(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")), batch(2, write(b"2")))
    run.apply(B, batch(2, write(b"2")), batch(1, write(b"1")))


def read_in_two_places(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")), batch(2, read(b"r")))
    run.apply(B, batch(2, read(b"r")), batch(1, write(b"1")))


def another_order_after_a_restart(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")), batch(2, write(b"2")))
    run.apply(A_AGAIN, batch(2, write(b"2")))


def never_at_rest(run: Run) -> None:
    run.finish(settled=False)


def two_states(run: Run) -> None:
    run.finish(states=(b"1", b"2"))


def delivered_out_of_order(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")), batch(2, write(b"2")))
    run.apply(B, batch(1, write(b"1")), batch(2, write(b"2")))
    for life in (A, B):
        run.deliver(life, 1, write(b"2"))
        run.deliver(life, 2, write(b"1"))
    run.finish()


def delivered_twice(run: Run) -> None:
    run.deliver(A, 1, write(b"1"))
    run.deliver(A_AGAIN, 1, write(b"1"))


def not_delivered(run: Run) -> None:
    run.apply(A, batch(1, write(b"1")))
    run.apply(B, batch(1, write(b"1")))
    run.finish()


def never_answered(run: Run) -> None:
    run.ask(write(b"1"))
    run.finish()


def acknowledged_and_lost(run: Run) -> None:
    run.answer(run.ask(write(b"1")), OK)
    run.finish()


def no_edge(run: Run) -> None:
    run.decide(A, X, batch(1, write(b"1")), (0, 0))
    run.decide(A, Y, batch(2, write(b"2")), (0, 0))
    run.finish()


def no_edge_between_write_and_read(run: Run) -> None:
    run.decide(A, X, batch(1, write(b"1")), (0, 0))
    run.decide(A, Y, batch(2, read(b"r")), (0, 0))
    run.finish()


def overtaken_on_its_stream(run: Run) -> None:
    first, second = run.ask(write(b"1")), run.ask(write(b"2"))
    run.answer(first, OK)
    run.answer(second, OK)
    run.everywhere(write(b"2"), write(b"1"))
    run.finish()


def ordered_against_real_time(run: Run) -> None:
    run.answer(run.ask(write(b"1"), stream=1), OK)
    run.answer(run.ask(write(b"2"), stream=2), OK)
    run.everywhere(write(b"2"), write(b"1"))
    run.finish()


def answered_with_another_value(run: Run) -> None:
    run.answer(run.ask(write(b"1")), OK)
    run.answer(run.ask(read(b"r")), b"$1\r\n2\r\n")
    run.everywhere(write(b"1"), read(b"r"))
    run.finish()


def history_that_no_order_explains(run: Run) -> None:
    run.answer(run.ask(write(b"1")), OK)
    run.answer(run.ask(read(b"r")), b"$-1\r\n")
    run.everywhere(write(b"1"))
    run.finish()


def half_of_a_command_seen(run: Run) -> None:
    keys = (b"k", b"l")
    queued: list[Command] = [
        (Entry(Op.APPEND, 0, b"k", b"<1>"),),
        (Entry(Op.APPEND, 0, b"l", b"<2>"),),
        tuple(Entry(Op.MGET, READ, key, b"") for key in keys),
    ]
    both = exec_command(Op.EXEC, Op.WATCH, bytes(WATCHER_BYTES), (), queued)
    parts = (Part(b"k", "append_get", b"<1>"), Part(b"l", "append_get", b"<2>"))
    append = Form(both, "exec", parts, pure=False)
    get = Form(
        tuple(Entry(Op.MGET, READ, key, b"") for key in (b"k", b"l")),
        "mget",
        tuple(Part(key, "get") for key in (b"k", b"l")),
        pure=True,
    )
    first, second = run.ask(append, stream=1), run.ask(get, stream=2)
    run.answer(second, b"*2\r\n$3\r\n<1>\r\n$-1\r\n")
    run.answer(first, b"*3\r\n:3\r\n:3\r\n*2\r\n$3\r\n<1>\r\n$3\r\n<2>\r\n")
    run.everywhere(append)
    run.finish()


@pytest.mark.parametrize(
    ("invariant", "wrong"),
    [
        ("agreement", two_decisions),
        ("agreement", two_payloads),
        ("agreement", one_name_for_two_batches),
        ("agreement", nop_with_dependencies),
        ("agreement", after_itself),
        ("registration", two_initial_dependencies),
        ("registration", other_evidence),
        ("one_proposal", two_proposals),
        ("one_proposal", two_kinds_of_votes),
        ("promises", vote_below_a_promise),
        ("window", more_than_the_window),
        ("components", more_of_a_lane_than_the_window),
        ("at_most_once", twice_in_a_life),
        ("at_most_once", two_batches_of_one_command),
        ("at_most_once", rejected_and_executed),
        ("equal_order", writes_in_two_orders),
        ("equal_order", read_in_two_places),
        ("equal_order", another_order_after_a_restart),
        ("convergence", never_at_rest),
        ("convergence", two_states),
        ("delivery", delivered_out_of_order),
        ("delivery", delivered_twice),
        ("delivery", not_delivered),
        ("answers", never_answered),
        ("answers", acknowledged_and_lost),
        ("visibility", no_edge),
        ("visibility", no_edge_between_write_and_read),
        ("stream_order", overtaken_on_its_stream),
        ("strict_serializability", ordered_against_real_time),
        ("strict_serializability", answered_with_another_value),
        ("linearizability", history_that_no_order_explains),
        ("cycles", half_of_a_command_seen),
    ],
)
def test_says_no(invariant: str, wrong: Callable[[Run], None]) -> None:
    with pytest.raises(Violation) as raised:
        wrong(Run())
    assert raised.value.invariant == invariant


def test_a_sound_run_passes_all() -> None:
    run = Run()
    run.record.window = 1
    first, unknown, third = run.ask(write(b"1")), run.ask(write(b"2"), stream=2), run.ask(read(b"r"), stream=3)
    run.answer(first, OK)
    run.answer(unknown, None, Outcome.UNKNOWN)
    run.answer(run.ask(write(b"no"), stream=4), None, Outcome.REJECTED)
    run.answer(third, b"$1\r\n1\r\n")
    run.decide(A, X, batch(1, write(b"1")), (0, 0))
    run.decide(B, X, batch(1, write(b"1")), (0, 0))
    run.decide(A, Y, batch(2, read(b"r")), (1, 0))
    run.decide(A, InstanceId(0, 2, 0), NOP, (0, 0))
    run.send(A, PreAccept(id=X, payload=batch(1, write(b"1")), init_dep=(0, 0)))
    run.execute(A, [X])
    run.send(A, PreAccept(id=InstanceId(0, 2, 0), payload=batch(3, write(b"2")), init_dep=(1, 0)))
    run.send(B, evidence(2))
    run.send(B, AcceptOK(id=X, ballot=2, nop=False, dep=(0, 0)))
    run.everywhere(write(b"1"), read(b"r"), write(b"2"), write(b"other key", key=b"l"))
    run.apply(A_AGAIN, *(each.batch for each in run.record.logs[A]))
    run.finish(states=(b"same", b"same"))


def test_every_invariant_has_a_name_and_a_reason_of_its_own() -> None:
    assert len({kind.name for kind in ALL}) == len({kind.reason for kind in ALL}) == len(ALL)
    assert all(kind.reason.endswith(".") for kind in ALL)
