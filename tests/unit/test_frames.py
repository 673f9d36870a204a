"""Frames: any cut of the stream gives the same frames, and lengths are never trusted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from epaxos.command import Batch, Entry
from epaxos.errors import ProtocolError
from epaxos.ids import BatchNumber, InstanceId
from epaxos.messages import Invalidator, Message, Nack, PreAccept, ValidateOK, decode, encode
from epaxos.net.frames import PING, PONG, PREFIX, Control, Frame, FrameReader, control, encode_control, encode_frame
from epaxos.packing import encode_run

ID = InstanceId(0, 9, 2)
BATCH = Batch.of(BatchNumber(2, 1, 1), encode_run(bytes(16), [(Entry(1, 0, b"key", b"value" * 20),)]))
MESSAGES: list[Message] = [
    Nack(id=ID, ballot=4),
    PreAccept(id=ID, payload=BATCH, init_dep=(1, 2, 3)),
    Nack(id=ID, ballot=7),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_however_the_stream_is_cut_the_same_frames_come_out(cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, MESSAGES)) + encode_control(PING, 5)
    reader = FrameReader(4096)
    frames: list[Frame] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        frames += reader.feed(stream[start:end])
    assert [decode(frame.header, frame.raw, 3) for frame in frames[:-1]] == MESSAGES
    assert control(frames[-1]) == Control(PING, 5)
    assert not reader.unfinished


def test_a_frame_carries_header_and_batch_as_the_codec_gave_them() -> None:
    [frame] = FrameReader(4096).feed(encode_frame(MESSAGES[1]))
    assert frame == encode(MESSAGES[1])


def test_a_stream_that_ends_inside_a_frame_is_noticed() -> None:
    reader = FrameReader(4096)
    data = encode_frame(MESSAGES[0])
    assert reader.feed(data[:-1]) == []
    assert reader.unfinished
    assert len(reader.feed(data[-1:])) == 1
    assert not reader.unfinished


def test_a_frame_of_exactly_the_bound_passes_and_one_byte_more_does_not() -> None:
    data = encode_frame(MESSAGES[1])
    assert len(FrameReader(len(data)).feed(data)) == 1
    with pytest.raises(ProtocolError, match=f"{len(data) - 1} are allowed"):
        FrameReader(len(data) - 1).feed(data)


def test_an_oversize_frame_is_refused_by_its_length_alone() -> None:
    reader = FrameReader(1024)
    assert reader.feed(b"\xff\xff\xff") == []
    with pytest.raises(ProtocolError, match="a frame of 4294967295 bytes"):
        reader.feed(b"\xff\x01\x00")


@pytest.mark.parametrize(("length", "header"), [(0, 0), (1, 0), (10, 9), (2, 0xFFFF)])
def test_a_header_that_does_not_fit_its_frame_is_refused(length: int, header: int) -> None:
    with pytest.raises(ProtocolError, match="with a header of"):
        FrameReader(1024).feed(PREFIX.pack(length, header))


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_a_protocol_error(data: bytes) -> None:
    try:
        frames = FrameReader(128).feed(data)
    except ProtocolError:
        return
    assert sum(PREFIX.size + len(frame.header) + len(frame.raw) for frame in frames) <= len(data)


def test_ping_and_pong() -> None:
    frames = FrameReader(64).feed(encode_control(PING, 0) + encode_control(PONG, (1 << 64) - 1))
    assert [control(frame) for frame in frames] == [Control(PING, 0), Control(PONG, (1 << 64) - 1)]


@pytest.mark.parametrize("raw", [b"", b"\x01" * 8, b"\x01" * 10, b"\x00" * 9, b"\x03" * 9])
def test_an_unknown_link_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="link frame"):
        control(Frame(b"", raw))


def test_a_message_that_the_format_cannot_hold_is_not_sent() -> None:
    message = ValidateOK(id=ID, ballot=1, invalid=(Invalidator(ID, True),) * 20_000)
    with pytest.raises(ValueError, match="ValidateOK needs a header"):
        encode_frame(message)
