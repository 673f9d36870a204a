"""Connections of Redis clients: order, pieces, bounds, and every way in which they end."""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
import trio
import trio.testing

from epaxos.errors import Rejected, Unknown
from epaxos.gateway.server import Gateway, serve_clients
from epaxos.limits import LimitsConfig
from epaxos.observe.log import Log
from tests.shell.fake_replica import FakeReplica, request

pytestmark = pytest.mark.trio

LIMITS = LimitsConfig()


@asynccontextmanager
async def connected(
    replica: FakeReplica, limits: LimitsConfig = LIMITS, *, lockstep: bool = False
) -> AsyncIterator[trio.abc.Stream]:
    """The client's end of a connection to a gateway. A lockstep connection has no buffer at all."""
    client: trio.abc.Stream
    server: trio.abc.Stream
    client, server = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gateway(replica, limits).serve, server)
        yield client
        nursery.cancel_scope.cancel()


async def settled() -> None:
    """Until nothing moves any more."""
    await trio.testing.wait_all_tasks_blocked()


async def receive(stream: trio.abc.Stream, size: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        received = await stream.receive_some(size - len(data))
        assert received, data
        data += received
    return data


async def receive_rest(stream: trio.abc.Stream) -> bytes:
    """Everything until the other side closes."""
    data = b""
    async for received in stream:
        data += received
    return data


# --------------------------------------------------------------------------------------------------------- the replies


async def test_a_pipeline_is_answered_in_order_in_one_go() -> None:
    async with connected(FakeReplica()) as client:
        await client.send_all(
            request(b"SET", b"k", b"1") + request(b"INCR", b"k") + b"PING\r\n" + request(b"GET", b"k") + b"NOSUCH\r\n"
        )
        assert await client.receive_some() == (
            b"+OK\r\n:2\r\n+PONG\r\n$1\r\n2\r\n-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
        )


async def test_a_run_is_what_was_received_together() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"GET", b"a") * 3 + request(b"PING") + request(b"GET", b"b"))
        await settled()
        assert [each.commands for each in replica.submitted] == [3, 1]


async def test_replies_wait_for_those_before_them() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(
            request(b"SET", b"a", b"1") + request(b"GET", b"a") + request(b"STRLEN", b"a") + request(b"PING")
        )
        await client.send_all(request(b"GET", b"b"))
        await settled()
        replica.answer(1)
        replica.answer(0, first=2, count=1)
        await settled()
        replica.answer(0, first=0, count=1)
        assert await receive(client, 5) == b"+OK\r\n"
        replica.answer(0, first=1, count=1)
        assert await receive(client, 23) == b"$1\r\n1\r\n:0\r\n+PONG\r\n$-1\r\n"


async def test_what_was_not_applied_or_may_have_been_is_said() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"INCR", b"a") * 6)
        await settled()
        replica.fail(0, Rejected("busy"), 0, 2)
        replica.fail(0, Rejected("deadline", "never proposed"), 2, 1)
        replica.fail(0, Rejected("no_quorum", "1 of 3 replicas answers"), 3, 1)
        replica.fail(0, Unknown("the deadline passed"), 4, 1)
        replica.answer(0, 5, 1)
        expected = (
            b"-BUSY try again: not applied\r\n"
            b"-BUSY try again: not applied\r\n"
            b"-REJECTED deadline: never proposed: not applied\r\n"
            b"-NOQUORUM 1 of 3 replicas answers: not applied\r\n"
            b"-UNKNOWN the deadline passed: may or may not have been applied\r\n"
            b":1\r\n"
        )
        assert await receive(client, len(expected)) == expected


async def test_the_deadline_is_that_of_the_configuration(autojump_clock: trio.testing.MockClock) -> None:
    replica = FakeReplica(holding=True)
    autojump_clock.jump(100)
    async with connected(replica, LimitsConfig(request_timeout_ms=250)) as client:
        await client.send_all(request(b"GET", b"a"))
        await settled()
        assert replica.submitted[0].deadline_us == 100_250_000


async def test_a_connection_is_one_stream_and_each_its_own() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as one, connected(replica) as two:
        for client in (one, two, one):
            await client.send_all(request(b"GET", b"a"))
            await settled()
    streams = [each.stream for each in replica.submitted]
    assert streams[0] == streams[2] != streams[1]


async def test_in_resp3_nothing_is_said_otherwise_from_the_next_command_on() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"GET", b"a") + request(b"HELLO", b"3") + request(b"MGET", b"a", b"b"))
        await settled()
        replica.answer(0)
        replica.answer(1)
        assert await receive(client, 7) == b"$-1\r\n%7"
        await settled()
        assert bytes(await client.receive_some()).endswith(b"*0\r\n*2\r\n_\r\n_\r\n")


async def test_info_says_what_came_and_went() -> None:
    gateway = Gateway(FakeReplica(), LimitsConfig(connections=1))
    async with trio.open_nursery() as nursery:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(gateway.serve, server)
        await client.send_all(b"PING\r\n")
        assert await receive(client, 7) == b"+PONG\r\n"
        _late, turned_away = trio.testing.memory_stream_pair()
        await gateway.serve(turned_away)
        await client.send_all(b"INFO stats\r\n")
        await settled()
        said = bytes(await client.receive_some()).split(b"\r\n")
        assert {b"total_connections_received:2", b"rejected_connections:1"} <= set(said)
        assert {b"total_net_input_bytes:18", b"total_net_output_bytes:7"} <= set(said)
        nursery.cancel_scope.cancel()


async def test_status_and_counters_of_the_replica() -> None:
    replica = FakeReplica()
    async with connected(replica) as client:
        await client.send_all(request(b"EPAXOS", b"STATUS") + request(b"EPAXOS", b"RESETSTATS"))
        assert await client.receive_some() == b'$29\r\n{"commands": 0, "name": "CA"}\r\n+OK\r\n'
        assert replica.resets == 1


# ---------------------------------------------------------------------------------------------------------- the bounds


async def test_a_pipeline_is_not_read_further_than_its_bound() -> None:
    replica = FakeReplica(holding=True)
    limits = LimitsConfig(pipeline_commands=8)
    async with connected(replica, limits) as client:
        await client.send_all(request(b"INCR", b"n") * 100)
        await settled()
        assert replica.commands == 8
        for at in range(13):
            replica.answer(at)
            await settled()
            assert replica.commands <= 8 * (at + 2)
        assert replica.commands == 100
        expected = b"".join(b":%d\r\n" % i for i in range(1, 101))
        assert await receive(client, len(expected)) == expected


async def test_commands_for_this_replica_count_too_while_they_wait_for_others() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica, LimitsConfig(pipeline_commands=8)) as client:
        await client.send_all(request(b"GET", b"a") + b"PING\r\n" * 20 + request(b"GET", b"b"))
        await settled()
        assert replica.commands == 1
        replica.holding = False
        replica.answer(0)
        assert await receive(client, 5 + 20 * 7 + 5) == b"$-1\r\n" + b"+PONG\r\n" * 20 + b"$-1\r\n"


async def test_a_client_that_never_reads_is_not_served_for_ever() -> None:
    replica = FakeReplica()
    limits = LimitsConfig(pipeline_commands=4, client_reply_bytes=10_000)
    async with connected(replica, limits, lockstep=True) as client, trio.open_nursery() as nursery:
        await client.send_all(request(b"SET", b"k", b"v" * 5_000))
        assert await receive(client, 5) == b"+OK\r\n"
        nursery.start_soon(client.send_all, request(b"GET", b"k") * 1_000)
        await settled()
        stopped_at = replica.commands
        assert stopped_at <= 1 + 4 * 4
        await settled()
        assert replica.commands == stopped_at
        reply = b"$5000\r\n" + b"v" * 5_000 + b"\r\n"
        assert await receive(client, 1_000 * len(reply)) == reply * 1_000
        assert replica.commands == 1_001


async def test_too_many_clients_are_told_so() -> None:
    gateway = Gateway(FakeReplica(), LimitsConfig(connections=1))
    pairs = [trio.testing.memory_stream_pair() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, pairs[0][1])
        await settled()
        await gateway.serve(pairs[1][1])
        assert await receive_rest(pairs[1][0]) == b"-ERR max number of clients reached\r\n"
        await pairs[0][0].aclose()
        await settled()
        nursery.start_soon(gateway.serve, pairs[2][1])
        await pairs[2][0].send_all(b"PING\r\n")
        assert await pairs[2][0].receive_some() == b"+PONG\r\n"
        nursery.cancel_scope.cancel()
    assert gateway.connections == 0


# ------------------------------------------------------------------------------------------------------------- the end


async def test_quit_is_answered_after_everything_before_it_and_nothing_after_it_is_done() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"SET", b"k", b"v") + request(b"QUIT") + request(b"DEL", b"k"))
        await settled()
        replica.answer(0)
        assert await receive_rest(client) == b"+OK\r\n+OK\r\n"
        assert replica.commands == 1
        assert replica.cancelled == []


async def test_a_breach_of_the_protocol_is_answered_after_everything_before_it() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"SET", b"k", b"v") + b"*1\r\n:4\r\n" + request(b"DEL", b"k"))
        await settled()
        replica.answer(0)
        assert await receive_rest(client) == b"+OK\r\n-ERR Protocol error: expected '$', got ':'\r\n"
        assert replica.commands == 1


@pytest.mark.parametrize("password", [None, b"pw"])
async def test_a_web_page_that_sends_commands_is_cut_off_at_its_first_word(password: bytes | None) -> None:
    replica, out = FakeReplica(), io.StringIO()
    client, server = trio.testing.memory_stream_pair()
    gateway = Gateway(replica, LIMITS, password=password, log=Log("CA", out=out))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, server)
        await client.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET pwn 1\r\nQUIT\r\n")
        assert await receive_rest(client) == b""
    assert not replica.submitted and gateway.connections == 0
    assert json.loads(out.getvalue())["event"] == "client_closed"


async def test_a_client_that_leaves_cancels_what_it_waits_for() -> None:
    replica = FakeReplica(holding=True)
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gateway(replica, LIMITS).serve, server)
        await client.send_all(request(b"GET", b"a") * 2 + request(b"PING") + request(b"GET", b"b"))
        await settled()
        replica.answer(0, 0, 1)
        replica.answer(1)
        await client.aclose()
    assert replica.cancelled == [replica.submitted[0].waiter]
    replica.answer(0, 1, 1)
    assert replica.commands == 3


async def test_a_connection_that_breaks_while_replies_are_sent_ends_quietly() -> None:
    replica = FakeReplica(holding=True)
    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gateway(replica, LIMITS).serve, server)
        await client.send_all(request(b"GET", b"a") + request(b"PING") + request(b"GET", b"b"))
        await settled()
        replica.answer(0)
        await settled()
        await client.receive_stream.aclose()
    assert replica.cancelled == [replica.submitted[1].waiter]


async def test_a_connection_that_is_reset_ends_quietly() -> None:
    replica = FakeReplica(holding=True)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        server = await listener.accept()
    await client.send_all(request(b"GET", b"a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gateway(replica, LIMITS).serve, server)
        await replica.has_submitted.wait()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
    assert replica.cancelled == [replica.submitted[0].waiter]


async def test_a_client_that_is_turned_away_may_be_gone_already() -> None:
    gateway = Gateway(FakeReplica(), LimitsConfig(connections=1))
    _stays, first = trio.testing.memory_stream_pair()
    gone, second = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, first)
        await settled()
        await gone.aclose()
        await gateway.serve(second)
        assert gateway.connections == 1
        nursery.cancel_scope.cancel()


async def test_a_server_that_stops_cancels_what_its_clients_wait_for() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(request(b"GET", b"a"))
        await settled()
    assert replica.cancelled == [replica.submitted[0].waiter]


# ------------------------------------------------------------------------------------------------- with a real client


def exercise(port: int, protocol: int) -> None:
    """What redis-py does on the way, and with pipelines."""
    with redis.Redis(port=port, protocol=protocol, client_name="me") as client:
        assert client.set("k", "v") is True
        assert client.set("k", "w", nx=True) is None
        assert client.set("k", "w", get=True) == b"v"
        assert client.get("none") is None
        assert client.mget("k", "none") == [b"w", None]
        assert client.incrby("n", 5) == 5
        assert client.exists("k", "n", "none") == 2
        assert client.client_getname() in ("me", b"me")
        assert client.config_get("save") == {"save": ""}
        assert client.info("replication")["role"] == "master"
        pipeline = client.pipeline(transaction=False)
        for _ in range(300):
            pipeline.incr("many")
        assert pipeline.execute() == list(range(1, 301))
        with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
            client.incr("k")
        with pytest.raises(redis.ResponseError, match="unknown command 'ZADD', with args beginning with: 'z' '1' 'a' "):
            client.zadd("z", {"a": 1})


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_is_at_home(protocol: int) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_clients(FakeReplica(), listeners, limits=LIMITS))
        await trio.to_thread.run_sync(exercise, port, protocol)
        nursery.cancel_scope.cancel()
