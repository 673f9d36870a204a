"""A fuzzer of the Redis front end: whatever bytes come in whatever pieces, every reply is well-formed, the connection
goes on or is closed behind an error, the state machine never raises, and the next client is served.

In the test run it is short and the same each time. `make fuzz` runs it for as long as one likes, differently each time.
"""

from __future__ import annotations

import os
import time

import hiredis
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings, strategies as st

from epaxos.gateway.items import ParseLimits
from epaxos.gateway.resp import LINE_BYTES, MAX_ARGS, command_bytes
from epaxos.gateway.server import READ_BYTES, Gateway
from epaxos.gateway.table import TABLE
from epaxos.limits import LimitsConfig
from tests.shell.fake_replica import FakeReplica, request

SECONDS = float(os.environ.get("EPAXOS_FUZZ_SECONDS", "0"))
LIMITS = LimitsConfig(batch_bytes=8192, value_bytes=1024, key_bytes=64, pipeline_commands=16, client_reply_bytes=4096)
NOTHING = object()

NAMES = sorted(TABLE)
WORDS = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"{a}1", b"", b"0", b"1", b"-1", b"10", b"*", b"NX", b"XX", b"GET", b"COUNT", b"MATCH"]
    ),
    st.sampled_from([b"9223372036854775807", b"-9223372036854775808", b"1e400", b"nan", b"0x10", b"1.5", b"+1", b" 1"]),
    st.binary(max_size=12),
    st.integers(1, 3000).map(bytes),
)
COMMANDS = st.builds(
    lambda name, words: request(name if isinstance(name, bytes) else name.encode(), *words),
    st.sampled_from(NAMES),
    st.lists(WORDS, max_size=6),
)
INLINE = st.lists(st.one_of(st.sampled_from([b"SET", b"GET", b"PING", b"MULTI", b"EXEC"]), WORDS), max_size=4).map(
    lambda words: b" ".join(words) + b"\r\n"
)
FRAMING = st.sampled_from(
    [
        b"*",
        b"$",
        b"*-1\r\n",
        b"*0\r\n",
        b"*1\r\n",
        b"*3\r\n$3\r\nSET\r\n",
        b"*2\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n" * 50,
        b"*1048576\r\n",
        b"*1048577\r\n",
        b"*99999999999999999999\r\n",
        b"$-1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$1025\r\n",
        b"*1\r\n$99999999999\r\n",
        b"\r\n",
        b"\n",
        b"\0",
        b"'\"\r\n",
        b"\xff" * 40,
        b"~1\r\n+x\r\n",
        b"%1\r\n",
        b"|1\r\n",
    ]
)
SENT = st.lists(st.one_of(COMMANDS, COMMANDS, COMMANDS, INLINE, FRAMING, st.binary(max_size=30)), max_size=30).map(
    b"".join
)
CUTS = st.lists(st.integers(1, 400), min_size=1, max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, again and again; the rest is one piece when there would be too many."""
    found, at = [], 0
    while at < len(data) and len(found) < 60:
        size = cuts[len(found) % len(cuts)]
        found.append(data[at : at + size])
        at += size
    return [*found, data[at:]]


async def hostile(gateway: Gateway, sent: list[bytes]) -> bytes:
    """Send this on a connection, end it, and return everything that came back."""
    client, server = trio.testing.memory_stream_pair()
    received = b""

    async def receive() -> None:
        nonlocal received
        async for data in client:
            received += data

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, server)
        nursery.start_soon(receive)
        for piece in sent:
            try:
                await client.send_all(piece)
            except trio.BrokenResourceError:
                break
            for _ in range(3):
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        await client.send_stream.aclose()
    assert gateway.connections == 0
    return received


def check_replies(received: bytes) -> None:
    """Every reply is whole, and an error has its word."""
    reader = hiredis.Reader(notEnoughData=NOTHING, errors="replace")
    reader.feed(received)
    while (reply := reader.gets()) is not NOTHING:
        if isinstance(reply, hiredis.ReplyError):
            assert str(reply).split(" ")[0].isupper(), reply
    assert not reader.has_data(), "an unfinished reply"


async def witness(gateway: Gateway) -> None:
    """The next client is served."""
    sent = request(b"SET", b"witness", b"1") + request(b"GET", b"witness") + b"PING\r\n"
    assert await hostile(gateway, [sent]) == b"+OK\r\n$1\r\n1\r\n+PONG\r\n"


def test_whatever_is_sent() -> None:
    @settings(
        max_examples=200,
        deadline=None,
        derandomize=not SECONDS,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(sent=SENT, cuts=CUTS)
    def check(sent: bytes, cuts: list[int]) -> None:
        async def main() -> None:
            gateway = Gateway(FakeReplica(), LIMITS)
            check_replies(await hostile(gateway, pieces(sent, cuts)))
            await witness(gateway)

        trio.run(main)

    until_s = time.monotonic() + SECONDS
    check()
    while time.monotonic() < until_s:
        check()


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"*1\r\n" * 100_000, b"-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"*%d\r\n" % (MAX_ARGS + 1), b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*99999999999999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$99999999999999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$-2\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*" + b"1" * (LINE_BYTES + 1), b"-ERR Protocol error: too big mbulk count string\r\n"),
        (b"*1\r\n$" + b"1" * (LINE_BYTES + 1), b"-ERR Protocol error: too big bulk count string\r\n"),
        (b"x" * (LINE_BYTES + 1), b"-ERR Protocol error: too big inline request\r\n"),
        (b'SET "a\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    ],
    ids=[
        "nested",
        "nested deep",
        "count",
        "huge count",
        "huge bulk",
        "negative",
        "endless count",
        "endless bulk",
        "endless line",
        "quotes",
    ],
)
def test_nonsense_is_answered_in_redis_words_and_the_connection_closed(sent: bytes, why: bytes) -> None:
    async def main() -> None:
        gateway = Gateway(FakeReplica(), LimitsConfig())
        assert await hostile(gateway, pieces(sent, [READ_BYTES])) == why
        await witness(gateway)

    trio.run(main)


def test_a_command_that_never_ends_is_refused_at_its_bound() -> None:
    """A million small words: what is held is bounded by the largest command, not by the count that was promised."""

    async def main() -> None:
        gateway = Gateway(FakeReplica(), LIMITS)
        most = command_bytes(ParseLimits.of(LIMITS))
        sent = b"*1048576\r\n" + b"$1\r\na\r\n" * (2 * most // 7)
        received = await hostile(gateway, pieces(sent, [1000]))
        assert received == b"-REJECTED too_large: a command of more than %d bytes on the wire: not applied\r\n" % most
        await witness(gateway)

    trio.run(main)
