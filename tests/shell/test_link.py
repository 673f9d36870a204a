"""Links between replicas, on streams in memory and virtual time."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from epaxos import cbor
from epaxos.engine import Input
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message, Nack
from epaxos.net import link
from epaxos.net.frames import PING, PONG, FrameReader, control, encode_control, encode_frame
from epaxos.net.greeting import greet
from epaxos.net.handshake import MAGIC, PREFIX, Hello, fingerprint
from epaxos.net.inbox import Inbox
from epaxos.net.link import LinkLimits, Links
from epaxos.observe.log import Log
from epaxos.protocols.interface import PeerDown, PeerUp, Receive, Rtt
from epaxos.testing.virtual.disk import VirtualDisk
from tests.shell.network import LinkNetwork

pytestmark = pytest.mark.trio

NAMES = ("CA", "VA", "IR")
LIMITS = LinkLimits(frame_bytes=4096, queue_bytes=1 << 16, handshake_us=5_000_000, reconnect_max_us=1_000_000)
CA, VA, IR = 0, 1, 2
T = TypeVar("T")


def hello(me: ReplicaId, **changes: Any) -> Hello:
    plain = Hello(
        cluster="shop",
        replica=me,
        name=NAMES[me],
        disk=f"{me:032x}",
        incarnation=1,
        n=3,
        protocol="epaxos",
        secret=fingerprint(b"s"),
    )
    return dataclasses.replace(plain, **changes)


async def no_objection(theirs: Hello) -> str:
    return ""


def nack(number: int) -> Nack:
    return Nack(id=InstanceId(0, number, 1), ballot=5)


async def settle() -> None:
    """Let every task do what it can at this moment; unlike waiting until all are blocked, it lets no time pass."""
    for _ in range(30):
        await trio.lowlevel.checkpoint()


class Node:
    """The links of one replica, its inbox, and what it logged."""

    def __init__(
        self,
        network: LinkNetwork,
        me: ReplicaId,
        *,
        limits: LinkLimits = LIMITS,
        delays_us: Mapping[ReplicaId, int] | None = None,
        inbox_messages: int = 1000,
        inbox_bytes: int = 1 << 20,
        disk: VirtualDisk | None = None,
        **changes: Any,
    ) -> None:
        self.me = me
        self.inbox = Inbox(max_messages=inbox_messages, max_bytes=inbox_bytes)
        self.seen: list[Input] = []
        self.out = io.StringIO()
        self.links = Links(
            hello=hello(me, **changes),
            names=NAMES,
            limits=limits,
            inbox=self.inbox,
            log=Log(NAMES[me], NAMES, out=self.out, form="text"),
            dial=partial(network.dial, me),
            acquaintances=disk or VirtualDisk(),
            jitter=random.Random(me),
            delays_us=delays_us or {},
        )
        network.serve(me, self.links.accept)

    def send(self, peer: ReplicaId, message: Message) -> None:
        self.links.send((peer,), encode_frame(message))

    async def until(self, kind: type[T], count: int = 1) -> list[T]:
        """Wait until `count` inputs of that kind have come, and take them from `seen`."""
        with trio.fail_after(100):
            while len(found := [item for item in self.seen if isinstance(item, kind)]) < count:
                await self.inbox.filled()
                self.seen += self.inbox.take()
        self.seen = [item for item in self.seen if not isinstance(item, kind)]
        return found

    async def messages(self, count: int) -> list[Message]:
        return [item.message for item in await self.until(Receive, count)]

    def log(self) -> list[str]:
        """What was logged, without the time and the name."""
        return [line.split(" ", 2)[2] for line in self.out.getvalue().splitlines()]


@pytest.fixture
async def network(nursery: trio.Nursery) -> LinkNetwork:
    return LinkNetwork(NAMES, nursery)


@pytest.fixture
async def pair(network: LinkNetwork, nursery: trio.Nursery) -> AsyncIterator[tuple[Node, Node]]:
    """CA and VA, with links up in both directions. IR does not answer."""
    nodes = Node(network, CA), Node(network, VA)
    for node in nodes:
        nursery.start_soon(node.links.run)
    for node in nodes:
        await node.until(PeerUp)
    yield nodes


async def call(network: LinkNetwork, me: ReplicaId, whom: ReplicaId, **changes: Any) -> trio.abc.Stream:
    """A connection to `whom` made by hand, behind the handshake."""
    stream = await network.dial(me, whom)
    await greet(stream, hello(me, **changes), no_objection)
    return stream


async def closed(stream: trio.abc.Stream) -> bytes:
    """Everything that still comes, until the other end closes."""
    received = b""
    while data := await stream.receive_some(1 << 16):
        received += data
    return received


async def test_messages_cross_in_both_directions_and_in_order(
    autojump_clock: MockClock, pair: tuple[Node, Node]
) -> None:
    ca, va = pair
    for number in range(1, 51):
        ca.send(VA, nack(number))
        va.send(CA, nack(number + 100))
    assert await va.messages(50) == [nack(number) for number in range(1, 51)]
    assert await ca.messages(50) == [nack(number) for number in range(101, 151)]
    assert {item.peer for item in va.seen if isinstance(item, Receive)} <= {CA}
    assert ca.links.status()["VA"]["up"]
    assert not ca.links.status()["IR"]["up"]


async def test_frames_leave_a_delay_after_they_were_queued_and_in_order(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    ca, va = Node(network, CA, delays_us={VA: 30_000}), Node(network, VA, delays_us={CA: 42_000})
    for node in (ca, va):
        nursery.start_soon(node.links.run)
    await ca.until(PeerUp)
    began = trio.current_time()
    for number in range(1, 11):
        ca.send(VA, nack(number))
        await settle()
    assert await va.messages(10) == [nack(number) for number in range(1, 11)]
    assert trio.current_time() - began == pytest.approx(0.030, abs=0.001)
    [rtt] = await ca.until(Rtt)
    assert rtt.peer == VA
    assert rtt.rtt_us == pytest.approx(72_000, abs=2_000)
    assert ca.links.status()["VA"]["rtt_us"] == rtt.rtt_us


async def test_a_full_queue_drops_the_newest_and_counts(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    size = len(encode_frame(nack(1)))
    ca = Node(network, CA, limits=LIMITS._replace(queue_bytes=10 * size), delays_us={VA: 1_000_000})
    va = Node(network, VA)
    for node in (ca, va):
        nursery.start_soon(node.links.run)
    await ca.until(PeerUp)
    await settle()
    already = ca.links.status()["VA"]["queue_bytes"]
    for number in range(1, 21):
        ca.send(VA, nack(number))
    status = ca.links.status()["VA"]
    sent = 20 - status["dropped"]
    assert status["queue_bytes"] == already + sent * size <= 10 * size
    assert await va.messages(sent) == [nack(number) for number in range(1, sent + 1)]
    ca.send(VA, nack(99))
    assert await va.messages(1) == [nack(99)]


async def test_what_is_sent_to_nobody_is_lost_and_counted(autojump_clock: MockClock, pair: tuple[Node, Node]) -> None:
    ca, _ = pair
    before = ca.links.status()["IR"]["dropped"]
    ca.send(IR, nack(1))
    assert ca.links.status()["IR"]["dropped"] == before + 1


async def test_a_broken_link_is_made_again(
    autojump_clock: MockClock, pair: tuple[Node, Node], network: LinkNetwork
) -> None:
    ca, va = pair
    network.reset("CA", "VA")
    assert (await ca.until(PeerDown))[0].peer == VA
    assert (await ca.until(PeerUp))[0].peer == VA
    await va.until(PeerUp)
    ca.send(VA, nack(7))
    assert await va.messages(1) == [nack(7)]
    assert any(line.startswith("peer_down VA: ") for line in ca.log())


async def test_pauses_between_attempts_grow_to_their_bound(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    ca = Node(network, CA)
    nursery.start_soon(ca.links.run)
    await trio.sleep(100)
    attempts = network.calls.count(("CA", "VA"))
    assert 100 <= attempts <= 220  # pauses of a half to one second, but for the first few
    assert ca.log().count("peer_unreachable VA: Connection refused") == 2  # once a minute


async def test_a_peer_that_calls_is_called_back_at_once(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    ca = Node(network, CA, limits=LIMITS._replace(reconnect_max_us=600_000_000))
    nursery.start_soon(ca.links.run)
    await trio.sleep(3_000)
    va = Node(network, VA)
    began = trio.current_time()
    nursery.start_soon(va.links.run)
    await ca.until(PeerUp)
    assert trio.current_time() - began < 0.1


async def test_a_peer_that_answers_no_ping_is_taken_for_gone(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    async def answer_nothing(stream: trio.abc.Stream) -> None:
        await greet(stream, hello(VA), no_objection)
        await closed(stream)

    network.serve(VA, answer_nothing)
    ca = Node(network, CA)
    nursery.start_soon(ca.links.run)
    await ca.until(PeerUp)
    began = trio.current_time()
    await ca.until(PeerDown)
    assert trio.current_time() - began == pytest.approx(link.SILENCE_US / 1e6, abs=0.1)
    assert "peer_down VA: no answer to a ping" in ca.log()


async def test_a_peer_that_is_too_busy_to_answer_is_alive_as_long_as_it_says_anything(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    async def answer_twice(stream: trio.abc.Stream) -> None:
        await greet(stream, hello(VA), no_objection)
        reader = FrameReader(64)
        for _ in range(2):
            [frame] = reader.feed(await stream.receive_some(64))
            await stream.send_all(encode_control(PONG, control(frame).token))
        await closed(stream)

    network.serve(VA, answer_twice)
    ca = Node(network, CA)
    nursery.start_soon(ca.links.run)
    await ca.until(PeerUp)
    own_link = await call(network, VA, CA)
    for number in range(1, 11):
        await own_link.send_all(encode_frame(nack(number)))
        await trio.sleep(1)
    assert ca.links.status()["VA"]["up"]
    began = trio.current_time()
    await ca.until(PeerDown)
    assert trio.current_time() - began < (link.QUIET_MIN_US + link.STEP_US) / 1e6


async def test_who_has_stood_still_himself_blames_nobody(
    autojump_clock: MockClock, network: LinkNetwork, pair: tuple[Node, Node]
) -> None:
    for wire in network.wires("CA", "VA"):
        wire.delay_us = 150_000
    for number in range(20):
        await trio.sleep(0.4 + 0.03 * number)
        autojump_clock.jump(link.SILENCE_US / 2e6)
    await trio.sleep(1)
    for node in pair:
        assert [line for line in node.log() if line.startswith("peer_down")] == []


async def test_a_peer_that_stops_reading_costs_a_bounded_queue(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery
) -> None:
    ca, va = Node(network, CA), Node(network, VA)
    nursery.start_soon(ca.links.run)
    await ca.until(PeerUp)
    network.wire("CA", "VA").stall()
    frame = encode_frame(nack(1))
    for _ in range(2 * LIMITS.queue_bytes // len(frame)):
        ca.links.send((VA,), frame)
    await settle()
    assert ca.links.status()["VA"]["queue_bytes"] <= LIMITS.queue_bytes
    assert ca.links.status()["VA"]["dropped"] > 0
    await ca.until(PeerDown)
    network.heal()
    await ca.until(PeerUp)
    ca.send(VA, nack(2))
    assert (await va.messages(1))[-1] == nack(2)


async def test_a_link_is_not_read_while_the_inbox_is_full(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA, inbox_messages=10)
    stream = await call(network, CA, VA)
    for number in range(1, 11):
        await stream.send_all(encode_frame(nack(number)))
    await settle()
    await stream.send_all(encode_frame(nack(11)))
    await settle()
    assert len(va.inbox.take()) == 10
    await va.inbox.filled()
    assert await va.messages(1) == [nack(11)]


async def test_somebody_who_says_nothing_is_closed_in_time(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA)
    stream = await network.dial(CA, VA)
    began = trio.current_time()
    received = await closed(stream)
    assert received.startswith(MAGIC)
    assert trio.current_time() - began == pytest.approx(LIMITS.handshake_us / 1e6)
    assert va.log() == ["peer_unknown somebody: no answer in time"]


async def test_only_so_many_may_say_nothing_at_once(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA)
    for _ in range(link.MAX_STRANGERS):
        await network.dial(CA, VA)
    await settle()
    began = trio.current_time()
    assert await closed(await network.dial(CA, VA)) == b""
    assert trio.current_time() == began
    assert va.log() == [f"peer_refused strangers: {link.MAX_STRANGERS} connections have not said who they are"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a replica: its first bytes are b'GET / HT'"),
        (PREFIX.pack(MAGIC, 1, 1, 0xFFFF), "a hello of 65535 bytes"),
        (PREFIX.pack(MAGIC, 1, 1, 4) + b"\xff\xff\xff\xff", "not CBOR"),
    ],
)
async def test_garbage_in_place_of_a_handshake_is_closed(
    autojump_clock: MockClock, network: LinkNetwork, data: bytes, why: str
) -> None:
    va = Node(network, VA)
    stream = await network.dial(CA, VA)
    await stream.send_all(data + bytes(2))
    await closed(stream)
    [line] = va.log()
    assert why in line


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cluster": "toys"}, "cluster: {} here, {} there"),
        ({"lowest": 2, "highest": 2}, "wire versions"),
        ({"protocol": "raft"}, "protocol"),
        ({"secret": fingerprint(b"other")}, "the secrets of the two configurations differ"),
        ({"n": 2}, "number of replicas"),
        ({"name": "IR"}, "replica 0 is CA here, IR there"),
    ],
)
async def test_both_ends_say_why_they_do_not_talk_and_go_on(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery, changes: dict[str, Any], why: str
) -> None:
    ca, va = Node(network, CA, **changes), Node(network, VA)
    nursery.start_soon(ca.links.run)
    await trio.sleep(3)
    why = why.format("shop", "toys")
    assert any(line.startswith("peer_refused") and why in line for line in va.log())
    assert any(line.startswith("peer_refused VA: VA ") for line in ca.log())
    assert not ca.links.status()["VA"]["up"]
    ir = Node(network, IR)
    nursery.start_soon(ir.links.run)
    nursery.start_soon(va.links.run)
    await va.until(PeerUp)
    va.send(IR, nack(1))
    assert await ir.messages(1) == [nack(1)]


async def test_a_ghost_of_an_earlier_incarnation_is_refused(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA)
    new = await call(network, CA, VA, incarnation=5)
    with pytest.raises(link.Refused, match="VA refuses us: incarnation 4 of CA is over: 5 was seen"):
        await call(network, CA, VA, incarnation=4)
    await new.send_all(encode_frame(nack(1)))
    assert await va.messages(1) == [nack(1)]


async def test_whom_a_replica_met_is_known_to_its_next_life(autojump_clock: MockClock, network: LinkNetwork) -> None:
    disk = VirtualDisk()
    Node(network, VA, disk=disk)
    await call(network, CA, VA, incarnation=5)
    Node(network, VA, disk=disk)
    with pytest.raises(link.Refused, match="VA refuses us: incarnation 4 of CA is over: 5 was seen"):
        await call(network, CA, VA, incarnation=4)
    with pytest.raises(link.Refused, match="VA refuses us: CA came with another disk than the one known here"):
        await call(network, CA, VA, incarnation=6, disk="0f" * 16)
    await call(network, CA, VA, incarnation=5)


async def test_of_two_disks_that_come_at_once_one_is_taken(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA, disk=VirtualDisk(sync_us=1_000_000))
    refused: list[str] = []

    async def come(disk: str) -> None:
        try:
            await call(network, CA, VA, disk=disk)
        except link.Refused as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, "01" * 16)
        nursery.start_soon(come, "02" * 16)
    [why] = refused
    assert "CA came with another disk" in why
    await settle()
    assert len(va.log()) == 1


async def test_nobody_is_talked_to_before_it_is_remembered(autojump_clock: MockClock, network: LinkNetwork) -> None:
    disk = VirtualDisk(sync_us=1_000_000)
    Node(network, VA, disk=disk)
    began = trio.current_time()
    await call(network, CA, VA)
    assert trio.current_time() - began == pytest.approx(1)
    assert disk.known("CA") is not None
    await call(network, CA, VA)
    assert trio.current_time() - began == pytest.approx(1), "nothing was new"


async def test_a_full_disk_refuses_new_links_and_says_so(autojump_clock: MockClock, network: LinkNetwork) -> None:
    disk = VirtualDisk()
    va = Node(network, VA, disk=disk)
    disk.room_bytes = 0
    why = "CA cannot be written down among the peers of VA: No space left on device"
    with pytest.raises(link.Refused, match=f"VA refuses us: {why}"):
        await call(network, CA, VA)
    await settle()
    assert va.log() == [f"peer_refused somebody: CA is refused: {why}. See to the disk of VA; the link is tried again"]
    disk.room_bytes = None
    await call(network, CA, VA)


async def test_a_new_incarnation_ends_the_links_of_the_old_one(
    autojump_clock: MockClock, pair: tuple[Node, Node], network: LinkNetwork
) -> None:
    ca, _ = pair
    stream = await call(network, VA, CA, incarnation=2)
    await ca.until(PeerDown)
    assert "peer_down VA: a newer incarnation took its place" in ca.log()
    await stream.send_all(encode_frame(nack(1)))
    assert await ca.messages(1) == [nack(1)]


async def test_a_peer_that_calls_again_replaces_its_link(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA)
    old, new = await call(network, CA, VA), await call(network, CA, VA)
    assert await closed(old) == b""
    await new.send_all(encode_frame(nack(1)))
    assert await va.messages(1) == [nack(1)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\x05\x00\x00\x00\x03\x00\xff\xff\xff", "not CBOR"),
        (b"\x08\x00\x00\x00\x06\x00" + cbor.dumps([Nack.code, [0, 1, 1]]), "Nack has 2 fields, not 1"),
        (encode_control(PONG, 1), "a pong that nobody asked for"),
        (encode_control(7, 1), "link frame of unknown kind 7"),
    ],
    ids=["oversize", "garbage", "bad message", "pong", "unknown"],
)
async def test_a_peer_that_sends_nonsense_is_closed_and_named(
    autojump_clock: MockClock, network: LinkNetwork, data: bytes, why: str
) -> None:
    va = Node(network, VA)
    stream, other = await call(network, CA, VA), await call(network, IR, VA)
    await stream.send_all(data)
    await closed(stream)
    [line] = va.log()
    assert line.startswith("peer_error CA: ")
    assert why in line
    await other.send_all(encode_frame(nack(2)))
    assert await va.messages(1) == [nack(2)]


async def test_a_stream_that_ends_inside_a_frame_is_named(autojump_clock: MockClock, network: LinkNetwork) -> None:
    va = Node(network, VA)
    stream = await call(network, CA, VA)
    await stream.send_all(encode_frame(nack(1))[:-1])
    await stream.aclose()
    await settle()
    assert va.log() == ["peer_error CA: closed inside a frame"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encode_frame(nack(1)), "a message came back on the link that was called"),
        (encode_control(PONG, 12345), "a pong that nobody asked for"),
        (b"\xff\xff\x00\x00\x00\x00", "a frame of 65535 bytes"),
    ],
    ids=["message", "pong", "oversize"],
)
async def test_an_answer_that_is_no_pong_ends_the_link(
    autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery, data: bytes, why: str
) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await greet(stream, hello(VA), no_objection)
        await stream.send_all(data)
        await closed(stream)

    network.serve(VA, answer)
    ca = Node(network, CA)
    nursery.start_soon(ca.links.run)
    await ca.until(PeerDown)
    assert any(line.startswith("peer_down VA: ") and why in line for line in ca.log())


async def test_a_pong_counts_once(autojump_clock: MockClock, network: LinkNetwork, nursery: trio.Nursery) -> None:
    async def answer_twice(stream: trio.abc.Stream) -> None:
        await greet(stream, hello(VA), no_objection)
        [frame] = FrameReader(64).feed(await stream.receive_some(64))
        token = control(frame).token
        await stream.send_all(2 * encode_control(PONG, token))
        await closed(stream)

    network.serve(VA, answer_twice)
    ca = Node(network, CA)
    nursery.start_soon(ca.links.run)
    await ca.until(PeerDown)
    assert any("a pong that nobody asked for" in line for line in ca.log())


async def test_pings_without_reading_pongs_cost_a_bounded_queue(
    autojump_clock: MockClock, network: LinkNetwork
) -> None:
    Node(network, VA, delays_us={CA: 1_000_000})
    stream = await call(network, CA, VA)
    for token in range(1, 1001):
        await stream.send_all(encode_control(PING, token))
    await settle()
    await stream.send_all(encode_frame(nack(1))[:3])
    with trio.fail_after(2):
        pongs = FrameReader(64).feed(await stream.receive_some(1 << 20))
    assert 0 < len(pongs) * len(encode_control(PONG, 0)) <= 1024
