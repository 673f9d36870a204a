"""The parser of what clients send, in both twins: framing, Redis's refusals, runs and their bounds."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from epaxos import replies
from epaxos.command import MAX_ENTRIES, READ, Command, Entry
from epaxos.gateway.inline import split_inline
from epaxos.gateway.items import Broken, Foreign, Item, Local, ParseLimits, Refused, Run
from epaxos.gateway.resp import LINE_BYTES, STRANGER_BULK_BYTES, STRANGER_WORDS, PyParser, command_bytes
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import SET_NX, Op
from epaxos.machines.operations import TYPED
from epaxos.packing import check_run, decode_run, encode_run

SECRET = bytes(range(16))
LIMITS = ParseLimits.of(LimitsConfig())
TIGHT = ParseLimits(key_bytes=6, value_bytes=9, run_commands=3, run_bytes=120)


class Parsed(NamedTuple):
    """What was made of a buffer: its first `consumed` bytes are these items."""

    consumed: int
    items: list[Item]


def parse_by(buffer: bytes, secret: bytes, limits: ParseLimits, twin: type[PyParser]) -> Parsed:
    """What a client has sent by then, all at once."""
    parser = twin(secret)
    items = parser.feed(buffer, limits)
    return Parsed(len(buffer) - parser.held, items)


Parse = Callable[[bytes, bytes, ParseLimits], Parsed]
PARSERS = {"pure": PyParser}
if importlib.util.find_spec("epaxos._ext.resp"):
    PARSERS["compiled"] = importlib.import_module("epaxos._ext.resp").Parser
TWINS: dict[str, Parse] = {name: partial(parse_by, twin=twin) for name, twin in PARSERS.items()}
both = pytest.mark.parametrize("parse", TWINS.values(), ids=TWINS)
both_parsers = pytest.mark.parametrize("twin", PARSERS.values(), ids=PARSERS)


def request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def unpacked(items: list[Item]) -> list[list[Command] | Item]:
    """The items, with runs as the commands in them."""
    return [decode_run(item.run) if isinstance(item, Run) else item for item in items]


def get(key: bytes) -> Command:
    return (Entry(Op.GET, READ, key, b""),)


def put(key: bytes, value: bytes) -> Command:
    return (Entry(Op.SET, 0, key, value),)


# ------------------------------------------------------------------------------------------------- what is understood


@both
def test_consecutive_commands_are_packed_together(parse: Parse) -> None:
    buffer = request(b"SET", b"a", b"1") + request(b"get", b"a") + request(b"DEL", b"a", b"b")
    consumed, items = parse(buffer, SECRET, LIMITS)
    commands = [put(b"a", b"1"), get(b"a"), (Entry(Op.DEL, 0, b"a", b""), Entry(Op.DEL, 0, b"b", b""))]
    assert (consumed, items) == (len(buffer), [Run(encode_run(SECRET, commands), 3)])


@both
def test_items_stand_in_the_order_of_commands(parse: Parse) -> None:
    buffer = request(b"GET", b"a") + request(b"PING") + request(b"GET") + request(b"GET", b"b") + request(b"ECHO", b"x")
    assert unpacked(parse(buffer, SECRET, LIMITS).items) == [
        [get(b"a")],
        Local([b"PING"]),
        Refused(b"-ERR wrong number of arguments for 'get' command\r\n", fatal=True),
        [get(b"b")],
        Local([b"ECHO", b"x"]),
    ]


@both
@pytest.mark.parametrize("words", [[b"HELLO"], [b"reset"], [b"Auth", b"x"]])
def test_what_follows_a_change_of_the_limits_is_parsed_later(parse: Parse, words: list[bytes]) -> None:
    first = request(b"GET", b"a") + request(*words)
    consumed, items = parse(first + request(b"GET", b"b"), SECRET, LIMITS)
    assert (consumed, unpacked(items)) == (len(first), [[get(b"a")], Local(words)])


@both
def test_some_replies_have_types_of_their_own_in_resp3(parse: Parse) -> None:
    for dialect, flags in ((2, READ), (3, READ | TYPED)):
        items = parse(request(b"SMEMBERS", b"s"), SECRET, LIMITS._replace(dialect=dialect)).items
        assert unpacked(items) == [[(Entry(Op.SMEMBERS, flags, b"s", b""),)]]


@both
def test_words_are_any_bytes(parse: Parse) -> None:
    key, value = b"\0\r\n*1", bytes(range(256)) * 20
    items = parse(request(b"sEt", key, value) + request(b"SET", b"", b""), SECRET, LIMITS).items
    assert unpacked(items) == [[put(key, value), put(b"", b"")]]


@both
@pytest.mark.parametrize("nothing", [b"*0\r\n", b"*-1\r\n", b"*-2147483648\r\n", b"\r\n", b"\n", b"  \t \r\n"])
def test_empty_commands_are_passed_over(parse: Parse, nothing: bytes) -> None:
    buffer = nothing + request(b"GET", b"a") + nothing + request(b"GET", b"b") + nothing
    consumed, items = parse(buffer, SECRET, LIMITS)
    assert consumed == len(buffer)
    assert unpacked(items) == [[get(b"a"), get(b"b")]]


@both
def test_as_in_redis_the_bytes_behind_a_word_are_not_looked_at(parse: Parse) -> None:
    assert parse(b"*1\rX$4\rYPINGzz*1\r\n$4\r\nPINGxx", SECRET, LIMITS) == (28, [Local([b"PING"]), Local([b"PING"])])


@both
def test_what_is_not_complete_stays(parse: Parse) -> None:
    whole = request(b"SET", b"key", b"value")
    for cut in range(len(whole)):
        buffer = request(b"GET", b"a") + whole[:cut]
        consumed, items = parse(buffer, SECRET, LIMITS)
        assert consumed == len(buffer) - cut
        assert unpacked(items) == [[get(b"a")]]
    assert parse(b"", SECRET, LIMITS) == (0, [])
    assert parse(b"*1000000\r\n", SECRET, LIMITS) == (0, [])
    assert parse(b"GET a", SECRET, LIMITS) == (0, [])


@both
def test_a_replicated_command_that_is_not_plain_joins_the_run(parse: Parse) -> None:
    buffer = request(b"GET", b"a") + request(b"SET", b"a", b"1", b"NX") + request(b"GET", b"a")
    assert unpacked(parse(buffer, SECRET, LIMITS).items) == [
        [get(b"a"), (Entry(Op.SET, SET_NX, b"a", b"1"),), get(b"a")],
    ]


@both
def test_names_that_only_look_alike_are_unknown(parse: Parse) -> None:
    for name in (b"GET\0", b"\x07et", b"ge", b"get ", b"G\x05T", b"GET" + b"x" * 70_000):
        (item,) = parse(request(name, b"a"), SECRET, LIMITS).items
        assert isinstance(item, Refused) and item.reply.startswith(b"-ERR unknown command '")


# ---------------------------------------------------------------------------------------------------- inline commands


@both
def test_inline_commands(parse: Parse) -> None:
    buffer = b"PING\r\nset k 'v w'\nGET k\r\n" + request(b"GET", b"k") + b'ECHO "\\x41"\n'
    consumed, items = parse(buffer, SECRET, LIMITS)
    assert consumed == len(buffer)
    assert unpacked(items) == [Local([b"PING"]), [put(b"k", b"v w"), get(b"k"), get(b"k")], Local([b"ECHO", b"A"])]


# What Redis 7.0.15 understood of each line.
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t\v\f\r", []),
        (b"a", [b"a"]),
        (b"  a   b  ", [b"a", b"b"]),
        (b'"b\\x41\\n"', [b"bA\n"]),
        (b'"\\r\\t\\b\\a\\q\\""', [b'\r\t\b\aq"']),
        (b'"\\xzz" "\\x4"', [b"xzz", b"x4"]),
        (b"'a\\'b' '\\x41' 'a\\nb'", [b"a'b", b"\\x41", b"a\\nb"]),
        (b'a"b c"', [b"ab c"]),
        (b"a'b c' d", [b"ab c", b"d"]),
        (b"\"\" ''", [b"", b""]),
        (b"a\vb", [b"a\vb"]),
        (b"\va\f", [b"a\f"]),
        (b"a\rb", [b"a", b"b"]),
        (b"\xff\x01", [b"\xff\x01"]),
        (b'"a"\vb', [b"a", b"b"]),
        (b'"a', None),
        (b"'a", None),
        (b"'a'b", None),
        (b'"a"b', None),
        (b'"a""b"', None),
        (b'"a\\', None),
        (b"'a\\'", None),
        (b'"', None),
    ],
)
def test_words_of_a_line(line: bytes, words: list[bytes] | None) -> None:
    assert split_inline(line) == words


def test_a_hostile_line_takes_no_longer_than_its_length() -> None:
    assert split_inline(b"'" + b"\\" * 60_000) is None
    assert split_inline(b'"' + b"\\x" * 30_000) is None


# ------------------------------------------------------------------------------------------- breaches of the protocol


# What Redis 7.0.15 answered before it closed the connection.
@both
@pytest.mark.parametrize(
    ("breach", "why"),
    [
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*\r\n", b"invalid multibulk length"),
        (b"*1 \r\n", b"invalid multibulk length"),
        (b"*01\r\n", b"invalid multibulk length"),
        (b"*-0\r\n", b"invalid multibulk length"),
        (b"*2147483648\r\n", b"invalid multibulk length"),
        (b"*99999999999999999999\r\n", b"invalid multibulk length"),
        (b"*1\r\n$x\r\n", b"invalid bulk length"),
        (b"*1\r\n$\r\n", b"invalid bulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$1x\r\n", b"invalid bulk length"),
        (b"*1\r\n:4\r\n", b"expected '$', got ':'"),
        (b"*1\r\n\r\n", b"expected '$', got ' '"),
        (b"*1\r\n\n\r\n", b"expected '$', got ' '"),
        (b"*1\r\n\xff\r\n", b"expected '$', got '\xff'"),
        (b"*1\r\n%s\r\n", b"expected '$', got '%'"),
        (b"*1\r\n$" + b"1" * 65_537, b"too big bulk count string"),
        (b"*" + b"1" * 65_536, b"too big mbulk count string"),
        (b"x" * 65_537, b"too big inline request"),
        (b'SET "a\r\n', b"unbalanced quotes in request"),
        (b"SET 'a'b c\r\n", b"unbalanced quotes in request"),
    ],
)
def test_a_breach_of_the_protocol_ends_it_in_the_words_of_redis(parse: Parse, breach: bytes, why: bytes) -> None:
    consumed, items = parse(request(b"GET", b"a") + breach + request(b"GET", b"b"), SECRET, LIMITS)
    assert consumed == len(request(b"GET", b"a"))
    assert unpacked(items) == [[get(b"a")], Broken(b"-ERR Protocol error: %b\r\n" % why)]


@both
@pytest.mark.parametrize("word", [b"POST", b"post", b"Host:"])
def test_behind_what_a_browser_says_nothing_is_looked_at(parse: Parse, word: bytes) -> None:
    for foreign in (word + b" / HTTP/1.1\r\n", request(word), request(word, b"x")):
        before = request(b"GET", b"a") + foreign
        consumed, items = parse(before + request(b"GET", b"b"), SECRET, LIMITS)
        assert (consumed, unpacked(items)) == (len(before), [[get(b"a")], Foreign(word)])
    for harmless in (b"host", b"poster", b"GET"):
        (item,) = parse(request(harmless), SECRET, LIMITS).items
        assert isinstance(item, Refused)


@both
def test_lines_that_may_still_end_in_time_are_waited_for(parse: Parse) -> None:
    for start in (b"x" * 65_536, b"*" + b"1" * 65_535, b"*1\r\n$" + b"1" * 65_535):
        assert parse(start, SECRET, LIMITS) == (0, [])


@both
def test_lengths_are_refused_before_the_bytes_come(parse: Parse) -> None:
    assert parse(b"*2147483648\r\n", SECRET, LIMITS).items == [
        Broken(b"-ERR Protocol error: invalid multibulk length\r\n")
    ]
    assert parse(b"*1048576\r\n", SECRET, LIMITS).items == []
    too_long = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n"
    assert parse(too_long % LIMITS.value_bytes, SECRET, LIMITS).items == []
    assert parse(too_long % (LIMITS.value_bytes + 1), SECRET, LIMITS).items == [
        Broken(b"-ERR Protocol error: invalid bulk length\r\n")
    ]


@both
def test_of_a_stranger_little_is_held(parse: Parse) -> None:
    stranger = LIMITS._replace(stranger=True)
    for start, most, what in (
        (b"*%d\r\n", STRANGER_WORDS, b"multibulk"),
        (b"*2\r\n$4\r\nAUTH\r\n$%d\r\n", STRANGER_BULK_BYTES, b"bulk"),
    ):
        assert parse(start % most, SECRET, stranger).items == []
        assert parse(start % (most + 1), SECRET, LIMITS).items == []
        assert parse(start % (most + 1), SECRET, stranger).items == [
            Broken(b"-ERR Protocol error: unauthenticated %b length\r\n" % what)
        ]


@both
def test_a_command_without_end_is_refused(parse: Parse) -> None:
    limit = command_bytes(LIMITS)
    words = b"$0\r\n\r\n" * (limit // 6)
    buffer = b"*1000000\r\n" + words
    assert parse(buffer[: limit - 6], SECRET, LIMITS) == (0, [])
    assert parse(buffer, SECRET, LIMITS) == (
        0,
        [Broken(b"-REJECTED too_large: a command of more than %d bytes on the wire: not applied\r\n" % limit)],
    )


# --------------------------------------------------------------------------------------------------------------- runs


@both
def test_a_run_is_closed_at_its_bounds(parse: Parse) -> None:
    buffer = request(b"GET", b"a") * 7
    assert [item.commands for item in parse(buffer, SECRET, TIGHT).items if isinstance(item, Run)] == [3, 3, 1]
    buffer = request(b"SET", b"abcdef", b"123456789") * 4  # 31 bytes each, and 8 for the run: three fit 120
    assert [len(item.run) for item in parse(buffer, SECRET, TIGHT).items if isinstance(item, Run)] == [101, 39]
    runs = parse(request(b"GET", b"k") * 2500, SECRET, LIMITS).items
    assert [item.commands for item in runs if isinstance(item, Run)] == [1024, 1024, 452]


@both
def test_a_run_never_has_more_entries_than_the_format_allows(parse: Parse) -> None:
    wide = ParseLimits(key_bytes=9, value_bytes=9, run_commands=1 << 16, run_bytes=1 << 26)
    buffer = request(b"MGET", *[b"k"] * 30_000) * 3
    items = parse(buffer, SECRET, wide).items
    assert [item.commands for item in items if isinstance(item, Run)] == [2, 1]
    (item,) = parse(request(b"MGET", *[b"k"] * (MAX_ENTRIES + 1)), SECRET, wide).items
    assert item == Refused(
        b"-REJECTED too_large: a command of 65537 keys, 65536 are allowed: not applied\r\n", fatal=True
    )


@both
def test_a_command_that_exceeds_a_bound_is_refused_alone(parse: Parse) -> None:
    buffer = request(b"GET", b"a") + request(b"GET", b"1234567") + request(b"GET", b"b")
    assert unpacked(parse(buffer, SECRET, TIGHT).items) == [
        [get(b"a")],
        Refused(b"-REJECTED too_large: a key of 7 bytes, 6 are allowed: not applied\r\n", fatal=True),
        [get(b"b")],
    ]


@both
def test_the_secret_has_sixteen_bytes(parse: Parse) -> None:
    with pytest.raises(ValueError, match="the secret has 3 bytes"):
        parse(request(b"GET", b"a"), b"abc", LIMITS)


# ------------------------------------------------------------------------------------------------------ for any input


NAMES = st.sampled_from(
    [b"GET", b"get", b"SET", b"Set", b"INCR", b"DEL", b"MGET", b"MSET", b"INCRBY", b"PING", b"EXISTS", b"FOO", b"POST"]
)
WORDS = st.one_of(
    st.sampled_from([b"", b"a", b"nx", b"GET", b"7", b"-1", b"x" * 7, b"v" * 10]),
    st.binary(max_size=12),
)
REQUESTS = st.builds(lambda name, words: request(name, *words), NAMES, st.lists(WORDS, max_size=5))
LINES = st.lists(st.sampled_from([b"get", b"a", b'"b c"', b"'", b"ping", b"\\", b"set"]), max_size=4).map(
    lambda words: b" ".join(words) + b"\r\n"
)
GARBAGE = st.one_of(
    st.binary(max_size=20),
    st.lists(
        st.sampled_from([b"*", b"$", b"1", b"2", b"-", b"\r", b"\n", b"\r\n", b"3\r\nGET", b"a"]), max_size=12
    ).map(b"".join),
    st.sampled_from([b"*1048577\r\n", b"*9999\r\n$1\r\n", b"*2\r\n$3\r\nGET\r\n$99999\r\n", b"*1\r\n$65536\r\n"]),
)
BUFFERS = st.lists(st.one_of(REQUESTS, REQUESTS, REQUESTS, LINES, GARBAGE), max_size=10).map(b"".join)


@given(BUFFERS, st.sampled_from([LIMITS, TIGHT, TIGHT._replace(stranger=True)]), st.integers(0, 200))
@settings(max_examples=400, deadline=None)
def test_the_twins_agree_on_everything(buffer: bytes, limits: ParseLimits, cut: int) -> None:
    for piece in (buffer, buffer[:-cut]):
        results = [parse(piece, SECRET, limits) for parse in TWINS.values()]
        assert all(result == results[0] for result in results)


@both_parsers
@given(buffer=BUFFERS, limits=st.sampled_from([LIMITS, TIGHT]), sizes=st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=200, deadline=None)
def test_it_does_not_matter_how_the_bytes_arrive(
    twin: type[PyParser], buffer: bytes, limits: ParseLimits, sizes: list[int]
) -> None:
    whole = parse_by(buffer, SECRET, limits, twin)
    parser, at, gathered = twin(SECRET), 0, []
    for size in sizes * (len(buffer) + 1):
        gathered += parser.feed(buffer[at : at + size], limits)
        at += size
        if at >= len(buffer) or (gathered and isinstance(gathered[-1], Broken | Foreign)):
            break
    if not (gathered and isinstance(gathered[-1], Broken | Foreign)):
        assert parser.held == len(buffer) - whole.consumed

    def flat(items: list[Item]) -> list[Command | Item]:
        return [each for item in unpacked(items) for each in (item if isinstance(item, list) else [item])]

    assert flat(gathered) == flat(whole.items)


@both_parsers
def test_a_command_that_comes_byte_by_byte_is_not_looked_at_again_and_again(twin: type[PyParser]) -> None:
    """Were it, this would not end: there are a million bytes, and a line of many."""
    command = request(b"MSET", *[b"%d" % i for i in range(60_000)])
    parser = twin(SECRET)
    for at in range(len(command) - 1):
        assert parser.feed(command[at : at + 1], LIMITS) == []
    assert parser.held == len(command) - 1
    (item,) = parser.feed(b"\n", LIMITS)
    assert isinstance(item, Run) and parser.held == 0
    assert len(decode_run(item.run)[0]) == 30_000
    for _ in range(LINE_BYTES):
        assert parser.feed(b"x", LIMITS) == []
    assert parser.feed(b"\n", LIMITS)


@both_parsers
def test_what_follows_a_change_of_dialect_is_left_for_the_next_call(twin: type[PyParser]) -> None:
    parser = twin(SECRET)
    hgetall = request(b"HGETALL", b"h")
    assert parser.feed(request(b"HELLO", b"3") + hgetall + b"*1\r\n", LIMITS) == [Local([b"HELLO", b"3"])]
    assert parser.held == len(hgetall) + 4
    (run,) = parser.feed(b"", LIMITS._replace(dialect=3))
    assert isinstance(run, Run) and decode_run(run.run)[0][0].flags & TYPED
    assert parser.held == 4


@both
@given(buffer=BUFFERS)
@settings(max_examples=200, deadline=None)
def test_runs_are_sound_and_within_their_bounds(parse: Parse, buffer: bytes) -> None:
    consumed, items = parse(buffer, SECRET, TIGHT)
    assert 0 <= consumed <= len(buffer)
    for item in items:
        if isinstance(item, Run):
            assert check_run(item.run) == item.commands <= TIGHT.run_commands
            assert len(item.run) <= TIGHT.run_bytes
            assert item.run == encode_run(SECRET, decode_run(item.run))
    assert not any(isinstance(item, Broken | Foreign) for item in items[:-1])


# ------------------------------------------------------------------------------------------------------------ replies


def test_nothing_is_said_otherwise_in_resp3() -> None:
    said = b"+OK\r\n$-1\r\n$5\r\n$-1\r\n\r\n*2\r\n$-1\r\n$1\r\nx\r\n:-1\r\n-ERR $-1\r\n$-1\r\n"
    assert replies.to_resp3(said) == b"+OK\r\n_\r\n$5\r\n$-1\r\n\r\n*2\r\n_\r\n$1\r\nx\r\n:-1\r\n-ERR $-1\r\n_\r\n"
    assert replies.to_resp3(b"$3\r\nabc\r\n") == b"$3\r\nabc\r\n"
    assert replies.to_resp3(b"") == b""
