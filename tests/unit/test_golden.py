"""Version 1 of the wire, byte for byte, as `tests/golden/wire-1.txt` pins it.

A change of these bytes is a change of the version. `EPAXOS_REWRITE_GOLDEN=1 pytest tests/unit/test_golden.py` writes
the file anew, for bytes that are added.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from epaxos.command import NOP, READ, WHOLE, Batch, Entry
from epaxos.ids import BatchNumber, InstanceId
from epaxos.messages import (
    TABLE,
    Accept,
    AcceptOK,
    AppendEntries,
    AppendOK,
    Commit,
    CommitQuery,
    Forward,
    Invalidator,
    Message,
    Nack,
    PreAccept,
    PreAcceptOK,
    ReadIndex,
    ReadIndexOK,
    Recover,
    RecoverOK,
    RequestVote,
    SlotRange,
    TimeoutNow,
    Validate,
    ValidateOK,
    Vote,
    Waiting,
    decode,
)
from epaxos.net.frames import PING, PONG, FrameReader, control, encode_control, encode_frame
from epaxos.net.handshake import PREFIX, Hello, decode_hello, encode_hello, encode_verdict, fingerprint
from epaxos.packing import encode_run

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "wire-1.txt"
SECRET = bytes(range(16))
ID = InstanceId(0, 118, 1)
DEP, MORE = (7, 117, 300), (7, 117, 70_000)
BATCH = Batch.of(
    BatchNumber(1, 5, 1000),
    encode_run(
        SECRET,
        [
            (Entry(1, 0, b"colour", b"blue"),),
            (Entry(2, READ, b"a", b""), Entry(2, READ, b"b", b"")),
            (Entry(3, WHOLE | READ, b"", b"*"),),
        ],
    ),
)
MESSAGES: tuple[Message, ...] = (
    PreAccept(id=ID, payload=BATCH, init_dep=DEP),
    PreAcceptOK(id=ID, dep=MORE),
    Accept(id=ID, ballot=0, payload=BATCH, dep=MORE),
    AcceptOK(id=ID, ballot=5, nop=True, dep=(0, 0, 0)),
    Commit(id=ID, payload=None, dep=MORE),
    Recover(epoch=0, lane=1, first=118, last=1117, ballot=5),
    RecoverOK(id=ID, ballot=5, abal=2, phase=2, nop=False, payload=BATCH, dep=MORE, registered=True, init_dep=DEP),
    Validate(id=ID, ballot=5, payload=BATCH, init_dep=DEP, dep=MORE),
    ValidateOK(
        id=ID, ballot=5, invalid=(Invalidator(InstanceId(0, 301, 2), True), Invalidator(InstanceId(0, 8, 0), False))
    ),
    Waiting(id=ID, k=1, dep=MORE),
    Nack(id=ID, ballot=8),
    CommitQuery(epoch=0, ranges=(SlotRange(0, 1, 7), SlotRange(2, 300, (1 << 62) - 1)), fresh=True),
    RequestVote(term=7, last_index=300, last_term=6, pre=True, transfer=False),
    Vote(term=7, granted=True, pre=False),
    AppendEntries(term=7, prev_index=300, prev_term=6, entry_term=7, payload=BATCH, commit=299, round=5),
    AppendOK(term=7, ok=False, index=300, hint=200, hint_term=4, round=5),
    Forward(payload=BATCH),
    ReadIndex(incarnation=5, number=1000),
    ReadIndexOK(incarnation=5, number=1000, index=300),
    TimeoutNow(term=7),
)
MORE_FORMS: dict[str, Message] = {
    "Accept with NOP": Accept(id=ID, ballot=5, payload=NOP, dep=(0, 0, 0)),
    "Commit with batch": Commit(id=ID, payload=BATCH, dep=MORE),
    "Commit with NOP": Commit(id=ID, payload=NOP, dep=(0, 0, 0)),
    "AppendEntries with NOP": AppendEntries(
        term=7, prev_index=300, prev_term=6, entry_term=7, payload=NOP, commit=299, round=0
    ),
    "AppendEntries without": AppendEntries(
        term=7, prev_index=300, prev_term=6, entry_term=0, payload=None, commit=299, round=5
    ),
    "RecoverOK knowing nothing": RecoverOK(
        id=ID, ballot=5, abal=0, phase=0, nop=False, payload=None, dep=(0, 0, 0), registered=False, init_dep=(0, 0, 0)
    ),
}
BY_NAME = {type(message).__name__: message for message in MESSAGES} | MORE_FORMS
HELLO = Hello(
    cluster="shop",
    replica=1,
    name="VA",
    disk=SECRET.hex(),
    incarnation=5,
    n=3,
    protocol="epaxos",
    secret=fingerprint(SECRET),
)
OTHERS = {
    "hello": encode_hello(HELLO),
    "verdict good": encode_verdict(),
    "verdict bad": encode_verdict("cluster: shop here, toys there"),
    "ping": encode_control(PING, 0x0102030405060708),
    "pong": encode_control(PONG, 0x0102030405060708),
}


def current() -> dict[str, bytes]:
    """What this source writes today."""
    return {name: encode_frame(message) for name, message in BY_NAME.items()} | OTHERS


@pytest.fixture(scope="module")
def golden() -> dict[str, bytes]:
    if os.environ.get("EPAXOS_REWRITE_GOLDEN"):
        GOLDEN.write_text("".join(f"{name}: {data.hex()}\n" for name, data in current().items()))
    lines = (line.rpartition(": ") for line in GOLDEN.read_text().splitlines())
    return {name: bytes.fromhex(data) for name, _, data in lines}


def test_every_message_has_its_bytes(golden: dict[str, bytes]) -> None:
    assert {type(message) for message in MESSAGES} == set(TABLE.values())
    assert list(golden) == list(current())


@pytest.mark.parametrize("name", [*BY_NAME, *OTHERS])
def test_the_bytes_are_those_of_version_1(golden: dict[str, bytes], name: str) -> None:
    assert current()[name].hex() == golden[name].hex()


@pytest.mark.parametrize("name", BY_NAME)
def test_the_bytes_of_version_1_are_still_read(golden: dict[str, bytes], name: str) -> None:
    [frame] = FrameReader(1 << 16).feed(golden[name])
    assert decode(frame.header, frame.raw, 3) == BY_NAME[name]


def test_the_link_s_own_bytes_are_still_read(golden: dict[str, bytes]) -> None:
    frames = FrameReader(64).feed(golden["ping"] + golden["pong"])
    assert [control(frame) for frame in frames] == [(PING, 0x0102030405060708), (PONG, 0x0102030405060708)]
    assert decode_hello(golden["hello"][: PREFIX.size], golden["hello"][PREFIX.size :]) == HELLO
