"""Sessions through a whole replica: for embedders (`Replica.session`) and for clients of the gateway (`EPAXOS …`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

import epaxos
from bench.cluster import free_ports
from bench.resp import ErrorReply, RespConnection
from epaxos.config import Config
from epaxos.gateway.server import Gateway
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import Kv
from tests.conftest import ClusterText

pytestmark = pytest.mark.trio


class Total(epaxos.StateMachine):
    """Adds numbers up, and says how many commands there were."""

    def __init__(self) -> None:
        self.total = self.commands = 0

    def apply(self, command: bytes) -> bytes:
        self.total += int(command)
        self.commands += 1
        return b"%d" % self.total

    def save(self) -> Iterable[bytes]:
        return [b"%d %d" % (self.total, self.commands)]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.total, self.commands = map(int, b"".join(chunks).split())


@pytest.fixture
def alone(cluster_text: ClusterText) -> Config:
    return Config.parse(cluster_text(1, ports=free_ports(2)), source="test")


# ----------------------------------------------------------------------------------------------------------- embedding


async def test_a_number_that_is_proposed_twice_takes_effect_once(alone: Config, tmp_path: Path) -> None:
    machine = Total()
    async with epaxos.open_replica(alone, "CA", machine, data=tmp_path) as replica, replica.session() as session:
        number = session.take()
        for _ in range(3):
            assert await session.propose(b"5", writes=[b"t"], number=number) == b"5"
        assert await session.propose(b"5", writes=[b"t"]) == b"10"
        assert (machine.total, machine.commands, session.last) == (10, 2, 2)
        assert [entry.payload async for entry in _first(replica.log(), 2)] == [b"5", b"5"]


async def test_a_session_outlives_its_program(alone: Config, tmp_path: Path) -> None:
    async with (
        epaxos.open_replica(alone, "CA", Total(), data=tmp_path) as replica,
        replica.session(close=False) as session,
    ):
        name, number = session.id, session.take()
        await session.propose(b"5", writes=[b"t"], number=number)
    machine = Total()
    async with epaxos.open_replica(alone, "CA", machine, data=tmp_path) as replica:
        async with replica.session(resume=(name, number - 1)) as session:
            assert session.take() == number
            assert await session.propose(b"5", writes=[b"t"], number=number) == b"5"
            assert await session.propose(b"1", writes=[b"t"]) == b"6"
        assert (machine.total, machine.commands) == (6, 2)
        async with replica.session(resume=(name, number)) as session:
            with pytest.raises(epaxos.Rejected, match="session_closed"):
                await session.propose(b"1", writes=[b"t"])


async def test_a_fifo_session_keeps_its_order_and_queries_have_numbers_too(alone: Config, tmp_path: Path) -> None:
    async with (
        epaxos.open_replica(alone, "CA", Total(), data=tmp_path) as replica,
        replica.session(fifo=True) as session,
    ):
        first, second = session.take(), session.take()
        with pytest.raises(epaxos.Rejected, match="out_of_order"):
            await session.propose(b"2", writes=[b"t"], number=second)
        assert await session.propose(b"1", writes=[b"t"], number=first) == b"1"
        assert await session.propose(b"2", writes=[b"t"], number=second) == b"3"
        assert await session.propose(b"0", reads=[b"t"]) == b"3"


@pytest.mark.parametrize("resume", [("x", 0), ("0.1", 0), ("0.1.-1", 0), ("0.1.1", -1), ("0.1.1", 1 << 63)])
async def test_what_is_resumed_is_a_session_and_its_last_number(
    alone: Config, tmp_path: Path, resume: tuple[str, int]
) -> None:
    async with epaxos.open_replica(alone, "CA", Total(), data=tmp_path) as replica:
        with pytest.raises(ValueError, match=r"names no session|is no number"):
            async with replica.session(resume=resume):
                raise AssertionError("opened")


@pytest.mark.parametrize("number", [0, -1, 1 << 63])
async def test_numbers_begin_at_one(alone: Config, tmp_path: Path, number: int) -> None:
    async with epaxos.open_replica(alone, "CA", Total(), data=tmp_path) as replica, replica.session() as session:
        with pytest.raises(ValueError, match=f"{number} is no number of a session: they begin at 1"):
            await session.propose(b"5", writes=[b"t"], number=number)


async def test_a_query_needs_no_session(alone: Config, tmp_path: Path) -> None:
    async with epaxos.open_replica(alone, "CA", Total(), data=tmp_path) as replica, replica.session() as session:
        with pytest.raises(epaxos.Rejected, match="only reads"):
            await session.propose(b"0", reads=[b"t"])


async def _first(entries: AsyncIterator[epaxos.LogEntry], count: int) -> AsyncIterator[epaxos.LogEntry]:
    for _ in range(count):
        yield await anext(entries)


# --------------------------------------------------------------------------------------------------------- the gateway


@asynccontextmanager
async def connection(alone: Config, path: Path) -> AsyncIterator[RespConnection]:
    async with stream(alone, path) as mine, RespConnection(mine) as found:
        yield found


@asynccontextmanager
async def stream(alone: Config, path: Path) -> AsyncIterator[trio.abc.Stream]:
    async with epaxos.open_replica(alone, "CA", Kv(), data=path) as replica, trio.open_nursery() as nursery:
        mine, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(Gateway(replica, LimitsConfig()).serve, theirs)
        async with mine:
            yield mine


async def test_a_call_that_is_repeated_has_one_reply(alone: Config, tmp_path: Path) -> None:
    async with connection(alone, tmp_path) as client:
        handle = (await client.call("EPAXOS", "SESSION", "OPEN")).decode()
        for _ in range(2):
            assert await client.call("EPAXOS", "CALL", handle, "1", "0", "INCR", "k") == 1
        assert await client.call("EPAXOS", "CALL", handle, "2", "1", "SET", "k", "7", "GET") == b"1"
        assert await client.call("EPAXOS", "CALL", handle, "3", "2", "MSET", "a", "1", "b", "2") == b"OK"
        assert await client.call("GET", "k") == b"7"
        assert await client.call("EPAXOS", "SESSION", "CLOSE", handle) == b"OK"
        with pytest.raises(ErrorReply, match="REJECTED session_closed"):
            await client.call("EPAXOS", "CALL", handle, "4", "3", "INCR", "k")


@pytest.mark.parametrize(("first", "second"), [(2, 3), (3, 2)])
async def test_the_copies_of_a_call_are_one_whatever_the_dialect(
    alone: Config, tmp_path: Path, first: int, second: int
) -> None:
    async with stream(alone, tmp_path) as client:
        await client.send_all(b"SADD s a b\r\nEPAXOS SESSION OPEN\r\n")
        handle = (await receive(client, 4 + 4 + 7)).split(b"\r\n")[2]
        replies = []
        for dialect in (first, second):
            await client.send_all(b"HELLO %d\r\nEPAXOS CALL %b 1 0 SPOP s 1\r\n" % (dialect, handle))
            replies.append((await receive(client, 0, b"modules\r\n*0\r\n*1\r\n$1\r\na\r\n"))[-11:])
        assert replies == [b"*1\r\n$1\r\na\r\n"] * 2


async def receive(client: trio.abc.Stream, size: int, end: bytes = b"\r\n") -> bytes:
    """At least so many bytes, up to such an end."""
    data = b""
    while len(data) < size or not data.endswith(end):
        received = await client.receive_some()
        assert received, data
        data += received
    return data


async def test_what_is_wrong_with_a_call_is_said(alone: Config, tmp_path: Path) -> None:
    async with connection(alone, tmp_path) as client:
        handle = (await client.call("epaxos", "session", "open", "fifo")).decode()
        for words, why in (
            (("CALL", handle, "1", "0"), "wrong number of arguments for 'epaxos|call' command"),
            (("CALL", "x", "1", "0", "INCR", "k"), "not the handle of a session"),
            (("CALL", handle, "one", "0", "INCR", "k"), "not an integer"),
            (("CALL", handle, "-1", "0", "INCR", "k"), "not an integer"),
            (("CALL", handle, "1", "1", "INCR", "k"), "REJECTED malformed: number 1 is not within"),
            (("CALL", handle, "1", "0", "INCR"), "wrong number of arguments for 'incr' command"),
            (("CALL", handle, "1", "0", "NOPE"), "unknown command 'NOPE'"),
            (("CALL", handle, "1", "0", "PING"), "'ping' has no place in a session"),
            (("SESSION", "OPEN", "LIFO"), "syntax error"),
            (("SESSION", "CLOSE"), "syntax error"),
            (("SESSION",), "wrong number of arguments"),
            (("SESSION", "CLOSE", "1.2"), "not the handle"),
        ):
            with pytest.raises(ErrorReply, match=why.replace("|", r"\|")):
                await client.call("EPAXOS", *words)
        with pytest.raises(ErrorReply, match="REJECTED out_of_order"):
            await client.call("EPAXOS", "CALL", handle, "2", "0", "GET", "k")
        assert await client.call("EPAXOS", "CALL", handle, "1", "0", "GET", "k") is None
