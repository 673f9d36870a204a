"""The load generator against a small server in the same thread, in virtual time.

A server here is a function from the number of a command to (the virtual time at which it is answered, the answer).
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from functools import partial
from heapq import heappop, heappush
from itertools import pairwise
from math import inf

import hiredis
import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from bench.load import Shape, draw
from bench.open_loop import OpenLoop, Site, run
from bench.resp import ConnectionLost, ErrorReply, RespConnection
from bench.tally import REASONS_MAX, Tally, percentile, rank

SECOND_US = 1_000_000
BEGINS_S = 6.0
"""When the first command may leave."""


def shape(**given) -> Shape:
    return Shape(**({"clients": 1, "rate_per_s": 100, "duration_s": 1.0, "lanes": 64} | given))


class Server:
    """Answers each command when `answer` says, in a time of its own; keeps what it was sent. It is the wire as well."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.seen: list[tuple[float, list[bytes]]] = []
        self.connections = 0
        self.now_s = BEGINS_S - 1.0
        self.mine: set[socket.socket] = set()
        self.theirs: dict[socket.socket, hiredis.Reader] = {}
        self.replies: list[tuple[float, int, socket.socket, bytes | None]] = []

    def connect(self) -> socket.socket:
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.connections += 1
        self.theirs[theirs] = hiredis.Reader()
        return mine

    def now(self) -> float:
        return self.now_s

    def add(self, each: socket.socket) -> None:
        self.mine.add(each)

    def drop(self, each: socket.socket) -> None:
        self.mine.remove(each)

    def wait(self, until_s: float) -> list[socket.socket]:
        for theirs in select.select(list(self.theirs), (), (), 0)[0]:
            self.take(theirs)
        next_s = self.replies[0][0] if self.replies else until_s
        self.now_s = max(self.now_s, min(until_s, next_s))
        while self.replies and self.replies[0][0] <= self.now_s:
            _, _, theirs, reply = heappop(self.replies)
            if reply is None:
                self.hang_up(theirs)
            elif theirs in self.theirs:
                theirs.send(reply)
        return select.select(list(self.mine), (), (), 0)[0]

    def take(self, theirs: socket.socket) -> None:
        data = theirs.recv(1 << 16)
        if not data:
            self.hang_up(theirs)
            return
        reader = self.theirs[theirs]
        reader.feed(data)
        while (command := reader.gets()) is not False:
            self.seen.append((self.now_s, command))
            at_s, reply = self.answer(self.now_s)
            heappush(self.replies, (at_s, len(self.seen), theirs, reply))

    def hang_up(self, theirs: socket.socket) -> None:
        del self.theirs[theirs]
        theirs.close()


def measure(given: Shape, answer, *, stop_s: float = inf) -> tuple[Tally, Server]:
    tally, server = Tally(), Server(answer)
    site = Site(server.connect, draw(given, "CA", "1"), tally)
    OpenLoop([site], given, server, BEGINS_S).run(lambda: server.now_s >= stop_s)
    for theirs in list(server.theirs):
        server.hang_up(theirs)
    assert not server.mine, "no connection is left"
    return tally, server


def after(delay_s: float, reply: bytes | None = b"+OK\r\n"):
    return lambda now_s: (now_s + delay_s, reply)


@given(
    clients=st.integers(1, 12),
    rate=st.floats(0.5, 40),
    share=st.sampled_from([0.0, 0.02, 0.1, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
def test_the_plan_is_exact_in_number_share_and_order(clients: int, rate: float, share: float, seed: int) -> None:
    given_ = shape(clients=clients, rate_per_s=rate, duration_s=5.0, hot_share=share)
    plan = draw(given_, "CA", str(seed))
    assert [len(each) for each in plan] == [given_.commands_per_client] * clients
    flat = [arrival for each in plan for arrival in each]
    assert sum(arrival.hot for arrival in flat) == round(share * len(flat))
    assert all(arrival.hot == (arrival.key == b"hot") for arrival in flat)
    for each in plan:
        assert [arrival.at_us for arrival in each] == sorted(arrival.at_us for arrival in each)
        assert all(0 <= arrival.at_us < 5 * SECOND_US for arrival in each)


def test_the_default_demo_load_has_exactly_two_percent_on_the_hot_key() -> None:
    plan = draw(shape(clients=10, rate_per_s=4, duration_s=30.0, hot_share=0.02), "CA", "7")
    assert Counter(arrival.hot for each in plan for arrival in each) == {False: 1176, True: 24}


def test_the_plan_is_a_function_of_its_seed() -> None:
    given = shape(clients=3, hot_share=0.1)
    assert draw(given, "CA", "1") == draw(given, "CA", "1")
    assert draw(given, "CA", "1") != draw(given, "CA", "2")
    assert draw(given, "CA", "1") != draw(given, "VA", "1")


def test_no_two_clients_share_a_key_but_the_hot_one() -> None:
    keys = [
        {arrival.key for each in draw(shape(clients=1, key_space=4), site, "1") for arrival in each}
        for site in ("CA", "VA")
    ]
    assert [len(each) for each in keys] == [4, 4]
    assert not keys[0] & keys[1]
    first, second = draw(shape(clients=2, key_space=4), "CA", "1")
    assert not {a.key for a in first} & {a.key for a in second}


def test_arrivals_spread_like_a_poisson_stream() -> None:
    (arrivals,) = draw(shape(rate_per_s=1000, duration_s=20.0), "CA", "3")
    gaps_us = [b.at_us - a.at_us for a, b in pairwise(arrivals)]
    mean_us = sum(gaps_us) / len(gaps_us)
    deviation_us = (sum((gap - mean_us) ** 2 for gap in gaps_us) / len(gaps_us)) ** 0.5
    assert mean_us == pytest.approx(1000, rel=0.02)
    assert deviation_us == pytest.approx(1000, rel=0.05)


def test_an_even_load_leaves_at_equal_intervals_and_no_two_sites_in_step() -> None:
    times = [[each.at_us for each in draw(shape(even=True), site, "1")[0]] for site in ("CA", "VA")]
    for at_us in times:
        assert {later - earlier for earlier, later in pairwise(at_us)} <= {9_999, 10_000, 10_001}
        assert 0 <= at_us[0] < 10_000
    assert times[0] != times[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("clients", 0), ("rate_per_s", 0), ("rate_per_s", float("nan")), ("duration_s", -1), ("lanes", 0)),
        *(("duration_s", float("inf")), ("hot_share", 1.1), ("hot_share", -0.1)),
    ],
)
def test_a_load_that_cannot_be_drawn_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        shape(**{field: value})


def test_every_command_leaves_at_its_intended_time_and_is_timed_to_its_reply() -> None:
    given = shape(clients=2, hot_share=0.5)
    tally, server = measure(given, after(0.05))
    assert (tally.answered, tally.failed, tally.settled) == (200, 0, 200)
    assert len(tally.hot_us) == len(tally.cold_us) == 100
    assert tally.ascending_us() == pytest.approx([50_000] * 200, abs=2)
    assert max(tally.lag_us) <= 1
    intended_us = sorted(arrival.at_us for each in draw(given, "CA", "1") for arrival in each)
    start_s = server.seen[0][0] - intended_us[0] / 1e6
    assert [round((at_s - start_s) * 1e6) for at_s, _ in server.seen] == pytest.approx(intended_us, abs=2)
    assert {command[0] for _, command in server.seen} == {b"SET"}
    assert {len(command[2]) for _, command in server.seen} == {16}


def test_a_stall_is_charged_to_every_command_that_should_have_left_in_it() -> None:
    resumes_s = BEGINS_S + 0.6

    def stalls(now_s: float) -> tuple[float, bytes]:
        return max(now_s + 0.001, resumes_s), b"+OK\r\n"

    given = shape(lanes=2)
    tally, _ = measure(given, stalls)
    (arrivals,) = draw(given, "CA", "1")
    in_the_stall = [arrival for arrival in arrivals if arrival.at_us < 600_000]
    assert tally.answered == 100
    assert len(in_the_stall) > 40
    late = sorted(tally.cold_us)[-len(in_the_stall) :]
    # Two lanes drain what waited one after another, a millisecond each, so the wait shrinks from 600 ms to nothing.
    expected_us = [max(600_000 + 1000 * (at // 2) - arrival.at_us, 1000) for at, arrival in enumerate(in_the_stall)]
    assert late == pytest.approx(sorted(expected_us), abs=2_000)
    assert max(tally.lag_us) > 500_000


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"-BUSY try again: not applied\r\n", "rejected"),
        (b"-REJECTED too_large: not applied\r\n", "rejected"),
        (b"-NOQUORUM two of five: not applied\r\n", "rejected"),
        (b"-UNKNOWN deadline: may or may not have been applied\r\n", "unknown"),
        (b"-ERR unknown command 'SET', with args beginning with: \r\n", "other"),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "other"),
    ],
)
def test_errors_are_counted_by_what_is_known_of_the_command(reply: bytes, outcome: str) -> None:
    tally, _ = measure(shape(), after(0.01, reply))
    counts = {name: getattr(tally, name) for name in ("answered", "rejected", "unknown", "other", "unsent")}
    assert counts == dict.fromkeys(counts, 0) | {outcome: 100}
    assert tally.reasons == {reply[1:-2].decode(): 100}
    assert not tally.ascending_us()


def test_a_reply_that_does_not_come_in_time_leaves_the_outcome_unknown() -> None:
    tally, server = measure(shape(reply_timeout_s=0.5), after(60.0))
    assert (tally.unknown, tally.settled) == (100, 100)
    assert tally.reasons == {"no reply in time": 100}
    assert server.connections > 64, "a connection whose reply is still to come may not carry the next command"


def test_a_connection_that_breaks_leaves_the_outcome_unknown_and_is_opened_again() -> None:
    tally, server = measure(shape(lanes=1), after(0.001, None))
    assert (tally.unknown, tally.settled) == (100, 100)
    assert tally.reasons == {"connection lost: closed by the replica": 100}
    assert server.connections == 100


def test_a_command_without_a_connection_was_certainly_not_applied() -> None:
    def refuse() -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    tally, given = Tally(), shape(lanes=2)
    server = Server(after(0.01))
    OpenLoop([Site(refuse, draw(given, "CA", "1"), tally)], given, server, server.now_s).run(lambda: False)
    assert (tally.rejected, tally.settled) == (100, 100)
    assert tally.reasons == {"no connection: Connection refused": 100}


def test_what_never_left_and_what_is_still_out_are_counted_when_the_load_is_cut() -> None:
    given = shape(lanes=2, reply_timeout_s=2.0)
    tally, server = measure(given, after(1.9))
    # Two lanes, 1.9 s a command, cut 5 s after the start.
    assert tally.settled == 100
    assert (tally.answered, tally.unknown) == (4, 2)
    assert tally.unsent == 94
    assert tally.reasons == {"cut off": 2}
    assert len(server.seen) == 6


def test_when_it_is_stopped_every_command_is_still_settled_once() -> None:
    tally, server = measure(shape(), after(0.2), stop_s=6.5)
    assert 0 < tally.answered < 100
    assert tally.unknown + tally.answered == len(server.seen)
    assert tally.settled == 100


@pytest.mark.trio
async def test_a_real_load_keeps_its_times_and_ends_when_it_is_cancelled() -> None:
    """On real sockets, in real time: the wire of the machine, and the thread."""
    given, tally = shape(rate_per_s=20, duration_s=0.2, reply_timeout_s=60), Tally()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    site = Site(partial(socket.create_connection, listener.socket.getsockname()), draw(given, "CA", "1"), tally)
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(partial(run, [site], given, start_s=trio.current_time()))
        streams = [await listener.accept() for _ in range(4)]
        for stream in streams:
            assert await stream.receive_some()
        nursery.cancel_scope.cancel()
    for stream in streams:
        await stream.aclose()
    assert (tally.unknown, tally.settled) == (4, 4)
    assert tally.reasons == {"cut off": 4}


@pytest.mark.trio
async def test_a_connection_returns_values_and_raises_error_replies(autojump_clock) -> None:
    replies = iter([b"$3\r\nabc\r\n", b":7\r\n", b"$-1\r\n", b"-ERR no\r\n", b"*2\r\n+a\r\n", b"+b\r\n", b"?\r\n"])
    mine, theirs = trio.testing.memory_stream_pair()
    async with RespConnection(mine) as connection, trio.open_nursery() as nursery:

        async def serve() -> None:
            while await theirs.receive_some():
                reply = next(replies)
                await theirs.send_all(reply)
                if reply.startswith(b"*"):
                    await theirs.send_all(next(replies))

        nursery.start_soon(serve)
        assert await connection.call("GET", "k") == b"abc"
        assert await connection.call("INCR", b"k") == 7
        assert await connection.call("GET", 1) is None
        with pytest.raises(ErrorReply, match="ERR no"):
            await connection.call("PING")
        assert await connection.call("PING") == [b"a", b"b"]
        with pytest.raises(ConnectionLost, match="Protocol error"):
            await connection.call("PING")
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_reply_without_end_is_cut(autojump_clock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    connection = RespConnection(mine)
    theirs_ended = trio.Event()

    async def flood() -> None:
        await theirs.receive_some()
        await theirs.send_all(b"$9999999\r\n" + b"x" * (5 << 20))
        theirs_ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with pytest.raises(ConnectionLost, match="the reply is too long"):
            await connection.call("PING")
        nursery.cancel_scope.cancel()
    assert theirs_ended.is_set()


@pytest.mark.parametrize(
    ("count", "share", "position"),
    [
        (20, 0.5, 9),
        (19, 0.5, None),
        (1000, 0.99, 989),
        (999, 0.99, None),
        (1200, 0.99, 1187),
        (10_000, 0.999, 9989),
        (0, 0.5, None),
    ],
)
def test_a_percentile_needs_ten_samples_beyond_it(count: int, share: float, position: int | None) -> None:
    assert rank(count, share) == position
    assert percentile(list(range(count)), share) == position


def test_a_quantile_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, not at 99"):
        rank(1000, 99)


def test_error_texts_are_kept_within_a_bound() -> None:
    tally = Tally()
    for at in range(1000):
        tally.because(f"ERR {at}")
    tally.because("ERR 3")
    assert len(tally.reasons) == REASONS_MAX + 1
    assert tally.reasons["ERR 3"] == 2
    assert tally.reasons.total() == 1001


def test_zipf_draws_the_same_keys_at_every_site_the_first_ones_most_often() -> None:
    given = shape(clients=4, rate_per_s=500, duration_s=5.0, zipf=1.0, zipf_keys=100)
    plans = [draw(given, site, "1") for site in ("CA", "VA")]
    counts = [Counter(each.key for client in plan for each in client) for plan in plans]
    for count in counts:
        assert set(count) <= {b"zipf:%d" % rank for rank in range(100)}
        assert count[b"zipf:0"] > count[b"zipf:1"] > count[b"zipf:9"] > count[b"zipf:99"]
        assert count[b"zipf:0"] == pytest.approx(10_000 / sum(1 / rank for rank in range(1, 101)), rel=0.1)
    for wrong in ({"zipf": -1.0}, {"zipf": 11.0}, {"zipf": 1.0, "zipf_keys": 0}):
        with pytest.raises(ValueError, match="Zipf"):
            shape(**wrong)
