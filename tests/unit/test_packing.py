"""The codec of runs, both twins: against the format, against each other, and against bytes of any origin."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from epaxos import packing
from epaxos.command import (
    BARRIER_OP,
    CONT,
    ENTRY,
    HEADER,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_RUN_BYTES,
    OPTION_1,
    OPTION_4,
    READ,
    RESERVED,
    RUN_HEADER,
    SESSION_OP,
    WHOLE,
    Batch,
    Command,
    Entry,
)
from epaxos.errors import ProtocolError, Rejected
from epaxos.ids import BatchNumber

SECRET = bytes(range(16))
NAME = BatchNumber(2, 7, 99)
PURE = SimpleNamespace(**{name[3:]: value for name, value in vars(packing).items() if name.startswith("py_")})


TWINS = [pytest.param(PURE, id="pure")]
if importlib.util.find_spec("epaxos._ext.batch"):
    TWINS.append(pytest.param(importlib.import_module("epaxos._ext.batch"), id="compiled"))
both = pytest.mark.parametrize("twin", TWINS)


def entries(flags: st.SearchStrategy[int]) -> st.SearchStrategy[Entry]:
    """Entries over few keys, so that runs meet."""
    key = st.sampled_from([b"", b"a", b"b", b"k" * 300]) | st.binary(max_size=3)

    def entry(op: int, flags: int, key: bytes, payload: bytes) -> Entry:
        return Entry(op, flags, b"" if flags & WHOLE else key, payload)

    return st.builds(entry, st.integers(0, BARRIER_OP - 1), flags, key, st.binary(max_size=20))


FLAGS = st.sampled_from([0, 0, READ, READ, WHOLE, WHOLE | READ, OPTION_1, READ | OPTION_4])
COMMANDS = st.lists(st.lists(entries(FLAGS), min_size=1, max_size=3).map(tuple), min_size=1, max_size=8)
READS = st.lists(st.lists(entries(st.just(READ)), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)
RUNS = (COMMANDS | READS).map(lambda commands: PURE.encode_run(SECRET, commands))


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Sound runs with a few bytes changed, most often in the header or the entries; cut, extended, or noise."""
    run = bytearray(draw(RUNS))
    for _ in range(draw(st.integers(0, 3))):
        last = min(len(run), RUN_HEADER.size + 3 * ENTRY.size) if draw(st.booleans()) else len(run)
        run[draw(st.integers(0, last - 1))] = draw(st.sampled_from([0, 1, 2, 4, 8, 16, 127, 255]) | st.integers(0, 255))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return bytes(run[: draw(st.integers(0, len(run)))])
    if kind == 1:
        return bytes(run) + draw(st.binary(max_size=20))
    return draw(st.binary(max_size=60)) if kind == 2 else bytes(run)


def outcome(function: Any, *arguments: object) -> object:
    """What a call gives, or the ProtocolError it raises, in a form that compares."""
    try:
        return function(*arguments)
    except ProtocolError as error:
        return f"ProtocolError: {error}"


def packed(*rows: tuple[int, int, int, int], body: bytes = b"", n: int | None = None, more: bytes = b"") -> bytes:
    """A run by hand: rows of (offset, key bytes, operation, flags)."""
    table = b"".join(ENTRY.pack(1, *row) for row in rows)
    return RUN_HEADER.pack(len(rows) if n is None else n, len(body)) + table + body + more


# ------------------------------------------------------------------------------------------------------ the key hash


@both
def test_siphash_paper_vector(twin: Any) -> None:
    assert twin.key_hash(SECRET, bytes(range(15))) == 0xA129CA6149BE45E5


@both
def test_siphash_reference_vectors_of_short_messages(twin: Any) -> None:
    first = {0: 0x726FDB47DD0E0E31, 1: 0x74F839C593DC67FD, 7: 0xAB0200F58B01D137, 8: 0x93F5F5799A932462}
    assert {size: twin.key_hash(SECRET, bytes(range(size))) for size in first} == first


@both
@given(key=st.binary(max_size=70), secret=st.binary(min_size=16, max_size=16))
def test_siphash_is_the_same_in_both(twin: Any, key: bytes, secret: bytes) -> None:
    assert twin.key_hash(secret, key) == PURE.key_hash(secret, key)


@both
@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_secret_of_another_length_is_refused(twin: Any, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes, not 16"):
        twin.key_hash(bytes(size), b"key")
    with pytest.raises(ValueError, match=f"{size} bytes, not 16"):
        twin.encode_run(bytes(size), [(Entry(1, 0, b"key", b""),)])


# ------------------------------------------------------------------------------------------------------ the format


@both
def test_the_packed_form_byte_for_byte(twin: Any) -> None:
    commands = [(Entry(1, 0, b"ab", b"xyz"),), (Entry(2, READ, b"c", b""), Entry(3, WHOLE, b"", b"!"))]
    assert twin.encode_run(SECRET, commands) == (
        RUN_HEADER.pack(3, 7)
        + ENTRY.pack(PURE.key_hash(SECRET, b"ab"), 0, 2, 1, 0)
        + ENTRY.pack(PURE.key_hash(SECRET, b"c"), 5, 1, 2, READ)
        + ENTRY.pack(0, 6, 0, 3, WHOLE | CONT)
        + b"abxyzc!"
    )


@both
@given(commands=COMMANDS)
def test_decoding_undoes_encoding(twin: Any, commands: list[Command]) -> None:
    run = twin.encode_run(SECRET, iter(commands))
    assert run == PURE.encode_run(SECRET, commands)
    assert twin.decode_run(run) == commands
    assert twin.check_run(run) == twin.count_commands(run) == len(commands)
    assert all(isinstance(entry, Entry) for command in twin.decode_run(run) for entry in command)


@both
@given(run=RUNS)
def test_a_batch_is_read_in_place(twin: Any, run: bytes) -> None:
    data, at = Batch.of(NAME, run, twin.count_engine_entries(run)).data, HEADER.size
    assert twin.count_engine_entries(data, at) == PURE.count_engine_entries(run)
    assert twin.check_batch(data) == twin.check_run(data, at) == twin.check_run(run)
    assert twin.decode_run(data, at) == twin.decode_run(run)
    assert twin.count_commands(data, at) == twin.count_commands(run)
    assert twin.read_mask(data, at) == twin.read_mask(run)
    assert twin.count_touching(data, 0, at) == twin.count_touching(run, 0)
    assert twin.cut_run(data, 0, 1, at) == twin.cut_run(run, 0, 1)
    assert twin.conflicting(data, run, at) == twin.conflicting(run, data, 0, at) == twin.conflicting(run, run)
    assert packing.footprint(data, at) == packing.footprint(run)


@both
def test_a_barrier_is_sound_alone_and_conflicts_with_everything(twin: Any) -> None:
    run = packing.barrier_run()
    assert twin.check_run(run) == 1
    assert Batch.of(NAME, run).is_barrier
    assert twin.decode_run(run) == [(Entry(BARRIER_OP, WHOLE, b"", b""),)]
    assert twin.encode_run(SECRET, twin.decode_run(run)) == run
    assert twin.conflicting(run, twin.encode_run(SECRET, [(Entry(1, READ, b"k", b""),)]))


# -------------------------------------------------------------------------------------------------- what is refused

UNSOUND = [
    (b"", "0 bytes hold no run"),
    (b"1234567", "7 bytes hold no run"),
    (packed(), "a run of 0 entries"),
    (packed((0, 0, 1, 0), n=MAX_ENTRIES + 1), f"a run of {MAX_ENTRIES + 1} entries"),
    (RUN_HEADER.pack(1, MAX_RUN_BYTES) + bytes(16), f"at most {MAX_RUN_BYTES}"),
    (RUN_HEADER.pack(1, 0xFFFFFFFF) + bytes(16), f"at most {MAX_RUN_BYTES}"),
    (packed((0, 0, 1, 0), more=b"!"), "a run of 24 bytes by its header has 25"),
    (packed((0, 0, 1, 0), n=2), "a run of 40 bytes by its header has 24"),
    (packed((1, 1, 1, 0), body=b"xy"), "first entry has offset 1"),
    (packed((0, 1, 1, CONT), body=b"x"), "does not begin the run"),
    (packed((0, 2, 1, 0), (1, 1, 1, 0), body=b"xyz"), "entry 1 begins at 1, before the key in front of it ends at 2"),
    (packed((0, 1, 1, 0), (3, 0, 1, 0), (2, 1, 1, 0), body=b"xyz"), "entry 2 begins at 2"),
    (packed((0, 4, 1, 0), body=b"xyz"), "last key ends at 4 in a body of 3"),
    (packed((0, 0, 1, 0), (0xFFFFFFFF, 0xFFFF, 1, 0), body=b"xyz"), "last key ends at 4295032830"),
    (packed((0, 1, 1, RESERVED), body=b"x"), "entry 0 has flags 0x08 with the reserved bit"),
    (packed((0, 1, 1, WHOLE), body=b"x"), "a key of 1 bytes"),
    (packed((0, 0, BARRIER_OP, 0)), "a Barrier stands alone"),
    (packed((0, 0, BARRIER_OP, WHOLE | READ)), "a Barrier stands alone"),
    (packed((0, 0, BARRIER_OP, WHOLE), (0, 0, 1, 0)), "entry 0 of 2 is a Barrier"),
    (packed((0, 0, 1, 0), (0, 0, BARRIER_OP, WHOLE | CONT)), "entry 1 of 2 is a Barrier"),
]


@both
@pytest.mark.parametrize(("run", "words"), UNSOUND, ids=[words for _, words in UNSOUND])
def test_what_is_unsound_is_named(twin: Any, run: bytes, words: str) -> None:
    for call, data in ((twin.check_run, run), (twin.decode_run, run), (twin.check_batch, Batch.of(NAME, run).data)):
        with pytest.raises(ProtocolError, match=f"{words}|shorter than its header"):
            call(data)


@both
@pytest.mark.parametrize("at", [-1, 17, 1 << 40])
def test_a_place_outside_of_the_bytes_holds_no_run(twin: Any, at: int) -> None:
    with pytest.raises(ProtocolError, match="hold no run"):
        twin.check_run(packed((0, 0, 1, 0)), at)


@both
def test_a_batch_header_of_another_version_is_refused(twin: Any) -> None:
    data = Batch.of(NAME, packed((0, 0, 1, 0))).data
    with pytest.raises(ProtocolError, match="batch version 2"):
        twin.check_batch(b"\x02" + data[1:])
    with pytest.raises(ProtocolError, match="shorter than its header"):
        twin.check_batch(data[: HEADER.size])


@both
def test_a_batch_announces_its_engine_entries(twin: Any) -> None:
    for run, own in ((packing.barrier_run(b"payload"), 1), (packed((0, 0, SESSION_OP, 0), (0, 0, 1, CONT)), 1)):
        assert twin.count_engine_entries(run) == own
        assert twin.check_batch(Batch.of(NAME, run, own).data) == 1
        with pytest.raises(ProtocolError, match="announces 0 engine entries"):
            twin.check_batch(Batch.of(NAME, run).data)


def test_engine_entries_are_taken_out_with_the_commands_that_do_not_count() -> None:
    engine = Entry(SESSION_OP, READ, b"session", b"stamp")
    a, b, c = (tuple(Entry(1, flags, key, b"value of " + key) for flags in (0, READ)) for key in (b"a", b"bb", b"ccc"))
    run = PURE.encode_run(SECRET, [(*a, engine), b, (engine,), (*c, engine)])
    assert packing.without_engine_entries(run, [True, True, False, True]) == PURE.encode_run(SECRET, [a, b, c])
    assert packing.without_engine_entries(run, [False, False, False, True]) == PURE.encode_run(SECRET, [c])
    for keep in ([False] * 4, [False, False, True, False], [True] * 5):
        with pytest.raises(ValueError):
            packing.without_engine_entries(run, keep)


@both
@given(run=hostile())
def test_bytes_of_any_origin_get_one_verdict(twin: Any, run: bytes) -> None:
    verdict = outcome(twin.check_run, run)
    assert verdict == outcome(PURE.check_run, run)
    data = Batch.of(NAME, run).data
    assert outcome(twin.check_batch, data) == outcome(PURE.check_batch, data)
    assert isinstance(verdict, int) == isinstance(outcome(twin.decode_run, run), list)


@both
@given(run=hostile())
def test_what_is_found_sound_has_one_packed_form(twin: Any, run: bytes) -> None:
    if isinstance(outcome(twin.check_run, run), int):
        assert twin.check_run(twin.encode_run(SECRET, twin.decode_run(run))) == twin.check_run(run)
        rest = RUN_HEADER.size + ENTRY.size * RUN_HEADER.unpack_from(run)[0]
        assert twin.encode_run(SECRET, twin.decode_run(run))[rest:] == run[rest:]


@both
@given(run=hostile(), other=hostile(), key_hash=st.integers(0, (1 << 64) - 1))
def test_looking_at_bytes_of_any_origin_does_no_harm(twin: Any, run: bytes, other: bytes, key_hash: int) -> None:
    assert outcome(twin.count_commands, run) == outcome(PURE.count_commands, run)
    assert outcome(twin.read_mask, run) == outcome(PURE.read_mask, run)
    assert outcome(twin.count_touching, run, key_hash) == outcome(PURE.count_touching, run, key_hash)
    assert outcome(twin.conflicting, run, other) == outcome(PURE.conflicting, run, other)


MALFORMED: list[tuple[list[Command], str]] = [
    ([], "a run without commands"),
    ([()], "a command without entries"),
    ([(Entry(256, 0, b"", b""),)], "one byte"),
    ([(Entry(1, -1, b"", b""),)], "one byte"),
    ([(Entry(1, CONT, b"", b""),)], "the codec's"),
    ([(Entry(1, RESERVED, b"", b""),)], "the codec's"),
    ([(Entry(1, WHOLE, b"k", b""),)], "whole state has a key of 1 bytes"),
    ([(Entry(BARRIER_OP, 0, b"", b""),)], "a Barrier stands alone"),
    ([(Entry(BARRIER_OP, WHOLE, b"", b""), Entry(1, 0, b"k", b""))], "a Barrier stands alone"),
]


@both
@pytest.mark.parametrize(("commands", "words"), MALFORMED, ids=[words for _, words in MALFORMED])
def test_what_the_format_cannot_say_is_malformed(twin: Any, commands: list[Command], words: str) -> None:
    with pytest.raises(Rejected, match=words) as caught:
        twin.encode_run(SECRET, commands)
    assert caught.value.reason == "malformed"


@both
@pytest.mark.parametrize(
    "commands",
    [
        [(Entry(1, 0, bytes(MAX_KEY_BYTES + 1), b""),)],
        [(Entry(1, WHOLE, b"", b""),)] * (MAX_ENTRIES + 1),
        [(Entry(1, WHOLE, b"", bytes(MAX_RUN_BYTES - RUN_HEADER.size - ENTRY.size + 1)),)],
    ],
    ids=["key", "entries", "bytes"],
)
def test_what_is_beyond_the_limits_is_too_large(twin: Any, commands: list[Command]) -> None:
    with pytest.raises(Rejected) as caught:
        twin.encode_run(SECRET, commands)
    assert caught.value.reason == "too_large"


@both
def test_the_limits_themselves_are_allowed(twin: Any) -> None:
    key = bytes(MAX_KEY_BYTES)
    assert twin.decode_run(twin.encode_run(SECRET, [(Entry(1, 0, key, b""),)])) == [(Entry(1, 0, key, b""),)]
    assert twin.check_run(twin.encode_run(SECRET, [(Entry(1, WHOLE, b"", b""),)] * MAX_ENTRIES)) == MAX_ENTRIES


@both
def test_what_is_not_bytes_is_a_type_error(twin: Any) -> None:
    for entry in (Entry(1, 0, None, b""), Entry(1, 0, b"", None), Entry(1, 0, "k", b"")):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            twin.encode_run(SECRET, [(entry,)])
    for call in (twin.check_run, twin.check_batch, twin.count_commands, twin.read_mask):
        with pytest.raises(TypeError):
            call(None)
    with pytest.raises(TypeError):
        twin.merge_runs([packed((0, 0, 1, 0)), None])


# ----------------------------------------------------------------------------------------------- merging and cutting


@both
@given(parts=st.lists(COMMANDS, min_size=1, max_size=4))
def test_merging_concatenates(twin: Any, parts: list[list[Command]]) -> None:
    runs = [PURE.encode_run(SECRET, commands) for commands in parts]
    assert twin.merge_runs(runs) == PURE.encode_run(SECRET, itertools.chain(*parts))


@both
@given(commands=COMMANDS, data=st.data())
def test_cutting_takes_whole_commands(twin: Any, commands: list[Command], data: st.DataObject) -> None:
    run = PURE.encode_run(SECRET, commands)
    first = data.draw(st.integers(0, len(commands) - 1))
    count = data.draw(st.integers(1, len(commands) - first))
    assert twin.cut_run(run, first, count) == PURE.encode_run(SECRET, commands[first : first + count])


@both
@pytest.mark.parametrize("span", [(-1, 1), (0, 0), (0, -1), (0, 3), (1, 2), (2, 1), (1 << 40, 1), (0, 1 << 40)])
def test_commands_that_are_not_there_cannot_be_cut(twin: Any, span: tuple[int, int]) -> None:
    run = PURE.encode_run(SECRET, [(Entry(1, 0, b"a", b""), Entry(1, 0, b"b", b"")), (Entry(1, 0, b"c", b""),)])
    with pytest.raises(ValueError, match="of a run of 2"):
        twin.cut_run(run, *span)


@both
def test_what_cannot_be_merged(twin: Any) -> None:
    many = PURE.encode_run(SECRET, [(Entry(1, WHOLE, b"", b""),)] * (MAX_ENTRIES // 2 + 1))
    with pytest.raises(Rejected, match="too_large"):
        twin.merge_runs([many, many])
    with pytest.raises(ValueError, match="no run"):
        twin.merge_runs([])
    with pytest.raises(ValueError, match="a Barrier stands alone"):
        twin.merge_runs([packed((0, 0, 1, 0)), packing.barrier_run()])


# ----------------------------------------------------------------------------------------------------------- looking


@both
@given(commands=COMMANDS)
def test_the_read_mask_is_one_byte_a_command(twin: Any, commands: list[Command]) -> None:
    mask = twin.read_mask(PURE.encode_run(SECRET, commands))
    assert list(mask) == [int(all(entry.flags & READ for entry in command)) for command in commands]


@both
@given(commands=COMMANDS, key=st.sampled_from([b"a", b"b", b"absent"]))
def test_counting_the_commands_that_touch_a_key(twin: Any, commands: list[Command], key: bytes) -> None:
    touching = [any(entry.flags & WHOLE or entry.key == key for entry in command) for command in commands]
    run = PURE.encode_run(SECRET, commands)
    assert twin.count_touching(run, PURE.key_hash(SECRET, key)) == sum(touching)


@both
@given(a=RUNS, b=RUNS)
def test_the_conflict_relation_is_that_of_the_footprints(twin: Any, a: bytes, b: bytes) -> None:
    assert twin.conflicting(a, b) == twin.conflicting(b, a) == packing.footprint(a).conflicts(packing.footprint(b))


@both
def test_a_large_and_a_small_run_meet_in_one_key(twin: Any) -> None:
    def run(*keys: bytes, flags: int = 0) -> bytes:
        encoded: bytes = PURE.encode_run(SECRET, [(Entry(1, flags, key, b""),) for key in keys])
        return encoded

    many = [b"%d" % i for i in range(300)]
    assert not twin.conflicting(run(*many), run(b"x", b"y"))
    assert twin.conflicting(run(*many), run(b"x", b"299", flags=READ))
    assert twin.conflicting(run(b"x", b"0"), run(*many, flags=READ))
    assert not twin.conflicting(run(b"x", b"0", flags=READ), run(*many, flags=READ))
