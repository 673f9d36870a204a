"""The session table alone: windows, results, floors, FIFO, ends; as a function of the order of conflicting commands."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from epaxos.command import READ, Entry
from epaxos.errors import ProtocolError, Rejected, Unknown
from epaxos.execution.sessions import NumberSet, Sessions
from epaxos.machines.kv import Op
from epaxos.packing import decode_run, encode_run
from epaxos.session import (
    RESULT_BYTES,
    WINDOW,
    Ended,
    Numbers,
    Opening,
    SessionId,
    Stamp,
    end_run,
    ended_in,
    open_run,
    stamped,
)

SECRET = bytes(16)
S = SessionId(1, 2, 3)
WRITE = (Entry(Op.SET, 0, b"k", b"v"),)
QUERY = (Entry(Op.GET, READ, b"k", b""),)


def table(*, fifo: bool = False) -> Sessions:
    sessions = Sessions()
    sessions.open(Opening(S, fifo))
    return sessions


def execute(sessions: Sessions, number: int, floor: int = 0, *, fifo: bool = False) -> object:
    """The outcome of a command whose result is its number, as text."""
    stamp = Stamp(S, number, floor, fifo)
    outcome = sessions.judge(stamp)
    if outcome is not None:
        return outcome
    sessions.keep(stamp, b"%d" % number)
    return b"%d" % number


# ------------------------------------------------------------------------------------------------------ exactly once


def test_a_number_takes_effect_once_and_its_result_is_given_again() -> None:
    sessions = table()
    assert sessions.judge(Stamp(S, 1, 0)) is None
    sessions.keep(Stamp(S, 1, 0), b"first")
    assert sessions.judge(Stamp(S, 1, 0)) == b"first"


def test_a_later_number_that_executes_first_does_not_void_an_earlier_one() -> None:
    """S25: the client has the outcome of 3 and 4 from another replica, and this one executes 5 first."""
    sessions = table()
    assert execute(sessions, 5, floor=4) == b"5"
    assert sessions.judge(Stamp(S, 3, 2)) is None, "a floor says nothing about what was executed here"
    sessions.keep(Stamp(S, 3, 2), b"3")
    assert isinstance(sessions.judge(Stamp(S, 3, 2)), Unknown), "executed, and its result is of no use any more"


def test_a_session_that_was_never_opened_or_has_ended_voids_its_commands() -> None:
    """S42: a straggler whose retry was applied must not be applied when it arrives after the end."""
    outcome = Sessions().judge(Stamp(S, 7, 0))
    assert isinstance(outcome, Rejected) and outcome.reason == "session_closed"
    sessions = table()
    execute(sessions, 7)
    sessions.end([Ended(S, None)])
    assert isinstance(sessions.judge(Stamp(S, 7, 0)), Rejected)
    assert len(sessions) == 0


def test_an_expiry_is_void_when_the_session_went_on() -> None:
    sessions = table()
    execute(sessions, 1)
    execute(sessions, 2)
    sessions.end([Ended(S, 1)])
    assert S in sessions
    sessions.end([Ended(S, 2)])
    assert S not in sessions


def test_results_above_the_floor_are_kept_and_no_others() -> None:
    sessions = table()
    for number in range(1, 6):
        execute(sessions, number)
    execute(sessions, 6, floor=4)
    assert isinstance(sessions.judge(Stamp(S, 4, 0)), Unknown)
    assert sessions.judge(Stamp(S, 5, 0)) == b"5"


def test_a_long_result_is_not_kept_and_its_command_takes_effect_once_all_the_same() -> None:
    for size, kept in ((RESULT_BYTES, True), (RESULT_BYTES + 1, False)):
        sessions = table()
        assert sessions.judge(Stamp(S, 1, 0)) is None
        sessions.keep(Stamp(S, 1, 0), bytes(size))
        assert isinstance(sessions.judge(Stamp(S, 1, 0)), bytes if kept else Unknown)
        assert len(sessions.save()) <= RESULT_BYTES + 100


@given(st.permutations([(1, 0), (2, 0), (3, 1), (4, 0), (5, 3), (6, 2)]))
def test_the_table_does_not_depend_on_the_order_of_commands_that_do_not_conflict(order: list[tuple[int, int]]) -> None:
    sessions, sorted_ = table(), table()
    for number, floor in order:
        execute(sessions, number, floor)
    for number, floor in sorted(order):
        execute(sorted_, number, floor)
    assert sessions.save() == sorted_.save()


# --------------------------------------------------------------------------------------------------------------- FIFO


def test_a_fifo_session_takes_numbers_in_order_only() -> None:
    sessions = table(fifo=True)
    outcome = execute(sessions, 2, fifo=True)
    assert isinstance(outcome, Rejected) and outcome.reason == "out_of_order"
    assert [execute(sessions, number, fifo=True) for number in (1, 2, 2, 3)] == [b"1", b"2", b"2", b"3"]


@pytest.mark.parametrize("fifo", [True, False])
def test_a_stamp_of_the_other_kind_is_void(fifo: bool) -> None:
    outcome = execute(table(fifo=fifo), 1, fifo=not fifo)
    assert isinstance(outcome, Rejected) and outcome.reason == "malformed"


# --------------------------------------------------------------------------------------------------------- saved, read


def test_a_saved_table_is_loaded_as_it_was() -> None:
    sessions = table()
    for number in (1, 2, 5, 9):
        execute(sessions, number, floor=1)
    loaded = Sessions()
    loaded.load(sessions.save())
    assert loaded.save() == sessions.save()
    assert loaded.digest() == sessions.digest() != Sessions().digest()
    assert loaded.judge(Stamp(S, 5, 1)) == b"5"
    assert loaded.judge(Stamp(S, 3, 1)) is None


@given(st.lists(st.integers(1, 40), unique=True))
def test_a_set_of_numbers_is_its_intervals(numbers: list[int]) -> None:
    found = NumberSet()
    for number in numbers:
        found.add(number)
    assert [number for number in range(42) if number in found] == sorted(numbers)
    assert found.last == max(numbers, default=0)
    assert all(high + 1 < low for (_, high), (low, _) in itertools.pairwise(found.intervals()))


# -------------------------------------------------------------------------------------------------------- in the log


def test_a_stamp_is_one_more_entry() -> None:
    run = encode_run(SECRET, [stamped(WRITE, Stamp(S, 3, 1)), WRITE])
    first, second = decode_run(run)
    assert first[:-1] == second == WRITE
    assert first[-1].flags == READ and SessionId.of_key(first[-1].key) == S


@pytest.mark.parametrize(
    ("command", "stamp", "words"),
    [
        (WRITE, Stamp(S, 0, 0), "not within"),
        (WRITE, Stamp(S, 3, 3), "not within"),
        (WRITE, Stamp(S, WINDOW + 1, 0), "not within"),
        (QUERY, Stamp(S, 1, 0), "only reads"),
    ],
)
def test_what_cannot_be_stamped_is_refused(command: tuple[Entry, ...], stamp: Stamp, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        stamped(command, stamp)


def test_a_query_has_a_place_in_a_fifo_session() -> None:
    assert stamped(QUERY, Stamp(S, 1, 0, fifo=True))[-1].flags == 0


def test_sessions_have_names_that_can_be_written_down() -> None:
    assert SessionId.parse(str(S)) == S
    for text in ("", "1.2", "1.2.x", "70000.1.1", "1.2.3.4"):
        with pytest.raises(ValueError):
            SessionId.parse(text)
    for key in (b"", b"\x00session", b"another" + bytes(19)):
        with pytest.raises(ProtocolError, match="not the key of a session"):
            SessionId.of_key(key)


def test_a_barrier_names_what_it_ends() -> None:
    ended = [Ended(S, None), Ended(SessionId(0, 1, 9), 4)]
    (command,) = decode_run(end_run(ended))
    assert ended_in(command[0].payload) == ended
    assert ended_in(b"") == []
    with pytest.raises(ProtocolError, match="does not name sessions"):
        ended_in(b"\x81\x01")


def test_an_opening_writes_the_key_that_commands_read() -> None:
    (command,) = decode_run(open_run(SECRET, S, fifo=True))
    assert command[0].key == S.key and not command[0].flags & READ


# ------------------------------------------------------------------------------------------------- the client's part


def test_numbers_are_given_out_once_and_the_floor_follows_what_is_done() -> None:
    numbers = Numbers()
    assert [numbers.take() for _ in range(3)] == [1, 2, 3]
    assert numbers.floor == 0
    numbers.done(2)
    assert numbers.floor == 0
    numbers.done(1)
    assert numbers.floor == 2
    numbers.done(3)
    assert (numbers.floor, numbers.last) == (3, 3)


def test_a_window_of_numbers_is_open_at_most() -> None:
    numbers = Numbers()
    for _ in range(WINDOW):
        numbers.take()
    with pytest.raises(Rejected, match="in use"):
        numbers.take()
    numbers.done(1)
    assert numbers.take() == WINDOW + 1
