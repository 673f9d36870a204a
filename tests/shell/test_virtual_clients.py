"""Clients that are slow, silent, rude or many, at the gateways of whole replicas in virtual time."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from epaxos.client import Client
from epaxos.config import Address, Config
from epaxos.errors import Rejected, Unknown
from epaxos.gateway.server import Gateway
from epaxos.machines.kv import Kv
from epaxos.observe.log import Log
from epaxos.testing.virtual.cluster import VirtualCluster, open_cluster
from epaxos.testing.virtual.network import VirtualStream, Wire, stream_pair
from tests.conftest import ClusterText
from tests.shell.fake_replica import request
from tests.shell.virtual import ROUND_US, at_step, linked, set_world, tasks

pytestmark = pytest.mark.trio

MIB = 1 << 20


class Site:
    """The gateways of a cluster, and the wires that clients have to them."""

    def __init__(self, cluster: VirtualCluster[Kv], nursery: trio.Nursery) -> None:
        self.cluster = cluster
        self.said = io.StringIO()
        self.gateways = {
            name: Gateway(replica, cluster.config.limits, log=Log(name, out=self.said))
            for name, replica in cluster.replicas.items()
        }
        self._nursery = nursery

    def call(self, name: str, *, there: Wire | None = None, back: Wire | None = None) -> VirtualStream:
        """A connection to the gateway of a replica."""
        mine, theirs = stream_pair(there or Wire(), back or Wire())
        self._nursery.start_soon(self.gateways[name].serve, theirs)
        return mine

    async def connect(self, address: Address) -> trio.abc.Stream:
        """For the native client: takes four checkpoints."""
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        return self.call(next(each.name for each in self.cluster.config.replicas if each.client == address))

    async def settled(self) -> None:
        """After a while nothing is in flight, and nobody is connected."""
        await trio.sleep(20)
        for name, replica in self.cluster.replicas.items():
            assert self.gateways[name].connections == 0
            status = replica.status()
            assert (status["in_flight"], status["pending"]) == (0, 0)


@pytest.fixture
async def site(
    autojump_clock: MockClock, cluster_text: ClusterText, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    """Three replicas; a test may say what else stands in their file."""
    config = Config.parse(cluster_text(3, extra=getattr(request, "param", "")))
    async with trio.open_nursery() as nursery, open_cluster(config, Kv) as cluster:
        set_world(cluster)
        await cluster.start()
        await linked(cluster)
        yield Site(cluster, nursery)
        nursery.cancel_scope.cancel()


async def ask(stream: trio.abc.Stream, *words: bytes) -> bytes:
    """One command and the first piece of its reply."""
    await stream.send_all(request(*words))
    return await stream.receive_some()


async def served(site: Site, name: str = "CA") -> None:
    """Somebody else is served as if nothing had happened."""
    began_s = trio.current_time()
    stream = site.call(name)
    assert await ask(stream, b"SET", b"somebody", b"else") == b"+OK\r\n"
    assert round((trio.current_time() - began_s) * 1e6) <= 2 * ROUND_US
    await stream.aclose()


async def test_a_client_that_never_reads_costs_bounded_memory(autojump_clock: MockClock, site: Site) -> None:
    limits = site.cluster.config.limits
    writer = site.call("CA")
    assert await ask(writer, b"SET", b"large", bytes(100_000)) == b"+OK\r\n"
    stalled = site.call("CA")
    sent = 0
    tracemalloc.start()
    try:
        with trio.move_on_after(60):
            while True:
                await stalled.send_all(request(b"GET", b"large") * 50)
                sent += 50
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    most = limits.pipeline_commands + limits.client_reply_bytes // 100_000
    assert sent * len(request(b"GET", b"large")) < 2 * MIB, "its commands are not read for ever"
    assert held_bytes < 1.5 * most * 100_000
    await served(site)
    await stalled.aclose()
    await writer.aclose()
    await site.settled()


@pytest.mark.parametrize("site", ["[limits]\nclient_output_bytes = 4194304\n"], indirect=True)
async def test_a_client_that_leaves_too_many_replies_unread_is_cut_off(autojump_clock: MockClock, site: Site) -> None:
    writer = site.call("CA")
    assert await ask(writer, b"SET", b"large", bytes(100_000)) == b"+OK\r\n"
    rude = site.call("CA")
    await rude.send_all(request(b"PING") + request(b"GET", b"large") * 1_000 + request(b"INCR", b"count"))
    await trio.sleep(5)
    assert site.gateways["CA"].connections == 1, "it is cut off though it reads nothing"
    said = json.loads(site.said.getvalue())
    assert (said["event"], said["text"], said["client"]) == ("client_closed", "too many replies unread", 2)
    assert said["unsent_bytes"] > 4 * MIB
    await served(site)
    await rude.aclose()
    await writer.aclose()
    await site.settled()


@pytest.mark.parametrize("site", ["[limits]\nclient_output_total_bytes = 8388608\n"], indirect=True)
async def test_with_too_many_replies_unread_by_all_the_one_that_leaves_most_is_cut_off(
    autojump_clock: MockClock, site: Site
) -> None:
    writer = site.call("CA")
    assert await ask(writer, b"SET", b"large", bytes(100_000)) == b"+OK\r\n"
    rude = []
    for replies in (20, 50, 30):
        rude.append(site.call("CA"))
        await rude[-1].send_all(request(b"GET", b"large") * replies)
        await trio.sleep(5)
    assert site.gateways["CA"].connections == 3
    said = json.loads(site.said.getvalue())
    assert (said["event"], said["client"]) == ("client_closed", 3)
    await served(site)
    for client in (*rude, writer):
        await client.aclose()
    await site.settled()
    assert site.gateways["CA"].connections == 0


@pytest.mark.parametrize("site", ["[limits]\nclient_output_bytes = 4194304\n"], indirect=True)
async def test_one_reply_may_be_longer_than_all_that_may_wait(autojump_clock: MockClock, site: Site) -> None:
    client = site.call("CA")
    await client.send_all(request(b"RPUSH", b"list", bytes(500_000)) * 10)
    received = b""
    while received.count(b"\n") < 10:
        received += await client.receive_some()
    await client.send_all(request(b"LRANGE", b"list", b"0", b"-1"))
    received = b""
    while len(received) < 5_000_000:
        received += await client.receive_some()
    assert received.startswith(b"*10\r\n$500000\r\n\0")
    assert site.said.getvalue() == ""
    await client.aclose()
    await site.settled()


async def test_a_client_that_reads_slowly_gets_everything_in_order(autojump_clock: MockClock, site: Site) -> None:
    back = Wire()
    back.bytes_per_s = 20_000
    slow = site.call("CA", back=back)
    await ask(slow, b"SET", b"k", b"0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.send_all, request(b"INCR", b"k") * 5_000)
        expected = b"".join(b":%d\r\n" % number for number in range(1, 5_001))
        received = b""
        while len(received) < len(expected):
            received += await slow.receive_some(1_000)
        assert received == expected
    await served(site)
    await slow.aclose()
    await site.settled()


async def test_half_commands_and_closed_connections(autojump_clock: MockClock, site: Site) -> None:
    before = tasks()
    whole = request(b"SET", b"key", b"value") + request(b"INCR", b"count")
    for cut in range(len(whole)):
        stream = site.call("CA")
        await stream.send_all(whole[:cut])
        if cut % 2:
            await trio.sleep(0.01)
        await stream.aclose()
    await served(site)
    await site.settled()
    assert tasks() == before


async def test_a_connection_that_breaks_in_the_middle_of_a_pipeline(autojump_clock: MockClock, site: Site) -> None:
    """What was answered took effect, and what took effect did so once."""
    answered = 0
    for moment_us in range(0, 2 * ROUND_US, 3_000):
        there, back = Wire(), Wire()
        stream = site.call("CA", there=there, back=back)
        await stream.send_all(request(b"INCR", b"count") * 10)
        await trio.sleep(moment_us / 1e6)
        try:
            with trio.move_on_after(0):
                answered += (await stream.receive_some()).count(b":")
        finally:
            there.reset()
            back.reset()
            await stream.aclose()
    await site.settled()
    last = site.call("VA")
    count = int((await ask(last, b"GET", b"count")).split(b"\r\n")[1])
    assert answered <= count <= 10 * len(range(0, 2 * ROUND_US, 3_000))
    await last.aclose()


async def test_a_thousand_idle_connections_hold_up_nobody(autojump_clock: MockClock, site: Site) -> None:
    before = tasks()
    idle = [site.call("CA") for _ in range(1_000)]
    for stream in idle[::100]:
        assert await ask(stream, b"PING") == b"+PONG\r\n"
    assert site.gateways["CA"].connections == 1_000
    await served(site)
    await trio.sleep(60)
    async with trio.open_nursery() as nursery:
        for stream in idle:
            nursery.start_soon(ask, stream, b"PING")
    for stream in idle:
        await stream.aclose()
    await site.settled()
    assert tasks() == before


async def test_the_native_client_cancelled_at_any_step(autojump_clock: MockClock, site: Site) -> None:
    before = tasks()
    step, struck, known = 0, True, 0
    while struck:
        step += 1
        async with Client(site.cluster.config, "CA", connect=site.connect, retry_ms=0) as client:
            with trio.CancelScope() as scope, at_step(step, scope.cancel) as strike:
                await client.incr("count")
            known += not scope.cancelled_caught
            struck = strike.struck
            with trio.fail_after(5):
                assert await client.incr("beside") == step, "the client goes on"
    await site.settled()
    stream = site.call("CA")
    count = int((await ask(stream, b"GET", b"count")).split(b"\r\n")[1])
    await stream.aclose()
    assert step > 10
    assert known <= count <= step
    await trio.sleep(1)
    assert tasks() == before


async def test_a_client_that_is_left_while_others_still_connect(autojump_clock: MockClock, site: Site) -> None:
    """Whoever still asks learns that it is closed, at whatever step it ends."""
    before = tasks()
    for step in range(1, 40):
        outcomes: list[int | Rejected | Unknown] = []

        async def incr(client: Client, outcomes: list[int | Rejected | Unknown]) -> None:
            try:
                outcomes.append(await client.incr("count"))
            except (Rejected, Unknown) as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            left = trio.Event()
            async with Client(site.cluster.config, "CA", connect=site.connect, retry_ms=0) as client:
                for _ in range(3):
                    nursery.start_soon(incr, client, outcomes)
                with at_step(step, left.set), trio.move_on_after(1):
                    await left.wait()
        assert len(outcomes) == 3
    await site.settled()
    assert tasks() == before
