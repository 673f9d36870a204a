"""Transactions, passwords and dialects at the front end: what a connection remembers between its commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from epaxos.client import Client, ResponseError
from epaxos.command import READ, WHOLE
from epaxos.config import Address
from epaxos.errors import Rejected
from epaxos.gateway.server import Gateway
from epaxos.gateway.table import TABLE, Shape
from epaxos.gateway.transaction import MAX_WATCHED
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import Op
from epaxos.packing import decode_run, footprint, key_hash
from tests.conftest import MakeConfig
from tests.shell.fake_replica import SECRET, FakeReplica, request
from tests.shell.test_gateway import connected, receive, receive_rest, settled

pytestmark = pytest.mark.trio

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
LOCKED = b"-NOAUTH Authentication required.\r\n"


def words(text: str) -> bytes:
    """Commands, separated by semicolons, as clients send them."""
    return b"".join(request(*(word.encode() for word in each.split())) for each in text.split(";"))


async def ask(client: trio.abc.Stream, text: str, reply: bytes) -> None:
    """Send commands; their replies are these."""
    await client.send_all(words(text))
    assert await receive(client, len(reply)) == reply


@asynccontextmanager
async def two(replica: FakeReplica) -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    """Two clients of one gateway."""
    async with connected(replica) as alice, connected(replica) as bob:
        yield alice, bob


async def test_a_transaction_is_one_command_of_what_it_touches() -> None:
    replica = FakeReplica()
    async with connected(replica) as client:
        await ask(client, "multi; set a 1; get b; ping; hset h f v", OK + QUEUED * 4)
        assert not replica.submitted
        await ask(client, "exec; get a", b"*4\r\n+OK\r\n$-1\r\n+PONG\r\n:1\r\n$1\r\n1\r\n")
    (run, _) = (each.run for each in replica.submitted)
    assert replica.submitted[0].commands == 1
    touched = footprint(run)
    assert touched.writes == {key_hash(SECRET, key) for key in (b"a", b"h")}
    assert touched.reads - touched.writes == {key_hash(SECRET, b"b")}
    assert not touched.whole_read and not touched.whole_write


@pytest.mark.parametrize(
    ("text", "replies"),
    [
        ("multi; exec", [OK, b"*0\r\n"]),
        ("multi; ping; exec", [OK, QUEUED, b"*1\r\n+PONG\r\n"]),
        ("multi; unwatch; set a 1; exec", [OK, QUEUED, QUEUED, b"*2\r\n+OK\r\n+OK\r\n"]),
        ("multi; ping; dbsize; exec", [OK, QUEUED, QUEUED, b"*2\r\n+PONG\r\n:0\r\n"]),
        ("multi; set a 1 foo; exec", [OK, QUEUED, b"*1\r\n-ERR syntax error\r\n"]),
        ("multi; set a 1; discard; exists a", [OK, QUEUED, OK, b":0\r\n"]),
        ("multi; multi; exec", [OK, b"-ERR MULTI calls can not be nested\r\n", b"*0\r\n"]),
        ("multi; watch a; exec", [OK, b"-ERR WATCH inside MULTI is not allowed\r\n", b"*0\r\n"]),
        ("exec; discard", [b"-ERR EXEC without MULTI\r\n", b"-ERR DISCARD without MULTI\r\n"]),
        ("multi; set a 1; reset; exists a", [OK, QUEUED, b"+RESET\r\n", b":0\r\n"]),
        (
            "multi; get; set a 1; exec; exists a",
            [
                *(OK, b"-ERR wrong number of arguments for 'get' command\r\n", QUEUED),
                *(b"-EXECABORT Transaction discarded because of previous errors.\r\n", b":0\r\n"),
            ],
        ),
        (
            "multi; exec now; exec",
            [
                OK,
                b"-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
                b"-ERR EXEC without MULTI\r\n",
            ],
        ),
    ],
)
async def test_the_queue(text: str, replies: list[bytes]) -> None:
    async with connected(FakeReplica()) as client:
        await ask(client, text, b"".join(replies))


@pytest.mark.parametrize(
    "command",
    ["hello 3", "AUTH x", "client SETNAME me", "client setinfo lib-name x", "config resetstat", "epaxos session open"],
)
async def test_what_changes_more_than_keys_has_no_place_in_a_transaction(command: str) -> None:
    replica = FakeReplica()
    async with connected(replica) as client:
        refused = b"-ERR Command not allowed inside a transaction\r\n"
        aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        await ask(client, f"multi; set a 1; {command}; exec", OK + QUEUED + refused + aborted)
        await ask(client, "client getname; get a", b"$-1\r\n" * 2)
    assert replica.resets == 0


@pytest.mark.parametrize("name", sorted(spec.name for spec in TABLE.values() if spec.shape is Shape.LOCAL))
async def test_what_a_command_is_said_to_touch_is_replicated(name: str) -> None:
    spec = TABLE[name.encode()]
    text = "epaxos session open" if name == "epaxos" else " ".join([name, *["1"] * (abs(spec.arity) - 1)])
    replica = FakeReplica()
    async with connected(replica) as client:
        before = words("watch a; multi" if name in ("exec", "discard") else "watch a")
        await client.send_all(before)
        await settled()
        watched = len(replica.submitted)
        await client.send_all(words(text))
        await settled()
        assert (len(replica.submitted) > watched) == (spec.footprint != "nothing")


async def test_quit_is_not_queued() -> None:
    async with connected(FakeReplica()) as client:
        await client.send_all(words("multi; set a 1; quit"))
        assert await receive_rest(client) == OK + QUEUED + OK


async def test_a_watched_key_that_changed_refuses_the_transaction() -> None:
    async with two(FakeReplica()) as (alice, bob):
        await ask(alice, "watch a b; get a", OK + b"$-1\r\n")
        await ask(bob, "set a 1", OK)
        await ask(alice, "multi; set a 2; exec; get a", OK + QUEUED + b"*-1\r\n$1\r\n1\r\n")
        await ask(alice, "multi; set a 3; exec", OK + QUEUED + b"*1\r\n+OK\r\n")


async def test_nobody_watches_after_unwatch_discard_reset_or_an_end() -> None:
    replica = FakeReplica()
    nothing = replica.kv.digest()
    for end in ("unwatch", "multi; discard", "reset", "multi; get; exec"):
        async with connected(replica) as client:
            await client.send_all(words(f"watch a b; {end}; ping"))
            await settled()
            assert replica.kv.digest() == nothing
            await client.send_all(words("watch a; watch a b"))
            await settled()
            assert replica.kv.digest() != nothing
            await client.aclose()
            await settled()
        assert replica.kv.digest() == nothing


async def test_a_watch_that_was_not_applied_refuses_the_transaction() -> None:
    replica = FakeReplica(holding=True)
    async with connected(replica) as client:
        await client.send_all(words("watch a; multi; set a 1; exec"))
        await settled()
        replica.fail(0, Rejected("busy"))
        replica.answer(1)
        expected = b"-BUSY try again: not applied\r\n" + OK + QUEUED + b"*-1\r\n"
        assert await receive(client, len(expected)) == expected


async def test_what_a_transaction_and_a_watch_hold_is_bounded() -> None:
    limits = LimitsConfig(batch_bytes=4 << 10, key_bytes=100, value_bytes=1_000)
    replica = FakeReplica()
    async with connected(replica, limits) as client:
        await ask(client, "multi", OK)
        answers = []
        for _ in range(6):
            await client.send_all(request(b"SET", b"k", bytes(900)))
            await settled()
            answers.append(bytes(await client.receive_some()))
        assert answers[:4] == [QUEUED] * 4
        assert answers[4].startswith(b"-REJECTED too_large: a transaction of more than")
        await ask(client, "exec", b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    async with connected(replica) as client:
        keys = " ".join(f"k{i}" for i in range(MAX_WATCHED))
        await ask(client, f"watch {keys}; watch k1", OK * 2)
        await ask(client, "watch more", b"-REJECTED too_large: 1024 keys are watched at most: not applied\r\n")


async def test_a_watched_key_takes_a_place_in_the_footprint() -> None:
    replica = FakeReplica()
    async with connected(replica) as client:
        await ask(client, "watch w; multi; ping; exec", OK * 2 + QUEUED + b"*1\r\n+PONG\r\n")
        await ask(client, "multi; ping; dbsize; exec", OK + QUEUED * 2 + b"*2\r\n+PONG\r\n:0\r\n")
    _, watched, whole = (decode_run(each.run)[0] for each in replica.submitted)
    assert [(entry.op, entry.flags, entry.key) for entry in watched] == [
        *((Op.EXEC, READ, b"w"), (Op.WATCH, 0, b"w"), (Op.SAY, READ, b"w")),
    ]
    assert {entry.flags for entry in whole} == {READ | WHOLE}


# ------------------------------------------------------------------------------------------------ passwords, dialects


@asynccontextmanager
async def locked(replica: FakeReplica) -> AsyncIterator[trio.abc.Stream]:
    """A connection to a gateway with a password."""
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gateway(replica, LimitsConfig(), password=b"open sesame").serve, server)
        yield client
        nursery.cancel_scope.cancel()


async def test_nothing_is_done_without_the_password() -> None:
    replica = FakeReplica()
    async with locked(replica) as client:
        await ask(client, "set a 1; get a; ping; multi; select x", LOCKED * 5)
        await ask(client, "get", b"-ERR wrong number of arguments for 'get' command\r\n")
        await ask(client, "nosuch", b"-ERR unknown command 'nosuch', with args beginning with: \r\n")
        wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        await ask(client, "auth wrong; auth other open; ping", wrong * 2 + LOCKED)
        assert not replica.submitted
        await client.send_all(request(b"AUTH", b"open sesame") + words("set a 1; reset; get a"))
        assert await receive_rest_of(client, OK * 2 + b"+RESET\r\n" + LOCKED)
        await client.send_all(request(b"AUTH", b"default", b"open sesame") + words("quit"))
        assert await receive_rest(client) == OK * 2


async def receive_rest_of(client: trio.abc.Stream, expected: bytes) -> bool:
    return await receive(client, len(expected)) == expected


async def test_the_native_client_shows_the_password(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:

        async def connect(address: Address) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            client, server = trio.testing.memory_stream_pair()
            gateway = Gateway(FakeReplica(), LimitsConfig(), password=b"open sesame")
            nursery.start_soon(gateway.serve, server)
            return client

        def client(password: bytes | None) -> Client:
            return Client(replace(make_config(1), password=password), connect=connect)

        async with client(b"open sesame") as kv:
            assert await kv.set("k", "v")
            assert await kv.get("k") == b"v"
        async with client(b"open barley") as kv:
            for ask in (kv.incr, kv.get):
                with pytest.raises(
                    ResponseError, match="the password of the configuration is not that of CA"
                ) as raised:
                    await ask("k")
                assert raised.value.code == "WRONGPASS"
        async with client(None) as kv:
            with pytest.raises(ResponseError, match="NOAUTH Authentication required"):
                await kv.get("k")


async def test_hello_takes_the_password() -> None:
    async with locked(FakeReplica()) as client:
        await client.send_all(words("hello 3"))
        assert bytes(await client.receive_some()).startswith(b"-NOAUTH HELLO must be called")
        await client.send_all(request(b"HELLO", b"3", b"AUTH", b"default", b"open sesame", b"SETNAME", b"me"))
        assert bytes(await client.receive_some()).startswith(b"%7\r\n")
        await ask(client, "client getname", b"$2\r\nme\r\n")


async def test_the_dialect_changes_behind_hello_in_one_pipeline() -> None:
    async with connected(FakeReplica()) as client:
        await client.send_all(words("hset h f v; sadd s a; hgetall h; hello 3; hgetall h; smembers s; spop s 1; get x"))
        await settled()
        before, _, after = bytes(await client.receive_some()).partition(b"%7\r\n")
        assert before == b":1\r\n:1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
        assert after.endswith(b"*0\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n~1\r\n$1\r\na\r\n~1\r\n$1\r\na\r\n_\r\n")
        await ask(client, "lpop none 1; multi; hgetall h; get x; exec", b"_\r\n+OK\r\n" + QUEUED * 2 + IN_RESP3)


IN_RESP3 = b"*2\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n_\r\n"
