"""The client asks again, in a session, until it knows what became of a command. The test plays the replicas."""

from __future__ import annotations

from collections.abc import Callable

import hiredis
import pytest
import trio
import trio.testing

from epaxos.client import Client
from epaxos.config import Address
from epaxos.errors import Rejected, Unknown
from epaxos.session import WINDOW
from tests.conftest import MakeConfig

pytestmark = pytest.mark.trio

Answer = Callable[[list[bytes]], bytes | None]
"""What a replica replies to the words of a command; None: it hangs up."""
HANDLE = b"0.1.1"
NOT_KEPT = b"-UNKNOWN applied earlier; its result is not kept: may or may not have been applied\r\n"
OPENED = b"$5\r\n0.1.1\r\n"


class Played:
    """Three replicas that answer what the test says, and what they were asked."""

    def __init__(self, make_config: MakeConfig, nursery: trio.Nursery, answer: Answer) -> None:
        self.config = make_config(3)
        self.answer = answer
        self.asked: list[tuple[str, list[bytes]]] = []
        self.open = 0
        self.streams: list[trio.abc.Stream] = []
        """The replicas' ends of connections."""
        self.takes_s = 0.0
        """How long an answer takes."""
        self._nursery = nursery
        self._names = {replica.client: replica.name for replica in self.config.replicas}

    def client(self, *, retry_ms: int = 30_000, fifo: bool = False) -> Client:
        return Client(self.config, connect=self._connect, retry_ms=retry_ms, fifo=fifo)

    @property
    def calls(self) -> list[tuple[str, list[bytes]]]:
        """What was asked but for the session itself, and for whether the nearest replica serves."""
        return [(name, words) for name, words in self.asked if words[1:2] not in ([b"SESSION"], [b""])]

    async def _connect(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        mine, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, self._names[address], theirs)
        return mine

    async def _serve(self, name: str, stream: trio.abc.Stream) -> None:
        reader = hiredis.Reader(notEnoughData=None)
        self.open += 1
        self.streams.append(stream)
        async with stream:
            while received := await stream.receive_some():
                reader.feed(bytes(received))
                while (words := reader.gets()) is not None:
                    self.asked.append((name, words))
                    reply = self.answer(words)
                    if self.takes_s:
                        await trio.sleep(self.takes_s)
                    if reply is None:
                        self.open -= 1
                        return
                    await stream.send_all(reply)
        self.open -= 1


def scripted(*replies: bytes | None) -> Answer:
    """Sessions open and close as they should; calls get these replies, one after the other."""
    left = list(replies)
    return lambda words: (
        {b"OPEN": OPENED, b"CLOSE": b"+OK\r\n"}[words[2]] if words[1:2] == [b"SESSION"] else left.pop(0)
    )


def call(number: int, floor: int, *words: bytes) -> list[bytes]:
    return [b"EPAXOS", b"CALL", HANDLE, b"%d" % number, b"%d" % floor, *words]


async def test_writes_are_numbered_and_the_floor_follows(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b":1\r\n", b"$1\r\n1\r\n", b":2\r\n"))
        async with played.client() as kv:
            assert [await kv.incr("k"), await kv.get("k"), await kv.incr("k")] == [1, b"1", 2]
    words = [words for _, words in played.asked]
    assert words[0] == [b"EPAXOS", b"SESSION", b"OPEN"]
    assert words[1:4] == [call(1, 0, b"INCR", b"k"), [b"GET", b"k"], call(2, 1, b"INCR", b"k")]
    assert words[4:] == [[b"EPAXOS", b"SESSION", b"CLOSE", HANDLE]]


async def test_a_call_whose_connection_was_lost_is_sent_again_to_the_next_replica(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(None, None, b":1\r\n"))
        async with played.client() as kv:
            assert await kv.incr("k") == 1
    assert played.calls == [(name, call(1, 0, b"INCR", b"k")) for name in played.config.names]


async def test_a_replica_that_does_not_know_is_left_and_its_connection_closed(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    unknown = b"-UNKNOWN no majority: may or may not have been applied\r\n"
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(unknown, b"+OK\r\n", unknown, b"$1\r\nv\r\n"))
        async with played.client() as kv:
            assert await kv.set("k", "v")
            await trio.testing.wait_all_tasks_blocked()
            assert played.open == 1
            assert await kv.get("k") == b"v"
    names = played.config.names
    assert [name for name, _ in played.calls] == [names[0], names[1], names[1], names[2]]


async def test_a_rejection_after_a_doubt_does_not_end_the_doubt(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(None, b"-BUSY try again: not applied\r\n", b":1\r\n"))
        async with played.client() as kv:
            assert await kv.incr("k") == 1
    assert len(played.calls) == 3


async def test_a_rejection_of_the_only_copy_is_certain(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b"-REJECTED too_large: a key: not applied\r\n", b":1\r\n"))
        async with played.client() as kv:
            with pytest.raises(Rejected, match="too_large"):
                await kv.incr("k")
            assert await kv.incr("k") == 1
    assert {name for name, _ in played.calls} == {played.config.names[0]}, "it is about the command, not the replica"
    assert played.calls[1][1] == call(2, 1, b"INCR", b"k")


@pytest.mark.parametrize("refusal", [b"-REJECTED closed", b"-REJECTED deadline", b"-NOQUORUM alone", b"-REJECTED new"])
async def test_what_a_replica_refuses_for_reasons_of_its_own_the_next_is_asked(
    make_config: MakeConfig, refusal: bytes
) -> None:
    refused = refusal + b": not applied\r\n"
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(refused, b":1\r\n", refused, b"$1\r\n1\r\n"))
        async with played.client() as kv:
            assert [await kv.incr("k"), await kv.get("k")] == [1, b"1"]
    ca, va, ir = played.config.names
    write, read = call(1, 0, b"INCR", b"k"), [b"GET", b"k"]
    assert played.calls == [(ca, write), (va, write), (va, read), (ir, read)]


async def test_a_command_that_all_replicas_refuse_was_not_applied(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(*[b"-NOQUORUM alone: not applied\r\n"] * 3))
        async with played.client() as kv:
            with pytest.raises(Rejected, match="no_quorum: alone"):
                await kv.incr("k")
            assert [name for name, _ in played.calls] == list(played.config.names)


async def test_replicas_that_refuse_late_are_asked_until_the_time_is_over(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, lambda words: b"-NOQUORUM alone: not applied\r\n")
        played.takes_s = 10
        async with played.client(retry_ms=15_000) as kv:
            with pytest.raises(Rejected, match="no_quorum"):
                await kv.get("k")
            assert [name for name, _ in played.calls] == list(played.config.names[:2])
        nursery.cancel_scope.cancel()


async def test_a_busy_replica_is_asked_again_after_a_while(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    busy = b"-BUSY try again: not applied\r\n"
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(busy, busy, b":1\r\n", busy, b"$1\r\n1\r\n"))
        async with played.client() as kv:
            assert await kv.incr("k") == 1
            assert trio.current_time() > 0.1, "not at once"
            assert await kv.get("k") == b"1"
    assert {name for name, _ in played.calls} == {played.config.names[0]}
    assert [words for _, words in played.calls[:3]] == [call(1, 0, b"INCR", b"k")] * 3


async def test_a_replica_that_stays_busy_is_given_up(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    busy = b"-BUSY try again: not applied\r\n"
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, lambda words: OPENED if words[1:2] == [b"SESSION"] else busy)
        async with played.client(retry_ms=5_000) as kv:
            for ask in (kv.incr, kv.get):
                begun = trio.current_time()
                with pytest.raises(Rejected, match="busy"):
                    await ask("k")
                assert 3 < trio.current_time() - begun <= 5


async def test_a_nearest_replica_that_comes_and_goes_is_asked_ever_more_rarely(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    """At first it answers the question whether it serves, and nothing else."""
    serves = False
    async with trio.open_nursery() as nursery:

        def answer(words: list[bytes]) -> bytes | None:
            if words[0] == b"EXISTS":
                return b":0\r\n"
            return b"$1\r\nv\r\n" if serves or played.asked[-1][0] != played.config.names[0] else None

        def questions() -> int:
            return [words[0] for _, words in played.asked].count(b"EXISTS")

        played = Played(make_config, nursery, answer)
        async with played.client() as kv:
            for _ in range(3_600):
                assert await kv.get("k") == b"v"
                await trio.sleep(1)
            assert 30 <= questions() <= 140
            serves = True
            await trio.sleep(300)
            serves, asked = False, questions()
            await kv.get("k")
            await trio.sleep(2)
            assert questions() == asked + 1, "it had served for long"


async def test_writes_wait_for_room_in_the_window_of_numbers(make_config: MakeConfig) -> None:
    """As many as there are numbers are under way; the next ones go when the oldest has its outcome."""
    results: list[int] = []

    async def incr(kv: Client) -> None:
        results.append(await kv.incr("k"))

    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, lambda words: OPENED if words[1:2] == [b"SESSION"] else b"")
        async with played.client() as kv, trio.open_nursery() as callers:
            for _ in range(WINDOW):
                callers.start_soon(incr, kv)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                callers.start_soon(incr, kv)
                await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as impatient:
                callers.start_soon(_cancel_when_blocked, impatient)
                await kv.incr("k")
            assert impatient.cancelled_caught
            assert len(played.calls) == WINDOW
            (stream,) = played.streams
            await stream.send_all(b":1\r\n:2\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert [words for _, words in played.calls[WINDOW:]] == [
                call(WINDOW + 1, 2, b"INCR", b"k"),
                call(WINDOW + 2, 2, b"INCR", b"k"),
            ]
            await stream.send_all(b"".join(b":%d\r\n" % at for at in range(3, WINDOW + 3)))
            await trio.testing.wait_all_tasks_blocked()
            assert len(played.calls) == WINDOW + 10
            await stream.send_all(b"".join(b":%d\r\n" % at for at in range(WINDOW + 3, WINDOW + 11)))
            played.answer = scripted()
    assert sorted(results) == list(range(1, WINDOW + 11))


CLOSED = b"-REJECTED session_closed: session 0.1.1 is closed: not applied\r\n"


async def test_a_session_that_has_ended_is_followed_by_another(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b":1\r\n", CLOSED, b":2\r\n"))
        async with played.client() as kv:
            assert [await kv.incr("k"), await kv.incr("k")] == [1, 2]
    assert [words[:3] for _, words in played.asked].count([b"EPAXOS", b"SESSION", b"OPEN"]) == 2
    assert played.calls[-1][1] == call(1, 0, b"INCR", b"k")


async def test_a_session_that_ends_during_a_doubt_leaves_it_open(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(None, CLOSED))
        async with played.client() as kv:
            with pytest.raises(Unknown, match="the session ended"):
                await kv.incr("k")


async def test_a_result_that_is_not_kept_is_asked_for_no_more(
    make_config: MakeConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(None, NOT_KEPT, b":2\r\n"))
        async with played.client() as kv:
            with pytest.raises(Unknown, match="its result is not kept"):
                await kv.incr("k")
            assert await kv.incr("k") == 2
    assert [name for name, _ in played.calls] == ["CA", "VA", "VA"], "which is no fault of the replica"


async def test_asking_has_an_end(make_config: MakeConfig, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, lambda words: OPENED if words[1:2] == [b"SESSION"] else None)
        async with played.client(retry_ms=5_000) as kv:
            begun = trio.current_time()
            with pytest.raises(Unknown):
                await kv.incr("k")
            assert 3 < trio.current_time() - begun <= 5
    assert len(played.calls) > 5


async def test_a_cancelled_call_is_not_asked_for_again(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b"", b":2\r\n"))
        async with played.client() as kv:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await kv.incr("k")
            played.answer = lambda words: b":1\r\n:2\r\n"
            assert await kv.incr("k") == 2
            played.answer = scripted()
    assert [words for _, words in played.calls] == [call(1, 0, b"INCR", b"k"), call(2, 1, b"INCR", b"k")]


async def test_a_client_with_a_session_may_be_cancelled_as_a_whole(make_config: MakeConfig) -> None:
    async with trio.open_nursery() as nursery:
        played = Played(make_config, nursery, scripted(b":1\r\n"))
        with trio.CancelScope() as scope:
            async with played.client() as kv:
                assert await kv.incr("k") == 1
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(Rejected, match="closed"):
            await kv.get("k")
        await trio.testing.wait_all_tasks_blocked()
        assert played.open == 0, "the connection is closed"


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
