"""The key-value machine, in both twins: what Redis answers, byte for byte, and a state that travels."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from epaxos.command import OPTION_4, READ, Batch, Command, Entry
from epaxos.errors import ProtocolError, StorageError
from epaxos.gateway.commands import plan
from epaxos.gateway.items import Local, ParseLimits, Refused
from epaxos.ids import BatchNumber
from epaxos.limits import LimitsConfig
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import INCREMENT, SET_GET, SET_NX, SET_XX, Kv, Op, PyKv
from epaxos.machines.saved import CHUNK_BYTES, save_records
from epaxos.machines.store import MAX_VALUE_BYTES
from epaxos.packing import encode_run

SECRET = bytes(16)
LIMITS = ParseLimits.of(LimitsConfig())
Machine = Callable[[], Any]

TWINS = [pytest.param(PyKv, id="pure")]
if importlib.util.find_spec("epaxos._ext.kv"):
    TWINS.append(pytest.param(importlib.import_module("epaxos._ext.kv").Kv, id="compiled"))
both = pytest.mark.parametrize("machine", TWINS)


def batch(*commands: Command) -> Batch:
    return Batch.of(BatchNumber(0, 1, 1), encode_run(SECRET, commands))


def command(text: str) -> Command:
    planned = plan([word.encode() for word in text.split(" ")], LIMITS)
    assert not isinstance(planned, Local | Refused)
    return planned


def ask(kv: Any, *texts: str) -> list[bytes]:
    """The reply to each command, applied as one batch."""
    replies: list[bytes] = kv.apply_batch(batch(*map(command, texts)), [1] * len(texts))
    return replies


@both
def test_every_twin_is_a_machine(machine: Machine) -> None:
    assert isinstance(Kv(), BatchMachine)
    assert len(machine()) == 0


# What Redis 7.0.15 answered to each of these in turn.
CONVERSATION = [
    ("get k", b"$-1\r\n"),
    ("set k v", b"+OK\r\n"),
    ("get k", b"$1\r\nv\r\n"),
    ("set k w nx", b"$-1\r\n"),
    ("set k w xx", b"+OK\r\n"),
    ("set none w xx", b"$-1\r\n"),
    ("set k x get", b"$1\r\nw\r\n"),
    ("set k y nx get", b"$1\r\nx\r\n"),
    ("set new y nx get", b"$-1\r\n"),
    ("set none y xx get", b"$-1\r\n"),
    ("mget k new none k", b"*4\r\n$1\r\nx\r\n$1\r\ny\r\n$-1\r\n$1\r\nx\r\n"),
    ("setnx k z", b":0\r\n"),
    ("setnx fresh z", b":1\r\n"),
    ("getset fresh q", b"$1\r\nz\r\n"),
    ("getset other q", b"$-1\r\n"),
    ("exists k none k fresh", b":3\r\n"),
    ("del k none k fresh", b":2\r\n"),
    ("exists k", b":0\r\n"),
    ("incr n", b":1\r\n"),
    ("incrby n 41", b":42\r\n"),
    ("decr n", b":41\r\n"),
    ("decrby n 100", b":-59\r\n"),
    ("get n", b"$3\r\n-59\r\n"),
    ("incr other", b"-ERR value is not an integer or out of range\r\n"),
    ("append n 0", b":4\r\n"),
    ("incr n", b":-589\r\n"),
    ("append a hello", b":5\r\n"),
    ("append a world", b":10\r\n"),
    ("strlen a", b":10\r\n"),
    ("strlen none", b":0\r\n"),
    ("mset a 1 b 2 a 3", b"+OK\r\n"),
    ("mget a b", b"*2\r\n$1\r\n3\r\n$1\r\n2\r\n"),
]


@both
def test_redis_says_the_same(machine: Machine) -> None:
    kv = machine()
    assert ask(kv, *(text for text, _ in CONVERSATION)) == [reply for _, reply in CONVERSATION]


@both
@pytest.mark.parametrize(
    ("value", "increment", "reply"),
    [
        (b"9223372036854775806", 1, b":9223372036854775807\r\n"),
        (b"9223372036854775807", 1, b"-ERR increment or decrement would overflow\r\n"),
        (b"-9223372036854775808", -1, b"-ERR increment or decrement would overflow\r\n"),
        (b"-9223372036854775807", -1, b":-9223372036854775808\r\n"),
        (b"-9223372036854775808", 9223372036854775807, b":-1\r\n"),
        (b"0", -(1 << 63), b":-9223372036854775808\r\n"),
        (b"9223372036854775807", -(1 << 63), b":-1\r\n"),
        (b"-1", -(1 << 63), b"-ERR increment or decrement would overflow\r\n"),
        (b"", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b" 5", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"5 ", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"+5", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"05", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"-0", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"-", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"1.0", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"9223372036854775808", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"-9223372036854775809", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"99999999999999999999", 1, b"-ERR value is not an integer or out of range\r\n"),
        (b"-9999999999999999999", 1, b"-ERR value is not an integer or out of range\r\n"),
    ],
)
def test_integers_are_64_bits_in_one_form(machine: Machine, value: bytes, increment: int, reply: bytes) -> None:
    kv = machine()
    kv.apply_batch(batch((Entry(Op.SET, 0, b"k", value),)), [])
    assert kv.apply_batch(batch((Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(increment)),)), [1]) == [reply]
    assert kv.get(b"k") == (reply[1:-2] if reply.startswith(b":") else value)


@both
def test_keys_and_values_are_any_bytes(machine: Machine) -> None:
    kv = machine()
    entries = [(b"", b""), (b"\0\r\n", b"\r\n$1"), (bytes(range(256)), bytes(70_000))]
    kv.apply_batch(batch(*((Entry(Op.SET, 0, key, value),) for key, value in entries)), [])
    for key, value in entries:
        assert kv.get(key) == value
        (reply,) = kv.apply_batch(batch((Entry(Op.GET, READ, key, b""),)), [1])
        assert reply == b"$%d\r\n%b\r\n" % (len(value), value)
    assert len(kv) == 3


@both
def test_replies_are_joined_by_span(machine: Machine) -> None:
    kv = machine()
    texts = ("set a 1", "incr a", "get a", "get b", "del a b", "mget a b")
    assert kv.apply_batch(batch(*map(command, texts)), [2, 0, 3, 1]) == [
        b"+OK\r\n:2\r\n",
        b"",
        b"$1\r\n2\r\n$-1\r\n:1\r\n",
        b"*2\r\n$-1\r\n$-1\r\n",
    ]


@both
def test_the_state_is_the_same_when_nobody_waits(machine: Machine) -> None:
    heard, unheard = machine(), machine()
    texts = [text for text, _ in CONVERSATION]
    ask(heard, *texts)
    assert unheard.apply_batch(batch(*map(command, texts)), []) == []
    assert unheard.digest() == heard.digest() != machine().digest()


@both
def test_spans_must_add_up(machine: Machine) -> None:
    kv = machine()
    for spans in ([1], [3]):
        with pytest.raises(ValueError, match=f"{spans[0]} commands are waited for, of 2 in the batch"):
            kv.apply_batch(batch(command("set a 1"), command("set b 1")), spans)
    assert len(kv) == 0


@both
def test_what_nobody_knows_is_answered_alike(machine: Machine) -> None:
    kv = machine()
    assert kv.apply_batch(batch((Entry(0xE2, 0, b"k", b"v"),), (Entry(0, 0, b"k", b""),)), [1, 1]) == [
        b"-ERR unknown operation 0xe2\r\n",
        b"-ERR unknown operation 0x00\r\n",
    ]
    assert kv.apply_batch(batch((Entry(Op.INCRBY, 0, b"k", b"1"),)), [1]) == [
        b"-ERR value is not an integer or out of range\r\n"
    ]
    assert len(kv) == 0


@both
def test_a_value_that_grows_has_a_bound(machine: Machine) -> None:
    kv = machine()
    kv.apply_batch(batch((Entry(Op.APPEND, 0, b"k", bytes(MAX_VALUE_BYTES - 1)),)), [])
    assert ask(kv, "append k x", "append k x", "strlen k") == [
        b":%d\r\n" % MAX_VALUE_BYTES,
        b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        b":%d\r\n" % MAX_VALUE_BYTES,
    ]


@both
def test_an_unsound_batch_changes_nothing(machine: Machine) -> None:
    kv = machine()
    sound = batch(command("set a 1"), command("set b 2"))
    bent = bytearray(sound.data)
    bent[24 + 8 + 16 + 8] = 0xFF  # the second entry begins far behind the body
    with pytest.raises(ProtocolError):
        kv.apply_batch(Batch(bytes(bent)), [])
    assert len(kv) == 0


@both
def test_a_saved_state_is_canonical_and_cut_in_bounded_chunks(machine: Machine) -> None:
    one, two, three = machine(), machine(), machine()
    texts = [f"set key{i} {'x' * (i * 37 % 5000)}" for i in range(300)]
    ask(one, *texts)
    ask(two, *reversed(texts))
    chunks = list(one.save())
    assert chunks == list(two.save())
    assert [len(chunk) for chunk in chunks[:-1]] == [CHUNK_BYTES] * (len(chunks) - 1)
    assert 0 < len(chunks[-1]) <= CHUNK_BYTES
    three.load(iter(chunks))
    assert three.digest() == one.digest()
    assert ask(three, "get key7") == ask(one, "get key7")


@both
def test_a_saved_state_loads_however_it_is_cut(machine: Machine) -> None:
    one, two = machine(), machine()
    ask(one, "mset a 1 b 2 c 3")
    whole = b"".join(one.save())
    two.load(whole[i : i + 1] for i in range(len(whole)))
    assert two.digest() == one.digest()
    two.load(machine().save())
    assert len(two) == 0


@both
def test_a_saved_state_is_of_its_moment(machine: Machine) -> None:
    kv, copy = machine(), machine()
    ask(kv, "set a 1", "set b 1")
    chunks = kv.save()
    ask(kv, "set a 2", "del b", "set c 2")
    copy.load(chunks)
    assert ask(copy, "mget a b c") == [b"*3\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n"]


@both
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "ends in the middle"),
        (lambda whole: whole[:5], "ends in the middle"),
        (lambda whole: whole + b"x", "does not hold the 2 keys"),
        (lambda whole: b"y" + whole[1:], "not one of the key-value machine"),
        (lambda whole: b"".join(save_records([(b"a", 0, b""), (b"a", 0, b"")])), "does not hold the 2 keys"),
    ],
)
def test_a_damaged_state_is_refused_and_the_old_one_kept(
    machine: Machine, damage: Callable[[bytes], bytes], message: str
) -> None:
    one, two = machine(), machine()
    ask(one, "mset a 1 b 2")
    ask(two, "set old 1")
    with pytest.raises(StorageError, match=message):
        two.load([damage(b"".join(one.save()))])
    assert two.get(b"old") == b"1"


KEYS = st.sampled_from([b"", b"a", b"b", b"\xff" * 40])
PAYLOADS = st.one_of(
    st.binary(max_size=9),
    st.integers(-(1 << 63), (1 << 63) - 1).map(INCREMENT.pack),
    st.sampled_from([1 << 63, (1 << 63) - 1, -(1 << 63), -(1 << 63) - 1, 0, 7]).map(lambda value: b"%d" % value),
)
OPERATIONS = st.sampled_from([*Op, *Op, Op.INCRBY, Op.SET, 0x00, 0x7F])
FLAGS = st.sampled_from([0, 0, READ, SET_NX, SET_XX, SET_GET, SET_NX | SET_GET, SET_NX | SET_XX, OPTION_4])
COMMANDS = st.lists(st.builds(Entry, OPERATIONS, FLAGS, KEYS, PAYLOADS), min_size=1, max_size=4).map(tuple)


@given(st.lists(st.lists(COMMANDS, min_size=1, max_size=8), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_the_twins_are_one_machine(batches: list[list[Command]]) -> None:
    machines = [parameter.values[0]() for parameter in TWINS]  # type: ignore[operator]  # each is a class
    for commands in batches:
        packed = batch(*commands)
        answers = [kv.apply_batch(packed, [1] * len(commands)) for kv in machines]
        assert all(answer == answers[0] for answer in answers)
        assert len({kv.digest() for kv in machines}) == 1
