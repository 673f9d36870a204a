"""The key-value machine beyond strings, in both twins: types, all keys at once, transactions, a state that travels.

What each command answers is held against Redis elsewhere (`tests/field/test_redis.py`); here the twins are held against
each other, and a state against what it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from epaxos.command import READ, Command, Entry
from epaxos.errors import StorageError
from epaxos.gateway.commands import plan
from epaxos.machines.glob import matcher
from epaxos.machines.kv import OPERATIONS, Op
from epaxos.machines.numbers import format_float, parse_float
from epaxos.machines.operations import MALFORMED, pack_words, unpack_words
from epaxos.machines.saved import save_records
from epaxos.machines.store import MAX_MARKS
from epaxos.machines.transactions import exec_command
from tests.field.redis_stream import Stream
from tests.unit.test_kv import LIMITS, TWINS, Machine, batch, both

ALICE, BOB = b"a" * 16, b"b" * 16


def command(*words: bytes) -> Command | None:
    planned = plan(words, LIMITS)
    return planned if type(planned) is tuple else None


def ask(kv: Any, *texts: str) -> list[bytes]:
    commands = [each for text in texts if (each := command(*text.encode().split(b" ")))]
    assert len(commands) == len(texts)
    replies: list[bytes] = kv.apply_batch(batch(*commands), [1] * len(commands))
    return replies


def apply(kv: Any, packed: Command) -> bytes:
    (reply,) = kv.apply_batch(batch(packed), [1])
    assert isinstance(reply, bytes)
    return reply


def random_commands(seed: int, count: int) -> list[Command]:
    stream = Stream(seed)
    return [each for each in (command(*stream.next()) for _ in range(count)) if each]


@pytest.mark.parametrize("seed", range(2))
def test_the_twins_agree_on_commands_of_all_types(seed: int) -> None:
    machines = [parameter.values[0]() for parameter in TWINS]  # type: ignore[operator]  # each is a class
    commands = random_commands(seed, 1000)
    for at in range(0, len(commands), 100):
        packed = batch(*commands[at : at + 100])
        answers = [kv.apply_batch(packed, [1] * len(commands[at : at + 100])) for kv in machines]
        assert all(answer == answers[0] for answer in answers)
        assert len({kv.digest() for kv in machines}) == 1


@both
def test_a_saved_state_has_every_type(machine: Machine) -> None:
    one, two = machine(), machine()
    for each in random_commands(5, 1000):
        one.apply_batch(batch(each), [])
    apply(one, (Entry(Op.WATCH, 0, b"h1", pack_words([ALICE])), Entry(Op.WATCH, 0, b"none", b"")))
    whole = b"".join(one.save())
    two.load(whole[at : at + 7] for at in range(0, len(whole), 7))
    assert two.digest() == one.digest()
    for each in random_commands(6, 200):
        packed = batch(each)
        assert two.apply_batch(packed, [1]) == one.apply_batch(packed, [1])
    assert two.digest() == one.digest()


@both
def test_a_saved_state_is_of_its_moment_in_every_type(machine: Machine) -> None:
    kv, copy = machine(), machine()
    ask(kv, "hset h a 1", "sadd s a", "rpush l a")
    chunks = kv.save()
    ask(kv, "hset h b 2", "sadd s b", "rpush l b")
    copy.load(chunks)
    assert ask(copy, "hlen h", "scard s", "llen l") == [b":1\r\n"] * 3


@both
@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((b"k", 9, pack_words([b"a"])), "of kind 9"),
        ((b"k", 1, pack_words([b"a"])), "of kind 1"),
        ((b"k", 2, b"\x05\x00"), "unsound value"),
        ((b"k", 3, b""), "unsound value"),
    ],
)
def test_an_unsound_state_is_refused(machine: Machine, record: tuple[bytes, int, bytes], message: str) -> None:
    kv = machine()
    with pytest.raises(StorageError, match=message):
        kv.load(save_records([record]))


@both
def test_a_value_without_content_is_gone(machine: Machine) -> None:
    kv = machine()
    ask(kv, "hset h a 1", "sadd s a b", "rpush l a b", "rpush m a", "lpush n a")
    ask(kv, "hdel h a", "srem s a b", "lpop l 5", "ltrim m 5 9", "rpop n")
    assert len(kv) == 0
    assert kv.digest() == machine().digest()


# --------------------------------------------------------------------------------------------------------- all keys


def scan(kv: Any, count: int) -> list[bytes]:
    """Every key, page by page."""
    cursor, found = b"0", []
    while True:
        reply = ask(kv, f"scan {cursor.decode()} count {count}")[0].split(b"\r\n")
        cursor, keys = reply[2], reply[5::2]
        found += keys
        assert len(keys) <= count
        if cursor == b"0":
            return found


@both
def test_a_scan_returns_every_key_once(machine: Machine) -> None:
    kv = machine()
    keys = [f"k{i}" for i in range(500)]
    ask(kv, *(f"set {key} v" for key in keys))
    assert sorted(scan(kv, 7)) == sorted(scan(kv, 1000)) == sorted(key.encode() for key in keys)


@both
def test_a_scan_returns_what_was_there_all_the_time(machine: Machine) -> None:
    kv = machine()
    ask(kv, *(f"set k{i} v" for i in range(300)))
    cursor, found, turn = b"0", [], 0
    while turn == 0 or cursor != b"0":
        reply = ask(kv, f"scan {cursor.decode()} count 10")[0].split(b"\r\n")
        cursor, keys = reply[2], reply[5::2]
        found += keys
        turn += 1
        ask(kv, f"del k{turn}", f"set new{turn} v", f"rename k{100 + turn} moved{turn}", f"set k{turn} again")
    lasting = {b"k%d" % i for i in range(300) if not 0 < i <= turn and not 100 < i <= 100 + turn}
    assert lasting <= set(found) and len(found) == len(set(found))


@both
def test_the_order_of_keys_is_a_function_of_the_keys(machine: Machine) -> None:
    one, two = machine(), machine()
    keys = [f"k{i}" for i in range(200)]
    ask(one, *(f"set {key} v" for key in keys))
    scan(one, 50)
    ask(one, "del k7 k8", "set k8 v", "set late v")
    ask(two, *(f"set {key} v" for key in reversed([*keys, "late"])), "del k7")
    assert scan(one, 13) == scan(two, 50)
    assert ask(one, "randomkey") == ask(two, "randomkey")
    ask(one, "flushall")
    assert scan(one, 10) == [] and ask(one, "randomkey", "dbsize") == [b"$-1\r\n", b":0\r\n"]


@pytest.mark.parametrize(
    ("pattern", "matched", "missed"),
    [
        (b"*", [b"", b"abc"], []),
        (b"**", [b"a"], [b""]),
        (b"", [b""], [b"a"]),
        (b"a*c", [b"ac", b"abbc"], [b"acb", b"c"]),
        (b"?", [b"a"], [b"", b"ab"]),
        (b"[a-c]x", [b"ax", b"cx"], [b"dx", b"x"]),
        (b"[c-a]x", [b"bx"], [b"dx"]),
        (b"[^a-c]x", [b"dx"], [b"ax"]),
        (b"[ab", [b"a", b"b"], [b"c"]),
        (b"[]x", [], [b"x", b"]x"]),
        (b"[\\]]x", [b"]x"], [b"\\x"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"*a*b*", [b"ab", b"xaxbx"], [b"ba"]),
        (b"[\x80-a]", [b"\x80", b"\xff", b"\0", b"a"], [b"b", b"\x7f"]),
        (b"[\x7f-\x80]", [b"a", b"\x80", b"\xff"], []),
    ],
)
def test_patterns(pattern: bytes, matched: list[bytes], missed: list[bytes]) -> None:
    matches = matcher(pattern)
    assert all(map(matches, matched)) and not any(map(matches, missed))


def test_a_pattern_of_many_stars_is_matched_in_bounded_time() -> None:
    assert not matcher(b"a*" * 200 + b"b")(b"a" * 2000)


# ------------------------------------------------------------------------------------------------------ transactions


def exec_(watcher: bytes, watched: Sequence[bytes], *texts: str) -> Command:
    queued = [each for text in texts if (each := command(*text.encode().split(b" ")))]
    return exec_command(Op.EXEC, Op.WATCH, watcher, watched, queued)


def watch(watcher: bytes, *keys: bytes, op: Op = Op.WATCH) -> Command:
    return tuple(Entry(op, 0, key, b"" if i else pack_words([watcher])) for i, key in enumerate(keys))


@both
def test_a_transaction_is_one_command(machine: Machine) -> None:
    kv = machine()
    reply = apply(kv, exec_(ALICE, (), "set a 1", "mget a b", "incr a", "lpush a x", "dbsize"))
    wrong_type = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    assert reply == b"*5\r\n+OK\r\n*2\r\n$1\r\n1\r\n$-1\r\n:2\r\n" + wrong_type + b":1\r\n"


@both
@pytest.mark.parametrize(
    "between",
    ["set k 2", "set k 1", "del k", "append k x", "incr k", "rename k o", "rename o k", "flushall", "mset j 1 k 2"],
)
def test_what_was_watched_and_changed_refuses_the_transaction(machine: Machine, between: str) -> None:
    kv = machine()
    ask(kv, "set k 1", "set o 1")
    assert apply(kv, watch(ALICE, b"k", b"other")) == apply(kv, watch(BOB, b"other")) == b"+OK\r\n"
    ask(kv, between)
    before = kv.digest()
    assert apply(kv, exec_(ALICE, (b"k", b"other"), "set done 1")) == b"*-1\r\n"
    assert ask(kv, "exists done") == [b":0\r\n"] and kv.digest() != before, "its marks went, and nothing else"
    assert apply(kv, exec_(BOB, (b"other",), "set done 1")) == b"*1\r\n+OK\r\n"


@both
@pytest.mark.parametrize("between", ["get k", "set other 1", "setnx k 2", "lpush k x", "del none", "incrby k x"])
def test_what_was_watched_and_not_changed_does_not(machine: Machine, between: str) -> None:
    kv = machine()
    ask(kv, "set k 1")
    apply(kv, watch(ALICE, b"k"))
    if planned := command(*between.encode().split(b" ")):
        apply(kv, planned)
    assert apply(kv, exec_(ALICE, (b"k", b"k"), "get k")) == b"*1\r\n$1\r\n1\r\n"
    assert apply(kv, exec_(ALICE, (b"k",), "get k")) == b"*-1\r\n", "the marks of one EXEC are not those of the next"


@both
def test_marks_can_be_taken_away_and_have_a_bound(machine: Machine) -> None:
    kv = machine()
    apply(kv, watch(ALICE, b"k"))
    apply(kv, watch(ALICE, b"k", b"none", op=Op.UNWATCH))
    assert kv.digest() == machine().digest()
    for i in range(MAX_MARKS + 1):
        apply(kv, watch(b"%16d" % i, b"k"))
    assert apply(kv, exec_(b"%16d" % 0, (b"k",), "get k")) == b"*-1\r\n"
    assert apply(kv, exec_(b"%16d" % 1, (b"k",), "get k")) == b"*1\r\n$-1\r\n"


@both
def test_a_malformed_transaction_changes_nothing(machine: Machine) -> None:
    kv = machine()
    sound = exec_(ALICE, (), "set a 1", "set b 1")
    inner = exec_command(Op.EXEC, Op.WATCH, ALICE, (), [sound])
    bent = [
        sound[:-1],
        (sound[0]._replace(payload=b""), *sound[1:]),
        (sound[0]._replace(payload=sound[0].payload + b"\0\0\0\0"), *sound[1:]),
        (sound[0]._replace(payload=sound[0].payload + b"\0"), *sound[1:]),
        inner,
    ]
    assert [apply(kv, each) for each in bent] == [MALFORMED] * len(bent)
    assert len(kv) == 0


# ------------------------------------------------------------------------------------------------- whatever is packed


WORDS = st.lists(st.binary(max_size=6) | st.integers(-9, 9).map(lambda n: b"%d" % n), max_size=4).map(pack_words)
ENTRIES = st.builds(
    Entry, st.sampled_from([*OPERATIONS, Op.EXEC]), st.just(0), st.sampled_from([b"", b"a", b"b"]), WORDS | st.binary()
)


@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_no_command_stops_the_machine(commands: list[Command]) -> None:
    machines = [parameter.values[0]() for parameter in TWINS]  # type: ignore[operator]  # each is a class
    packed = batch(*commands)
    answers = [kv.apply_batch(packed, [1] * len(commands)) for kv in machines]
    assert all(answer == answers[0] for answer in answers)
    assert len({kv.digest() for kv in machines}) == 1
    assert all(value or isinstance(value, bytes) for value in machines[0].store.values.values())


@given(st.lists(st.binary()))
def test_words_come_out_as_they_went_in(words: list[bytes]) -> None:
    assert unpack_words(pack_words(words)) == words


def test_numbers_of_any_length_are_read_and_written() -> None:
    for text in (b"1" + b"0" * 4932, b"9" * 4900, b"0" * 5000 + b"7", b"1e4932"):
        value = parse_float(text)
        assert value is not None
        assert parse_float(format_float(value)) == value
    assert parse_float(b"1e" + b"9" * 5000) is None is parse_float(b"1" * 6000)
    assert parse_float(b"0e" + b"9" * 5000) == 0
    assert parse_float(b"0x" + b"f" * 5000 + b"p-20000") == 1
    assert parse_float(b"0x" + b"f" * 5000) is None is parse_float(b"0x1p" + b"9" * 5000)


def test_a_read_is_one_that_says_so() -> None:
    assert command(b"hget", b"h", b"f") == (Entry(Op.HGET, READ, b"h", pack_words([b"f"])),)
