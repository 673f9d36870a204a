"""A FIFO client: commands take effect in the order in which they were issued, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

import epaxos
from bench.cluster import free_ports
from epaxos.client import Client, ResponseError
from epaxos.config import Address, Config
from epaxos.errors import Rejected, Unknown
from epaxos.gateway.server import Gateway
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import Kv
from tests.conftest import ClusterText, MakeConfig
from tests.shell.test_client_sessions import CLOSED, NOT_KEPT, OPENED, Played, call, scripted

pytestmark = pytest.mark.trio

QUESTION = (b"EXISTS", b"")


async def test_commands_go_one_at_a_time_in_the_order_in_which_they_were_issued(make_config: MakeConfig) -> None:
    replies: list[object] = []

    async def ask(kv: Client, *words: str) -> None:
        replies.append(await kv.execute(*words))

    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, lambda words: OPENED if words[1:2] == [b"SESSION"] else b"")
        async with played.client(fifo=True) as kv, trio.open_nursery() as callers:
            for words in (("SET", "k", "1"), ("GET", "k"), ("INCR", "k")):
                callers.start_soon(ask, kv, *words)
                await trio.testing.wait_all_tasks_blocked()
            expected = [
                (b"+OK\r\n", call(1, 0, b"SET", b"k", b"1")),
                (b"$1\r\n1\r\n", call(2, 1, b"GET", b"k")),
                (b":2\r\n", call(3, 2, b"INCR", b"k")),
            ]
            for turn, (reply, words) in enumerate(expected, start=1):
                assert [each for _, each in played.calls][turn - 1 :] == [words]
                await played.streams[0].send_all(reply)
                await trio.testing.wait_all_tasks_blocked()
            played.answer = scripted()
    assert played.asked[0][1] == [b"EPAXOS", b"SESSION", b"OPEN", b"FIFO"]
    assert replies == [b"OK", b"1", 2]


async def test_a_number_without_a_result_is_given_to_a_question(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    wrong = b"-ERR wrong number of arguments for 'incr' command\r\n"
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(wrong, b":0\r\n", b":1\r\n"))
        async with played.client(fifo=True) as kv:
            with pytest.raises(ResponseError, match="wrong number"):
                await kv.execute("INCR")
            assert await kv.incr("k") == 1
            sent = [words for _, words in played.calls]
            assert sent == [call(1, 0, b"INCR"), call(1, 0, *QUESTION), call(2, 1, b"INCR", b"k")]
            played.answer = lambda words: None
            with pytest.raises(Unknown):
                await kv.incr("k")
            with pytest.raises(Rejected, match="out_of_order: what became of the command before is not known"):
                await kv.incr("k")
            assert {tuple(words) for _, words in played.calls[3:]} == {
                tuple(call(3, 2, b"INCR", b"k")),
                tuple(call(3, 2, *QUESTION)),
            }
            played.answer = scripted(b"-ERR value is not an integer or out of range\r\n", b":2\r\n")
            assert await kv.incr("k") == 2, "the command before had taken effect, such as it was"
    assert [words for _, words in played.calls[-2:]] == [call(3, 2, *QUESTION), call(4, 3, b"INCR", b"k")]


async def test_a_session_that_has_ended_leaves_no_gap(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b"-ERR no\r\n", CLOSED, b":1\r\n"))
        async with played.client(fifo=True) as kv:
            with pytest.raises(ResponseError):
                await kv.incr("k")
            assert await kv.incr("k") == 1
    assert played.calls[-1][1] == call(1, 0, b"INCR", b"k")


async def test_a_command_whose_result_is_not_kept_leaves_no_gap(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    """A command that only reads is asked again under another number."""
    async with trio.open_nursery() as nursery:
        lost = (None, NOT_KEPT, NOT_KEPT)
        played = Played(make_config, nursery, scripted(*lost, b"$1\r\n1\r\n", *lost, b":2\r\n"))
        async with played.client(fifo=True) as kv:
            assert await kv.get("k") == b"1"
            with pytest.raises(Unknown, match="its result is not kept"):
                await kv.incr("k")
            assert await kv.incr("k") == 2
    read, write = (b"GET", b"k"), (b"INCR", b"k")
    assert [words for _, words in played.calls] == [
        *(call(1, 0, *read), call(1, 0, *read), call(1, 0, *QUESTION), call(2, 1, *read)),
        *(call(3, 2, *write), call(3, 2, *write), call(3, 2, *QUESTION), call(4, 3, *write)),
    ]


async def test_there_is_no_order_without_a_session(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="fifo takes a session"):
        Client(make_config(3), fifo=True, retry_ms=0)


async def test_errors_and_cancelled_commands_are_in_nobodys_way(cluster_text: ClusterText, tmp_path: Path) -> None:
    """Through a whole replica."""
    config = Config.parse(cluster_text(1, ports=free_ports(2)), source="test")
    async with epaxos.open_replica(config, "CA", Kv(), data=tmp_path) as replica, trio.open_nursery() as nursery:

        async def connect(address: Address) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            mine, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(Gateway(replica, LimitsConfig()).serve, theirs)
            return mine

        async with Client(config, connect=connect, fifo=True) as kv:
            assert await kv.set("k", "text")
            for words in (("INCR", "k"), ("INCR",), ("SET", "k", "v", "nonsense")):
                with pytest.raises(ResponseError):
                    await kv.execute(*words)
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel, scope)
                await kv.append("k", "!")
            assert await kv.get("k") in (b"text", b"text!")
            assert await kv.set("k", "1")
            assert await kv.incr("k") == 2
        nursery.cancel_scope.cancel()


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel()
