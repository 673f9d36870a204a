"""The table of commands: what each becomes, and what Redis answers to the wrong ones."""

from __future__ import annotations

import pytest

from epaxos.command import CONT, MAX_ENTRIES, MAX_KEY_BYTES, READ, RESERVED, WHOLE, Entry
from epaxos.gateway.commands import plan
from epaxos.gateway.items import Local, ParseLimits, Refused
from epaxos.gateway.table import TABLE, Shape
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import INCREMENT, OPERATIONS, SET_GET, SET_NX, SET_XX, Op
from epaxos.machines.operations import MALFORMED, TYPED
from epaxos.machines.store import Store

LIMITS = ParseLimits.of(LimitsConfig())


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split(" ")]


def refusal(args: list[bytes], limits: ParseLimits = LIMITS) -> bytes:
    outcome = plan(args, limits)
    assert isinstance(outcome, Refused)
    return outcome.reply


def test_operation_codes_never_change() -> None:
    codes = (
        "GET=0x01 SET=0x02 SETNX=0x03 DEL=0x04 EXISTS=0x05 INCRBY=0x06 APPEND=0x07 STRLEN=0x08 MGET=0x09 "
        "MSET=0x0a MSETNX=0x0b GETDEL=0x0c SETRANGE=0x0d GETRANGE=0x0e INCRBYFLOAT=0x0f TYPE=0x10 RENAME=0x11 "
        "RENAMENX=0x12 DBSIZE=0x13 SCAN=0x14 KEYS=0x15 RANDOMKEY=0x16 FLUSH=0x17 HSET=0x20 HMSET=0x21 "
        "HSETNX=0x22 HGET=0x23 HMGET=0x24 HGETALL=0x25 HKEYS=0x26 HVALS=0x27 HLEN=0x28 HEXISTS=0x29 HSTRLEN=0x2a "
        "HDEL=0x2b HINCRBY=0x2c HSCAN=0x2d SADD=0x30 SREM=0x31 SISMEMBER=0x32 SMISMEMBER=0x33 SMEMBERS=0x34 "
        "SCARD=0x35 SPOP=0x36 SSCAN=0x37 LPUSH=0x40 RPUSH=0x41 LPUSHX=0x42 RPUSHX=0x43 LPOP=0x44 RPOP=0x45 "
        "LLEN=0x46 LRANGE=0x47 LINDEX=0x48 LSET=0x49 LTRIM=0x4a EXEC=0x50 WATCH=0x51 UNWATCH=0x52 SAY=0x53"
    )
    assert " ".join(f"{op.name}={op.value:#04x}" for op in Op) == codes
    assert (SET_NX, SET_XX, SET_GET) == (0x10, 0x20, 0x40)
    assert INCREMENT.pack(-2) == b"\xfe" + b"\xff" * 7


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("get k", (Entry(Op.GET, READ, b"k", b""),)),
        ("GeT k", (Entry(Op.GET, READ, b"k", b""),)),
        ("set k v", (Entry(Op.SET, 0, b"k", b"v"),)),
        ("set k v nx", (Entry(Op.SET, SET_NX, b"k", b"v"),)),
        ("set k v XX gEt", (Entry(Op.SET, SET_XX | SET_GET, b"k", b"v"),)),
        ("set k v nx nx get", (Entry(Op.SET, SET_NX | SET_GET, b"k", b"v"),)),
        ("setnx k v", (Entry(Op.SETNX, 0, b"k", b"v"),)),
        ("getset k v", (Entry(Op.SET, SET_GET, b"k", b"v"),)),
        ("del a b a", tuple(Entry(Op.DEL, 0, key, b"") for key in (b"a", b"b", b"a"))),
        ("exists a b", tuple(Entry(Op.EXISTS, READ, key, b"") for key in (b"a", b"b"))),
        ("incr k", (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(1)),)),
        ("decr k", (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(-1)),)),
        ("incrby k -7", (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(-7)),)),
        ("incrby k -9223372036854775808", (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(-(1 << 63))),)),
        ("decrby k 9223372036854775807", (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(-(1 << 63) + 1)),)),
        ("append k v", (Entry(Op.APPEND, 0, b"k", b"v"),)),
        ("strlen k", (Entry(Op.STRLEN, READ, b"k", b""),)),
        ("mget a b", tuple(Entry(Op.MGET, READ, key, b"") for key in (b"a", b"b"))),
        ("mset a 1 b 2", (Entry(Op.MSET, 0, b"a", b"1"), Entry(Op.MSET, 0, b"b", b"2"))),
    ],
)
def test_a_command_is_one_entry_a_key(text: str, command: tuple[Entry, ...]) -> None:
    assert plan(words(text), LIMITS) == command


@pytest.mark.parametrize("text", ["ping", "PING x y", "echo a", "config get x", "info", "quit now", "epaxos status"])
def test_the_replica_at_hand_answers_the_rest(text: str) -> None:
    assert plan(words(text), LIMITS) == Local(words(text))


@pytest.mark.parametrize("name", sorted(TABLE.keys() - {b"exec"}))
def test_too_few_words_are_refused_by_the_lower_case_name(name: bytes) -> None:
    spec = TABLE[name]
    fewest = abs(spec.arity)
    if fewest > 1:
        expected = b"-ERR wrong number of arguments for '%b' command\r\n" % name
        assert refusal([name.upper(), *[b"1"] * (fewest - 2)]) == expected
    if spec.arity > 0:
        assert refusal([name, *[b"1"] * fewest]) == b"-ERR wrong number of arguments for '%b' command\r\n" % name


@pytest.mark.parametrize(
    ("args", "reply"),
    [
        (words("mset a 1 b"), b"-ERR wrong number of arguments for 'mset' command\r\n"),
        (words("set k v FOO"), b"-ERR syntax error\r\n"),
        (words("set k v nx xx"), b"-ERR syntax error\r\n"),
        (words("set k v ex 10"), b"-ERR SET option EX is not supported: keys do not expire\r\n"),
        (words("set k v KeepTtl"), b"-ERR SET option KEEPTTL is not supported: keys do not expire\r\n"),
        (words("incrby k x"), b"-ERR value is not an integer or out of range\r\n"),
        (words("incrby k +1"), b"-ERR value is not an integer or out of range\r\n"),
        (words("incrby k 01"), b"-ERR value is not an integer or out of range\r\n"),
        (words("incrby k -0"), b"-ERR value is not an integer or out of range\r\n"),
        (words("incrby k -"), b"-ERR value is not an integer or out of range\r\n"),
        (words("incrby k 9223372036854775808"), b"-ERR value is not an integer or out of range\r\n"),
        (words("decrby k 1.5"), b"-ERR value is not an integer or out of range\r\n"),
        (words("decrby k -9223372036854775808"), b"-ERR decrement would overflow\r\n"),
    ],
)
def test_wrong_commands_are_refused_in_the_words_of_redis(args: list[bytes], reply: bytes) -> None:
    assert refusal(args) == reply


# What Redis 7.0.15 answered to each of these.
@pytest.mark.parametrize(
    ("args", "reply"),
    [
        ([b"foo"], b"-ERR unknown command 'foo', with args beginning with: \r\n"),
        ([b"FOO", b"a", b"b"], b"-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
        ([b""], b"-ERR unknown command '', with args beginning with: \r\n"),
        ([b"FO\r\nO", b"a\r\nb\r\n"], b"-ERR unknown command 'FO  O', with args beginning with: 'a  b  ' \r\n"),
        ([b"F\0O", b"a\0b", b"c"], b"-ERR unknown command 'F', with args beginning with: 'a' 'c' \r\n"),
        (
            [b"F" * 200, b"x" * 100, b"y" * 100, b"z"],
            b"-ERR unknown command '%b', with args beginning with: '%b' '%b' \r\n"
            % (b"F" * 128, b"x" * 100, b"y" * 25),
        ),
        (
            [b"F", b"x" * 124, b"yyy"],
            b"-ERR unknown command 'F', with args beginning with: '%b' 'y' \r\n" % (b"x" * 124),
        ),
        ([b"F", b"x" * 125, b"y"], b"-ERR unknown command 'F', with args beginning with: '%b' \r\n" % (b"x" * 125)),
    ],
)
def test_an_unknown_command_is_repeated_to_its_sender_in_part(args: list[bytes], reply: bytes) -> None:
    assert refusal(args) == reply


def test_what_exceeds_a_bound_is_refused_and_says_which() -> None:
    tight = ParseLimits(key_bytes=4, value_bytes=8, run_commands=16, run_bytes=100)
    assert refusal([b"GET", b"abcde"], tight) == (
        b"-REJECTED too_large: a key of 5 bytes, 4 are allowed: not applied\r\n"
    )
    assert refusal([b"SET", b"k", b"123456789"], tight) == (
        b"-REJECTED too_large: a value of 9 bytes, 8 are allowed: not applied\r\n"
    )
    assert refusal([b"MGET", *[b"abcd"] * 5], tight) == (
        b"-REJECTED too_large: a command of 108 bytes, 100 are allowed: not applied\r\n"
    )
    assert not isinstance(plan([b"SET", b"abcd", b"12345678"], tight), Refused)
    assert refusal([b"DEL", *[b"k"] * (MAX_ENTRIES + 1)], ParseLimits(99, 99, 9, 1 << 26)) == (
        b"-REJECTED too_large: a command of 65537 keys, 65536 are allowed: not applied\r\n"
    )


def test_the_largest_key_and_value_of_the_configuration_fit_a_run() -> None:
    assert LIMITS.key_bytes == MAX_KEY_BYTES
    assert not isinstance(plan([b"SET", b"k" * LIMITS.key_bytes, b"v" * LIMITS.value_bytes], LIMITS), Refused)
    smallest = LimitsConfig(key_bytes=1, value_bytes=1, batch_bytes=4096)
    assert not isinstance(plan([b"INCR", b"k"], ParseLimits.of(smallest)), Refused)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_table_agrees_with_itself(name: bytes) -> None:
    spec = TABLE[name]
    assert spec.name.encode() == name == name.lower()
    assert not spec.entry_flags & (CONT | WHOLE | RESERVED | TYPED)
    if spec.shape is Shape.LOCAL:
        assert spec.op == 0 and (spec.keys == (0, 0, 0) or name == b"watch")
        return
    assert spec.op in set(Op)
    assert bool(spec.entry_flags & READ) == ("readonly" in spec.flags) != ("write" in spec.flags)
    step = 2 if spec.shape is Shape.PAIRS else 1
    last = -1 if spec.shape in (Shape.KEYS, Shape.PAIRS) else 2 if spec.name.startswith("rename") else 1
    assert spec.keys == ((0, 0, 0) if spec.shape is Shape.WHOLE else (1, last, step))


@pytest.mark.parametrize("name", sorted(name for name, spec in TABLE.items() if spec.op in OPERATIONS))
def test_the_operation_takes_what_the_command_may_have(name: bytes) -> None:
    spec, operation = TABLE[name], OPERATIONS[TABLE[name].op]
    for words in range(1, 9):
        planned = plan([name, *[b"0"] * (words - 1)], LIMITS)
        if isinstance(planned, Refused):
            continue
        assert operation(Store(), planned) != MALFORMED
    assert (operation.words < 0) == (spec.arity < 0)
