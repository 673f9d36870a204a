"""Frames: how messages stand one behind the other on a link. Pure: bytes in, frames out.

::

    u32 length | u16 header length | header | raw          (little-endian; `length` counts what is behind it)

The header is the CBOR array of a message and `raw` the batch it carries (`messages.py`). A frame without a header is
the link's own: `raw` is then `u8 PING or PONG | u64 token`, by which a link measures its round trip and notices that
the other end has gone. Frames begin behind the handshake (`handshake.py`).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from epaxos.errors import ProtocolError
from epaxos.messages import MAX_HEADER_BYTES, Message, encode

PREFIX: Final = struct.Struct("<IH")
LENGTH_BYTES: Final = 4
_CONTROL: Final = struct.Struct("<BQ")

PING: Final = 1
PONG: Final = 2


class Frame(NamedTuple):
    """One frame, taken apart. An empty header means that `raw` is the link's own (`control`)."""

    header: bytes
    raw: bytes


class Control(NamedTuple):
    """A frame of the link's own. A `PONG` repeats the token of the `PING` it answers."""

    kind: int
    token: int


def encode_frame(message: Message) -> bytes:
    """The frame of `message`, the same for every peer. Raises ValueError when its header is longer than the format."""
    header, raw = encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"{type(message).__name__} needs a header of {len(header)} bytes; {MAX_HEADER_BYTES} fit")
    return PREFIX.pack(PREFIX.size - LENGTH_BYTES + len(header) + len(raw), len(header)) + header + raw


def encode_control(kind: int, token: int) -> bytes:
    """The frame of a ping or pong."""
    return PREFIX.pack(PREFIX.size - LENGTH_BYTES + _CONTROL.size, 0) + _CONTROL.pack(kind, token)


def control(frame: Frame) -> Control:
    """The ping or pong that `frame`, which has no header, is. Raises ProtocolError."""
    if len(frame.raw) != _CONTROL.size:
        raise ProtocolError(f"a link frame of {len(frame.raw)} bytes, not {_CONTROL.size}")
    found = Control(*_CONTROL.unpack(frame.raw))
    if found.kind not in (PING, PONG):
        raise ProtocolError(f"link frame of unknown kind {found.kind}")
    return found


class FrameReader:
    """Cuts a stream of bytes into frames. Holds at most one unfinished frame of `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        """Take what was received; return the frames that it completes.

        Raises ProtocolError for a frame longer than the bound, as soon as its length is read, and for one whose
        header does not fit it. Nothing is to be fed after that.
        """
        self._buffer += data
        frames: list[Frame] = []
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= PREFIX.size:
                length, header_bytes = PREFIX.unpack_from(view, at)
                if not PREFIX.size - LENGTH_BYTES + header_bytes <= length <= self._max_bytes - LENGTH_BYTES:
                    raise ProtocolError(
                        f"a frame of {length} bytes with a header of {header_bytes}; {self._max_bytes} are allowed"
                    )
                end = at + LENGTH_BYTES + length
                if end > len(view):
                    break
                middle = at + PREFIX.size + header_bytes
                frames.append(Frame(bytes(view[at + PREFIX.size : middle]), bytes(view[middle:end])))
                at = end
        del self._buffer[:at]
        return frames

    @property
    def unfinished(self) -> bool:
        """Would the end of the stream here cut a frame in two?"""
        return bool(self._buffer)
