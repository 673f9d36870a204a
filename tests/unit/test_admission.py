"""Admission: how waiting commands become batches, what is kept apart, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

from epaxos.admission import Admission, Outstanding
from epaxos.command import HEADER, READ, Entry
from epaxos.errors import Rejected, Unknown
from epaxos.packing import barrier_run, count_commands, decode_run, encode_run
from epaxos.submission import Limits, Submit

SECRET = bytes(16)
FAR_US = 10**9


class Waiter:
    def __init__(self) -> None:
        self.failures: list[tuple[int, int, Rejected | Unknown]] = []

    def reply(self, first: int, count: int, data: bytes) -> None:
        raise AssertionError("admission never replies")

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        self.failures.append((first, count, error))

    @property
    def reason(self) -> str:
        (failure,) = self.failures
        assert isinstance(failure[2], Rejected)
        return failure[2].reason


def write(*keys: bytes) -> tuple[Entry, ...]:
    return tuple(Entry(1, 0, key, b"") for key in keys)


def read(key: bytes) -> tuple[Entry, ...]:
    return (Entry(2, READ, key, b""),)


def run(*commands: tuple[Entry, ...]) -> bytes:
    return encode_run(SECRET, commands)


def blocked_keys(*keys: bytes) -> Callable[[bytes], bytes]:
    """An executor for which commands on these keys are entangled."""

    def entangled(packed: bytes) -> bytes:
        return bytes(any(entry.key in keys for entry in command) for command in decode_run(packed))

    return entangled


def admission(*hot: bytes, credit: int = 100, reads_apart: bool = False, **limits: int) -> Admission:
    made = Admission(
        me=1, incarnation=3, limits=Limits(**limits), entangled=blocked_keys(*hot), reads_apart=reads_apart
    )
    made.credit = credit
    return made


def submit(
    to: Admission, *commands: tuple[Entry, ...], stream: int = 1, now_us: int = 0, deadline_us: int = FAR_US
) -> Waiter:
    waiter = Waiter()
    to.submit(now_us, Submit(waiter, stream, run(*commands), len(commands), deadline_us))
    return waiter


def keys(outstanding: Outstanding) -> list[bytes]:
    return [entry.key for command in decode_run(outstanding.batch.data, HEADER.size) for entry in command]


def test_a_lone_command_does_not_wait() -> None:
    adm = admission()
    submit(adm, write(b"a"))
    (outstanding,) = adm.close(0)
    assert outstanding.batch.name == (1, 3, 1)
    assert adm.close(0) == [] and adm.commands == 0 and adm.bytes == 0


def test_what_arrives_in_one_turn_becomes_one_batch_in_order() -> None:
    adm = admission()
    for key in (b"a", b"b", b"c"):
        submit(adm, write(key))
    (outstanding,) = adm.close(0)
    assert keys(outstanding) == [b"a", b"b", b"c"]
    assert [(piece.first, piece.count) for piece in outstanding.pieces] == [(0, 1)] * 3


def test_with_enough_batches_under_way_commands_gather_until_they_are_old() -> None:
    adm = admission(batch_inflight=1)
    submit(adm, write(b"a"))
    adm.close(0)
    submit(adm, write(b"b"), now_us=100)
    assert adm.close(100) == []
    assert adm.wake_us() == 1_100
    submit(adm, write(b"c"), now_us=900)
    (outstanding,) = adm.close(1_100)
    assert keys(outstanding) == [b"b", b"c"]


def test_without_credit_nothing_closes() -> None:
    adm = admission(credit=0)
    submit(adm, write(b"a"))
    assert adm.close(10_000) == []
    adm.credit = 1
    assert len(adm.close(10_000)) == 1 and adm.credit == 0


def test_entangled_commands_wait_a_moment_and_then_go_apart() -> None:
    adm = admission(b"hot")
    submit(adm, write(b"cold"), write(b"hot"), write(b"cool"))
    (clean,) = adm.close(0)
    assert keys(clean) == [b"cold", b"cool"]
    assert [(piece.first, piece.count) for piece in clean.pieces] == [(0, 1), (2, 1)]
    assert adm.wake_us() == 1_000
    (hot,) = adm.close(1_000)
    assert keys(hot) == [b"hot"] and [(piece.first, piece.count) for piece in hot.pieces] == [(1, 1)]
    assert adm.commands == 0 and adm.bytes == 0


def test_an_entangled_command_that_became_clean_joins_the_others() -> None:
    adm = admission(b"hot")
    submit(adm, write(b"hot"))
    assert adm.close(0) == []
    adm._entangled = blocked_keys()
    submit(adm, write(b"cold"), now_us=500)
    (outstanding,) = adm.close(500)
    assert keys(outstanding) == [b"hot", b"cold"]


def test_a_stream_keeps_its_order_across_a_command_that_stays() -> None:
    adm = admission(b"hot")
    submit(adm, write(b"hot", b"x"), stream=7)
    submit(adm, write(b"x"), stream=7)
    submit(adm, write(b"y"), stream=7)
    submit(adm, write(b"x"), stream=8)
    (clean,) = adm.close(0)
    assert keys(clean) == [b"y", b"x"], "stream 7's x waits behind its multi-key command; stream 8 does not"
    batches = adm.close(1_000)
    assert [keys(batch) for batch in batches] == [[b"hot", b"x"]]
    adm.decided(batches[0].batch.name)
    assert [keys(batch) for batch in adm.close(1_000)] == [[b"x"]]


def test_a_conflicting_command_of_the_stream_waits_until_its_predecessor_is_decided() -> None:
    adm = admission()
    submit(adm, write(b"k"), stream=1)
    (first,) = adm.close(0)
    submit(adm, write(b"k"), stream=1)
    submit(adm, write(b"k"), stream=2)
    submit(adm, read(b"other"), stream=1)
    (second,) = adm.close(0)
    assert keys(second) == [b"k", b"other"]
    assert [piece.stream for piece in second.pieces] == [2, 1]
    assert adm.decided(first.batch.name) is first
    assert adm.decided(first.batch.name) is None, "a decision counts once"
    (third,) = adm.close(0)
    assert keys(third) == [b"k"]


def test_a_barrier_stands_alone() -> None:
    adm = admission()
    submit(adm, write(b"a"), stream=1)
    waiter = Waiter()
    for stream in (2, 3):
        adm.submit(0, Submit(waiter, stream, barrier_run(), 1, FAR_US))
    batches = adm.close(0)
    assert [batch.batch.is_barrier for batch in batches] == [False, True]
    assert [batch.batch.is_barrier for batch in adm.close(0)] == [True]


def test_reads_go_apart_when_the_protocol_serves_them() -> None:
    adm = admission(reads_apart=True, credit=0)
    submit(adm, write(b"a"), read(b"a"), stream=1)
    submit(adm, read(b"b"), stream=2)
    (reads,) = adm.close(0)
    assert reads.read and keys(reads) == [b"b"]
    adm.credit = 1
    (writes,) = adm.close(0)
    assert not writes.read and keys(writes) == [b"a"]
    assert adm.close(0) == [], "the read of a waits for the write before it"
    adm.decided(writes.batch.name)
    (late,) = adm.close(0)
    assert late.read and keys(late) == [b"a"]


def test_unanswered_batches_of_reads_are_bounded_and_then_clients_are_told_busy() -> None:
    adm = admission(reads_apart=True, credit=0, window=2, pending_commands=1)
    sealed = []
    for stream in (1, 2, 3):
        submit(adm, read(b"a"), stream=stream)
        sealed += close(adm)
    assert len(sealed) == 2
    assert submit(adm, read(b"a"), stream=4).reason == "busy"
    adm.answered(sealed[0].batch.name)
    assert [len(outstanding.pieces) for outstanding in close(adm)] == [1]


def test_a_batch_is_bounded_in_commands_and_bytes() -> None:
    adm = admission(batch_commands=3)
    for stream in range(2):
        submit(adm, write(b"a"), write(b"b"), stream=stream)
    assert [count_commands(b.batch.data, HEADER.size) for b in adm.close(0)] == [2]
    assert adm.wake_us() == 0, "the rest goes in the next turn"
    assert len(adm.close(0)) == 1
    wide = admission(batch_bytes=1 << 25)
    for stream in range(3):
        submit(wide, write(*[b"k"] * 30_000), stream=stream)
    assert [len(keys(batch)) for batch in wide.close(0) + wide.close(0)] == [60_000, 30_000]
    small = admission(batch_bytes=100)
    for stream in range(5):
        submit(small, write(b"abcdefgh"), stream=stream)
    while batches := small.close(0):
        assert all(len(batch.batch.run) <= 100 for batch in batches)
    assert small.commands == 0


def test_refusals_say_that_nothing_was_applied() -> None:
    adm = admission(batch_commands=2, pending_commands=3)
    assert submit(adm, *[write(b"a")] * 3).reason == "too_large"
    submit(adm, write(b"a"), write(b"b"))
    assert submit(adm, write(b"a"), write(b"b")).reason == "busy"
    assert adm.commands == 2


def test_past_the_deadline_waiting_is_rejected_and_proposed_is_unknown() -> None:
    adm = admission(credit=1)
    proposed = submit(adm, write(b"a"), deadline_us=100)
    adm.close(0)
    waiting = submit(adm, write(b"b"), deadline_us=100)
    adm.expire(99)
    assert not proposed.failures and not waiting.failures
    adm.expire(100)
    assert isinstance(proposed.failures[0][2], Unknown)
    assert waiting.reason == "deadline"
    adm.credit = 1
    assert adm.close(100) == [] and adm.commands == 0, "what was rejected is never proposed"


def test_cancelled_commands_are_dropped_or_unheard() -> None:
    adm = admission()
    proposed = submit(adm, write(b"a"), deadline_us=50)
    (batch,) = adm.close(0)
    waiting = submit(adm, write(b"b"), deadline_us=50)
    adm.cancel(proposed)
    adm.cancel(waiting)
    assert adm.close(0) == [] and adm.commands == 0
    adm.expire(50)
    assert not proposed.failures and not waiting.failures
    assert adm.answered(batch.batch.name) is batch
    assert adm.answered(batch.batch.name) is None


def test_batches_of_others_and_of_earlier_lives_are_not_ours() -> None:
    adm = admission()
    submit(adm, write(b"a"))
    (batch,) = adm.close(0)
    assert adm.answered(batch.batch.name._replace(origin=2)) is None
    assert adm.answered(batch.batch.name._replace(incarnation=2)) is None
    assert adm.answered(batch.batch.name) is batch


def test_shutting_tells_everybody_what_is_known() -> None:
    adm = admission(credit=1)
    proposed = submit(adm, write(b"a"))
    adm.close(0)
    waiting = submit(adm, write(b"b"))
    adm.shut()
    assert isinstance(proposed.failures[0][2], Unknown)
    assert waiting.reason == "closed"


# ------------------------------------------------------------------------------------------- the window of a busy key


def close(adm: Admission) -> list[Outstanding]:
    """One more batch, long after everything in it has arrived."""
    return adm.close(FAR_US // 2)


def test_a_busy_key_has_so_many_batches_under_way_and_what_waits_travels_together() -> None:
    adm = admission(b"hot", entangled_window=2, batch_inflight=64)
    sealed = []
    for stream in (8, 9):
        submit(adm, write(b"hot"), stream=stream)
        sealed += close(adm)
    for stream in (1, 2, 3):
        submit(adm, write(b"hot"), stream=stream)
    assert len(sealed) == 2 and close(adm) == []
    adm.decided(sealed[0].batch.name)
    assert close(adm) == [], "decided is not executed: it may still come to depend on what follows"
    adm.answered(sealed[0].batch.name)
    (outstanding,) = close(adm)
    assert keys(outstanding) == [b"hot"] * 3
    assert adm.commands == 0 and adm.bytes == 0


def test_the_window_of_one_busy_key_holds_back_no_other() -> None:
    adm = admission(b"hot", b"warm", entangled_window=1, batch_inflight=64)
    submit(adm, write(b"hot"))
    close(adm)
    submit(adm, write(b"hot"))
    submit(adm, write(b"warm"))
    submit(adm, write(b"cold"))
    assert sorted(key for outstanding in close(adm) for key in keys(outstanding)) == [b"cold", b"warm"]


def test_what_a_stream_said_stays_in_order_around_a_full_window() -> None:
    hot = {b"hot"}

    def entangled(packed: bytes) -> bytes:
        return bytes(any(entry.key in hot for entry in command) for command in decode_run(packed))

    adm = Admission(me=1, incarnation=3, limits=Limits(entangled_window=1), entangled=entangled, reads_apart=False)
    adm.credit = 100
    submit(adm, write(b"hot"))
    (first,) = close(adm)
    submit(adm, write(b"hot", b"a"), stream=7)
    assert close(adm) == []
    submit(adm, write(b"a"), stream=7)
    submit(adm, write(b"a"), stream=8)
    (other,) = close(adm)
    assert [piece.stream for piece in other.pieces] == [8], "stream 7 said hot first"
    adm.answered(first.batch.name)
    hot.clear()
    (both,) = close(adm)
    assert keys(both) == [b"hot", b"a", b"a"]


def test_barriers_have_a_window_too() -> None:
    adm = admission(entangled_window=1)
    for stream in (1, 2):
        adm.submit(0, Submit(Waiter(), stream, barrier_run(), 1, FAR_US))
    (first,) = close(adm)
    assert close(adm) == []
    adm.answered(first.batch.name)
    assert len(close(adm)) == 1


def test_who_waits_for_the_window_is_told_when_he_leaves_when_it_is_late_and_when_the_replica_goes() -> None:
    adm = admission(b"hot", entangled_window=1)
    submit(adm, write(b"hot"))
    (first,) = close(adm)
    leaves = submit(adm, write(b"hot"), stream=2)
    late = submit(adm, write(b"hot"), stream=3, deadline_us=5)
    stays = submit(adm, write(b"hot"), stream=4)
    assert close(adm) == []
    adm.cancel(leaves)
    adm.expire(5)
    assert late.reason == "deadline" and leaves.failures == []
    adm.shut()
    assert stays.reason == "closed"
    adm.answered(first.batch.name)
    assert close(adm) == [] and adm.commands == 0
