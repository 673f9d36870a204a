"""The handshake: what a hello may be, and who does not talk to whom, and why."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, strategies as st

from epaxos import cbor
from epaxos.errors import ProtocolError
from epaxos.identity import Acquaintance
from epaxos.net import handshake
from epaxos.net.handshake import (
    MAGIC,
    MAX_BODY_BYTES,
    MAX_NAME_CHARS,
    MAX_TEXT_BYTES,
    PREFIX,
    VERDICT,
    Hello,
    body_length,
    decode_hello,
    decode_verdict,
    encode_hello,
    encode_verdict,
    fingerprint,
    objection,
    verdict_length,
)

NAMES = ("CA", "VA", "IR")
SECRET = fingerprint(b"secret")
DISK = "0123456789abcdef" * 2


def hello(replica: int, **changes: Any) -> Hello:
    plain = Hello(
        cluster="shop",
        replica=replica,
        name=NAMES[replica],
        disk=DISK,
        incarnation=4,
        n=3,
        protocol="epaxos",
        secret=SECRET,
    )
    return dataclasses.replace(plain, **changes)


CA, VA = hello(0), hello(1)


def decode(data: bytes) -> Hello:
    prefix, body = data[: PREFIX.size], data[PREFIX.size :]
    assert body_length(prefix) == len(body)
    return decode_hello(prefix, body)


def with_body(table: object) -> bytes:
    body = cbor.dumps(table)
    return PREFIX.pack(MAGIC, 1, 1, len(body)) + body


def body_of(hello: Hello) -> dict[str, Any]:
    table = cbor.loads(encode_hello(hello)[PREFIX.size :])
    assert isinstance(table, dict)
    return table


def test_a_hello_comes_in_as_it_went_out() -> None:
    for said in (CA, VA, hello(2, lowest=1, highest=7, incarnation=(1 << 64) - 1, name="Ω" * 64)):
        assert decode(encode_hello(said)) == said


def test_what_a_later_release_adds_is_ignored() -> None:
    assert decode(with_body({**body_of(CA), "zone": ["eu", 3]})) == CA


@pytest.mark.parametrize("first", [b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r", b"\x16\x03\x01" + bytes(11)])
def test_other_protocols_are_told_from_replicas(first: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a replica"):
        body_length(first[: PREFIX.size])


@pytest.mark.parametrize("length", [0, MAX_BODY_BYTES + 1, 0xFFFF])
def test_the_length_of_a_hello_is_bounded(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"a hello of {length} bytes"):
        body_length(PREFIX.pack(MAGIC, 1, 1, length))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster", ""),
        ("cluster", "x" * 65),
        ("cluster", "two\nlines"),
        ("cluster", b"shop"),
        ("replica", -1),
        ("replica", 13),
        ("replica", True),
        ("name", 7),
        ("disk", DISK[:-1]),
        ("disk", DISK.upper()),
        ("disk", bytes.fromhex(DISK)),
        ("incarnation", 0),
        ("incarnation", 1.5),
        ("n", 0),
        ("n", 14),
        ("protocol", None),
        ("conflict", -1),
        ("secret", b"1234567"),
        ("secret", "12345678"),
    ],
)
def test_a_hello_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ProtocolError, match=f"hello: {name} is "):
        decode(with_body({**body_of(CA), name: value}))


def test_a_hello_that_lacks_something_is_refused_by_name() -> None:
    for name in body_of(CA):
        table = body_of(CA)
        del table[name]
        with pytest.raises(ProtocolError, match=f"hello: {name} is None"):
            decode(with_body(table))


def test_a_hello_is_a_map_and_its_versions_a_range() -> None:
    with pytest.raises(ProtocolError, match="not a map"):
        decode(with_body([1]))
    with pytest.raises(ProtocolError, match="versions 2 to 1"):
        decode_hello(PREFIX.pack(MAGIC, 2, 1, 1), b"\xa0")


@given(body=st.binary(min_size=1, max_size=MAX_BODY_BYTES))
def test_garbage_raises_nothing_but_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_hello(PREFIX.pack(MAGIC, 1, 1, len(body)), body)


def judge(mine: Hello, theirs: Hello, expected: int | None = None, known: Acquaintance | None = None) -> str:
    return objection(mine, theirs, names=NAMES, expected=expected, known=known)


def test_members_of_one_cluster_talk() -> None:
    assert judge(CA, VA) == judge(VA, CA) == judge(CA, VA, expected=1, known=Acquaintance(DISK, 4)) == ""
    assert judge(CA, hello(1, lowest=1, highest=9)) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lowest": 2, "highest": 3}, "wire versions: 1-1 here, 2-3 there"),
        ({"cluster": "toys"}, "cluster: shop here, toys there"),
        ({"n": 5}, "number of replicas: 3 here, 5 there"),
        ({"protocol": "raft"}, "protocol: epaxos here, raft there"),
        ({"conflict": 2}, "version of the conflict function: 1 here, 2 there"),
        ({"secret": fingerprint(b"another")}, "the secrets of the two configurations differ"),
        ({"name": "IR"}, "replica 1 is VA here, IR there"),
        ({"replica": 7}, "replica 7 is nobody here, VA there"),
        ({"replica": 0, "name": "CA"}, "both ends are CA"),
        ({"replica": 2, "name": "IR"}, "VA was called, IR answered"),
        ({"incarnation": 3}, "incarnation 3 of VA is over: 4 was seen. Either it runs twice, or on an old copy of its"),
        ({"disk": "0" * 32}, "VA came with another disk than the one known here: its data was lost or replaced, and"),
    ],
)
def test_whoever_does_not_belong_is_told_why(changes: dict[str, Any], why: str) -> None:
    objection = judge(CA, dataclasses.replace(VA, **changes), expected=1, known=Acquaintance(DISK, 4))
    assert objection.startswith(why)
    assert len(objection) + MAX_NAME_CHARS <= MAX_TEXT_BYTES, "it reaches the other end whole, however long a name is"


def test_verdicts() -> None:
    for text in ("", "cluster: shop here, toys there"):
        data = encode_verdict(text)
        assert verdict_length(data[: VERDICT.size]) == len(data) - VERDICT.size
        assert decode_verdict(data[VERDICT.size :]) == text


def test_a_verdict_is_bounded_and_fit_to_be_shown() -> None:
    assert len(encode_verdict("é" * 10_000)) == VERDICT.size + MAX_TEXT_BYTES
    with pytest.raises(ProtocolError, match="a verdict of 513 bytes"):
        verdict_length(VERDICT.pack(MAX_TEXT_BYTES + 1))
    assert decode_verdict(b"a\x1b[31m\n\xff") == "a?[31m?\ufffd"


def test_the_fingerprint_tells_secrets_apart_and_does_not_show_them() -> None:
    assert fingerprint(b"a" * 16) == fingerprint(b"a" * 16) != fingerprint(b"b" * 16)
    assert len(SECRET) == handshake.FINGERPRINT_BYTES
    assert SECRET not in b"secret"
