"""The codec of messages, generated from their table: what goes out comes in, and nothing else does."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given, strategies as st

from epaxos import cbor, messages
from epaxos.command import NOP, Batch, Command, Entry
from epaxos.errors import ProtocolError
from epaxos.ids import MAX_SLOT, BatchNumber, InstanceId
from epaxos.messages import (
    FIRST_HINT,
    MAX_HEADER_BYTES,
    MAX_INVALID,
    MAX_RANGES,
    MAX_U64,
    TABLE,
    Commit,
    Invalidator,
    Kind,
    Message,
    Nack,
    PreAccept,
    Recover,
    SlotRange,
    ValidateOK,
    decode,
    encode,
    kinds,
)
from epaxos.packing import encode_run

N = 5
CLASSES = sorted(TABLE.values(), key=lambda cls: cls.code)

slots = st.integers(1, MAX_SLOT)
lanes = st.integers(0, N - 1)
ids = st.builds(InstanceId, epoch=st.integers(0, (1 << 32) - 1), slot=slots, lane=lanes)
commands = st.builds(lambda key, payload: (Entry(1, 0, key, payload),), st.binary(max_size=20), st.binary(max_size=20))


def make_batch(name: BatchNumber, run: list[Command]) -> Batch:
    return Batch.of(name, encode_run(bytes(16), run))


batches = st.builds(
    make_batch,
    st.builds(BatchNumber, lanes, st.integers(0, MAX_U64), st.integers(0, MAX_U64)),
    st.lists(commands, min_size=1, max_size=4),
)
ranges = st.builds(lambda lane, ends: SlotRange(lane, *sorted(ends)), lanes, st.tuples(slots, slots))

GOOD: dict[Kind, st.SearchStrategy[Any]] = {
    messages.ID: ids,
    messages.VECTOR: st.tuples(*[st.integers(0, MAX_SLOT)] * N),
    messages.BALLOT: st.integers(0, MAX_U64),
    messages.TERM: st.integers(0, MAX_U64),
    messages.NUMBER: st.integers(0, MAX_U64),
    messages.SLOT: slots,
    messages.LANE: lanes,
    messages.EPOCH: st.integers(0, (1 << 32) - 1),
    messages.COUNT: st.integers(0, 13),
    messages.KIND: st.just(0),
    messages.QUORUM: st.just(0),
    messages.TIME_US: st.just(0),
    messages.LATE_US: st.just(0),
    messages.TERMS: st.just(()),
    messages.PHASE: st.integers(0, 3),
    messages.BOOL: st.booleans(),
    messages.RANGES: st.lists(ranges, min_size=1, max_size=4).map(tuple),
    messages.INVALID: st.lists(st.builds(Invalidator, ids, st.booleans()), max_size=4).map(tuple),
}

NOT_AN_INTEGER: list[Any] = [None, True, 1.0, "1", b"1", [], {}]
NOT_AN_ARRAY: list[Any] = [None, True, 3, "id", b"id", {}]
BAD: dict[Kind, list[Any]] = {
    messages.ID: [
        *NOT_AN_ARRAY,
        [],
        [0, 1],
        [0, 1, 2, 3],
        [0, 0, 0],
        [0, -1, 0],
        [0, MAX_SLOT + 1, 0],
        [-1, 1, 0],
        [1 << 32, 1, 0],
        [0, 1, N],
        [0, 1, -1],
        [0, 1, True],
        [0, 1.0, 0],
        [[], 1, 0],
    ],
    messages.VECTOR: [
        *NOT_AN_ARRAY,
        [],
        [0] * (N - 1),
        [0] * (N + 1),
        [0, 0, 0, 0, -1],
        [MAX_SLOT + 1] * N,
        [True] * N,
    ],
    messages.BALLOT: [*NOT_AN_INTEGER, -1],
    messages.TERM: [*NOT_AN_INTEGER, -1],
    messages.NUMBER: [*NOT_AN_INTEGER, -1],
    messages.SLOT: [*NOT_AN_INTEGER, -1, MAX_SLOT + 1],
    messages.LANE: [*NOT_AN_INTEGER, -1, N],
    messages.EPOCH: [*NOT_AN_INTEGER, -1, 1 << 32],
    messages.COUNT: [*NOT_AN_INTEGER, -1, 14],
    messages.KIND: [*NOT_AN_INTEGER, -1, 1],
    messages.QUORUM: [*NOT_AN_INTEGER, 1],
    messages.TIME_US: [*NOT_AN_INTEGER, 1],
    messages.LATE_US: [*NOT_AN_INTEGER, 1],
    messages.TERMS: [*NOT_AN_ARRAY, [0]],
    messages.PHASE: [*NOT_AN_INTEGER, -1, 4],
    messages.BOOL: [None, 0, 1, "true", []],
    messages.RANGES: [
        *NOT_AN_ARRAY,
        [],
        [[0, 1, 1]] * (MAX_RANGES + 1),
        [[0, 1]],
        [[0, 0, 1]],
        [[0, 2, 1]],
        [[N, 1, 1]],
        [[0, 1, MAX_SLOT + 1]],
        [1],
    ],
    messages.INVALID: [
        *NOT_AN_ARRAY,
        [[[0, 1, 0], True]] * (MAX_INVALID + 1),
        [[[0, 1, 0]]],
        [[[0, 1, 0], 1]],
        [[[0, 0, 0], True]],
        [7],
    ],
    messages.PAYLOAD: [*NOT_AN_INTEGER, -1, 3],
}


def payloads(cls: type[Message]) -> st.SearchStrategy[Any]:
    """What the annotation of `payload` allows."""
    hint = str(typing.get_type_hints(cls)["payload"])
    choices: list[st.SearchStrategy[Any]] = [batches]
    if "None" in hint:
        choices.append(st.none())
    if "Nop" in hint:
        choices.append(st.just(NOP))
    return st.one_of(choices)


def any_of(cls: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of one class, from the kinds of its fields."""
    if cls is Recover:  # the one class whose fields bound each other
        return st.builds(
            lambda ends, **rest: Recover(first=min(ends), last=max(ends), **rest),
            st.tuples(slots, slots),
            **{name: GOOD[kind] for name, kind in kinds(cls) if kind is not messages.SLOT},
        )
    return st.builds(
        cls, **{name: payloads(cls) if kind is messages.PAYLOAD else GOOD[kind] for name, kind in kinds(cls)}
    )


def example(cls: type[Message]) -> Message:
    """One plain message of the class."""
    plain: dict[Kind, Any] = {
        messages.ID: InstanceId(0, 7, 1),
        messages.VECTOR: (1, 2, 3, 4, 5),
        messages.TERMS: (),
        messages.BOOL: True,
        messages.RANGES: (SlotRange(0, 1, 2),),
        messages.INVALID: (Invalidator(InstanceId(0, 7, 1), True),),
        messages.PAYLOAD: make_batch(BatchNumber(1, 2, 3), [(Entry(1, 0, b"k", b"v"),)]),
        messages.SLOT: 3,
    }
    return cls(**{name: plain.get(kind, 0) for name, kind in kinds(cls)})


def fields_and_classes() -> list[Any]:
    return [
        pytest.param(cls, position, name, kind, id=f"{cls.__name__}.{name}")
        for cls in CLASSES
        for position, (name, kind) in enumerate(kinds(cls), 1)
    ]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_what_is_encoded_is_decoded(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(any_of(cls))
    header, raw = encode(message)
    assert len(header) <= MAX_HEADER_BYTES
    assert decode(header, raw, N) == message


@pytest.mark.parametrize(("cls", "position", "name", "kind"), fields_and_classes())
def test_a_field_out_of_bounds_is_refused_by_its_name(cls: type[Message], position: int, name: str, kind: Kind) -> None:
    header, raw = encode(example(cls))
    for bad in BAD[kind]:
        array = cbor.loads(header)
        array[position] = bad
        with pytest.raises(ProtocolError, match=rf"{cls.__name__}\.{name}: "):
            decode(cbor.dumps(array), raw, N)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_array_of_another_length_is_refused(cls: type[Message]) -> None:
    header, raw = encode(example(cls))
    array = cbor.loads(header)
    for wrong in (array[:-1], [*array, 0], [array[0]]):
        with pytest.raises(ProtocolError, match=f"{cls.__name__} has {len(array) - 1} fields"):
            decode(cbor.dumps(wrong), raw, N)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_truncated_or_longer_header_is_refused(cls: type[Message]) -> None:
    header, raw = encode(example(cls))
    for cut in range(len(header)):
        with pytest.raises(ProtocolError):
            decode(header[:cut], raw, N)
    with pytest.raises(ProtocolError):
        decode(header + b"\0", raw, N)


@given(header=st.binary(max_size=60), raw=st.binary(max_size=80), n=st.integers(1, 13))
def test_garbage_is_a_protocol_error(header: bytes, raw: bytes, n: int) -> None:
    try:
        decode(header, raw, n)
    except ProtocolError:
        return
    assert cbor.loads(header)[0] >= FIRST_HINT or decode(header, raw, n) is not None


@given(data=st.data())
def test_a_flipped_byte_raises_nothing_but_a_protocol_error(data: st.DataObject) -> None:
    header, raw = encode(data.draw(st.sampled_from(CLASSES).flatmap(any_of)))
    whole = bytearray(header + raw)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = decode(bytes(whole[: len(header)]), bytes(whole[len(header) :]), N)
    except ProtocolError:
        return
    if message is not None:
        assert encode(message) == (bytes(whole[: len(header)]), bytes(whole[len(header) :]))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x80",
        b"\x01",
        b"\xa1\x01\x02",
        b"\x81\xf6",
        b"\x81\x61a",
        b"\x9b" + b"\xff" * 8,
        b"\x5b" + b"\x7f" + b"\xff" * 7,
        b"\x81" * 5000,
        b"\x9f\x01\xff",
        b"\x81\x18\x01",
        b"\xd8\x1c\x81\xd8\x1d\x00",
        b"\x81\xc2\x5a\x00\x00\xf0\x00" + b"\xff" * 0xF000,
        b"\x82\x0b\xc2\x59\xf0\x00" + b"\xff" * 0xF000,
        b"\xc0\x63abc",
        b"\xd8\x23\x61(",
        b"\x81\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    ],
    ids=lambda header: header[:8].hex(),
)
def test_hostile_headers_are_protocol_errors(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(header, b"", N)


def test_an_unknown_code_is_an_error_and_an_unknown_hint_is_not() -> None:
    unknown = min(set(range(FIRST_HINT)) - set(TABLE) - {0})
    for code in (unknown, FIRST_HINT - 1, -1, 0):
        with pytest.raises(ProtocolError, match=f"unknown message code {code}"):
            decode(cbor.dumps([code]), b"", N)
    assert decode(cbor.dumps([FIRST_HINT, "whatever", {}]), b"more", N) is None


def test_the_payload_must_be_what_the_message_may_carry() -> None:
    header, raw = encode(example(PreAccept))
    array = cbor.loads(header)
    for tag in (0, 1):
        array[2] = tag
        with pytest.raises(ProtocolError, match=r"PreAccept\.payload: payload (absent|NOP) is not allowed here"):
            decode(cbor.dumps(array), b"", N)
    with pytest.raises(ProtocolError, match=r"PreAccept\.payload"):
        decode(header, raw[:-1], N)
    with pytest.raises(ProtocolError, match=r"PreAccept\.payload"):
        decode(header, b"", N)


def test_bytes_that_no_field_names_are_refused() -> None:
    for message in (Nack(id=InstanceId(0, 1, 0), ballot=6), Commit(id=InstanceId(0, 1, 0), payload=NOP, dep=(0,) * N)):
        with pytest.raises(ProtocolError, match="carries 4 bytes behind it"):
            decode(encode(message)[0], b"more", N)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (4, 3)])
def test_a_recover_of_no_slot_is_refused(first: int, last: int) -> None:
    with pytest.raises(ProtocolError, match=r"Recover\.first"):
        decode(cbor.dumps([Recover.code, 0, 1, first, last, 6]), b"", N)


def test_the_longest_list_of_invalidators_fits_a_header() -> None:
    largest = Invalidator(InstanceId((1 << 32) - 1, MAX_SLOT, 12), True)
    message = ValidateOK(id=largest.id, ballot=MAX_U64, invalid=(largest,) * MAX_INVALID)
    header, raw = encode(message)
    assert len(header) <= MAX_HEADER_BYTES
    assert decode(header, raw, 13) == message


def test_every_kind_of_field_is_tested() -> None:
    used = {kind for cls in CLASSES for _, kind in kinds(cls)}
    assert used == set(BAD) == {*GOOD, messages.PAYLOAD}
