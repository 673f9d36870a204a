"""Links between replicas: each replica calls every peer and sends on the connection it made, so that a pair of
replicas has two connections, one a direction, and nobody has to break a tie.

A link that breaks is made again, with growing, jittered pauses. What is queued when it breaks, or does not fit its
queue, is lost and counted: protocols send again what matters. Pings ride between the messages; a pong tells the round
trip, and its absence that the other end has gone.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, NamedTuple, TypedDict

import trio

from epaxos.errors import ProtocolError, StorageError
from epaxos.identity import Acquaintance, Acquaintances
from epaxos.ids import ReplicaId
from epaxos.messages import decode
from epaxos.net.frames import PING, PONG, Frame, FrameReader, control, encode_control
from epaxos.net.greeting import Greeting, Refused, greet
from epaxos.net.handshake import Hello, objection, version
from epaxos.net.inbox import Inbox
from epaxos.net.outbox import Outbox
from epaxos.net.signal import Signal, now_us
from epaxos.observe.log import Log
from epaxos.protocols.interface import PeerDown, PeerUp, Receive, Rtt

PING_EVERY_US: Final = 500_000
SILENCE_US: Final = 15_000_000
"""A link on which the other end owes something for so long is taken for broken."""
QUIET_MIN_US: Final = 2_000_000
QUIET_ROUND_TRIPS: Final = 8
"""It is so after the time between two pings and so many round trips, and never sooner than the above, when nothing else
comes from there either: who is busy answers late, and pings."""
RTTS_KEPT: Final = 8
"""The longest of the last so many measurements counts."""
STEP_US: Final = 250_000
"""Silence is counted in steps. One that took longer counts as one: then this process has stood still, not the other."""
FIRST_PAUSE_US: Final = 20_000
"""Before the first attempt to make a broken link again; pauses double up to `LinkLimits.reconnect_max_us`."""
CHUNK_BYTES: Final = 1 << 18
"""Of one read; and about the most that is joined into one write."""
PIECE_BYTES: Final = 1 << 16
"""Of one write. A link that takes one in less than `SILENCE_US` is alive."""
MAX_STRANGERS: Final = 64
"""Connections that have not said who they are; further ones are closed."""
COMPLAIN_EVERY_US: Final = 60_000_000
"""How often the same complaint about the same end is logged."""
MAX_COMPLAINTS: Final = 256
_CONTROL_BYTES: Final = 64
_PONG_QUEUE_BYTES: Final = 1024
_HALF_TICK_US: Final = 500
"""The system wakes a task at whole milliseconds, so a delayed frame leaves at the one nearest to when it is due."""

LINK_ERRORS: Final = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    ProtocolError,
)
"""How a link ends. Anything else is an error of this program."""

Dial = Callable[[ReplicaId], Awaitable[trio.abc.Stream]]
"""Connects to a peer; raises OSError when that is not possible now."""


class LinkLimits(NamedTuple):
    """The bounds of every link."""

    frame_bytes: int
    queue_bytes: int
    handshake_us: int
    reconnect_max_us: int


class PeerStatus(TypedDict):
    """What people are shown of a peer."""

    up: bool
    rtt_us: int | None
    queue_bytes: int
    sent_bytes: int
    dropped: int


class _Peer:
    """What is known of one peer, and the queue of what goes there."""

    def __init__(self, id_: ReplicaId, name: str, outbox: Outbox) -> None:
        self.id = id_
        self.name = name
        self.outbox = outbox
        self.up = False
        self.listening = 0
        """Connections from it on which its next word is waited for: none while this replica has no time for it."""
        self.words = 0
        """How often something came on them."""
        self.rtt_us: int | None = None
        self.incarnation = 0
        """The highest that was met in this life: links to an earlier one lead nowhere."""
        self.seen = Signal()
        """It called us just now: calling it is worth while."""
        self.calling: trio.CancelScope | None = None
        """Of the link to it that is in use."""
        self.hearing: trio.CancelScope | None = None
        """Of the link from it that is in use."""

    @contextlib.contextmanager
    def listens(self) -> Iterator[None]:
        """While its next word is waited for."""
        self.listening += 1
        try:
            yield
        finally:
            self.listening -= 1
            self.words += 1

    def meet(self, incarnation: int) -> None:
        """It was met in this incarnation: links to an earlier one are given up."""
        if incarnation > self.incarnation:
            self.incarnation = incarnation
            for scope in (self.calling, self.hearing):
                if scope is not None:
                    scope.cancel()


class Links:
    """Every link of one replica: `run` makes those that go out, `accept` serves those that come in."""

    def __init__(
        self,
        *,
        hello: Hello,
        names: Sequence[str],
        limits: LinkLimits,
        inbox: Inbox,
        log: Log,
        dial: Dial,
        acquaintances: Acquaintances,
        jitter: Random,
        delays_us: Mapping[ReplicaId, int],
    ) -> None:
        """`names` are the replicas' by id; `delays_us` holds back what goes to a peer, to emulate a longer link."""
        self._hello = hello
        self._names = tuple(names)
        self._limits = limits
        self._inbox = inbox
        self._log = log
        self._dial = dial
        self._acquaintances = acquaintances
        self._judging = trio.Lock()
        """What is remembered of one who says hello is known before the next one is judged."""
        self._jitter = jitter
        self._delays_us = delays_us
        self._peers = {
            id_: _Peer(id_, name, Outbox(max_bytes=limits.queue_bytes, delay_us=delays_us.get(id_, 0)))
            for id_, name in enumerate(names)
            if id_ != hello.replica
        }
        self._strangers = 0
        self._complaints: dict[tuple[str, str], tuple[str, int]] = {}

    def send(self, peers: Iterable[ReplicaId], frame: bytes) -> None:
        """Queue one frame for some peers. Never waits; it may be lost."""
        now = now_us()
        for id_ in peers:
            self._peers[id_].outbox.put(now, frame)

    def status(self) -> dict[str, PeerStatus]:
        """By the name of the peer."""
        return {
            peer.name: PeerStatus(
                up=peer.up,
                rtt_us=peer.rtt_us,
                queue_bytes=peer.outbox.queue_bytes,
                sent_bytes=peer.outbox.taken_bytes,
                dropped=peer.outbox.dropped,
            )
            for peer in self._peers.values()
        }

    async def run(self) -> None:
        """Keep a link to every peer, until cancelled."""
        async with trio.open_nursery() as nursery:
            for peer in self._peers.values():
                nursery.start_soon(self._keep_calling, peer)

    # -------------------------------------------------------------------------------------------------- going out

    async def _keep_calling(self, peer: _Peer) -> None:
        pause_us = FIRST_PAUSE_US
        while True:
            lasted_us = await self._call(peer)
            if lasted_us is not None and lasted_us > pause_us:
                pause_us = FIRST_PAUSE_US
            with trio.move_on_after(pause_us * self._jitter.uniform(0.5, 1) / 1e6) as pause:
                if lasted_us is not None:
                    # It does answer calls. Two that call each other back would make a link that never lasts anew
                    # without a rest.
                    await trio.sleep_forever()
                await peer.seen.wait()
            pause_us = min(2 * pause_us, self._limits.reconnect_max_us) if pause.cancelled_caught else FIRST_PAUSE_US

    async def _call(self, peer: _Peer) -> int | None:
        """One connection, from the attempt to its end; how long it was in use, if it came to that."""
        try:
            with trio.fail_after(self._limits.handshake_us / 1e6):
                stream = await self._dial(peer.id)
        except LINK_ERRORS as error:
            self._complain("peer_unreachable", peer.name, _reason(error))
            return None
        async with stream:
            greeting = await self._greet(stream, peer.name, peer.id)
            if greeting is None:
                return None
            began_us = now_us()
            await self._talk(peer, stream, greeting)
        return now_us() - began_us

    async def _talk(self, peer: _Peer, stream: trio.abc.Stream, greeting: Greeting) -> None:
        pulse = _Pulse(peer)
        peer.outbox.open()
        peer.up = True
        self._log.event("peer_up", peer.name, version=version(self._hello, greeting.theirs))
        self._inbox.put(PeerUp(peer=peer.id))
        why = "a newer incarnation took its place"
        try:
            with trio.CancelScope() as peer.calling:
                why = await _first_to_end(
                    partial(_drain, stream, peer.outbox, pulse.sent),
                    partial(self._hear_pongs, peer, stream, greeting.rest, pulse),
                    pulse.beat,
                )
        finally:
            peer.calling = None
            peer.outbox.close()
            peer.up = False
            peer.rtt_us = None
            self._inbox.put(PeerDown(peer=peer.id))
        self._log.event("peer_down", f"{peer.name}: {why}")

    async def _hear_pongs(self, peer: _Peer, stream: trio.abc.Stream, rest: bytes, pulse: _Pulse) -> str:
        reader = FrameReader(_CONTROL_BYTES)
        data: bytes | bytearray = rest
        while True:
            for frame in reader.feed(data):
                if frame.header:
                    raise ProtocolError("a message came back on the link that was called")
                peer.rtt_us = pulse.pong(*control(frame))
                self._inbox.put(Rtt(peer=peer.id, rtt_us=peer.rtt_us))
            data = await stream.receive_some(CHUNK_BYTES)
            if not data:
                return "closed by the other end"

    # -------------------------------------------------------------------------------------------------- coming in

    async def accept(self, stream: trio.abc.Stream) -> None:
        """Serve a connection that somebody made to us, until it ends."""
        async with stream:
            if self._strangers >= MAX_STRANGERS:
                self._complain("peer_refused", "strangers", f"{MAX_STRANGERS} connections have not said who they are")
                return
            self._strangers += 1
            try:
                greeting = await self._greet(stream, _address(stream), None)
            finally:
                self._strangers -= 1
            if greeting is not None:
                await self._hear(self._peers[greeting.theirs.replica], stream, greeting.rest)

    async def _hear(self, peer: _Peer, stream: trio.abc.Stream, rest: bytes) -> None:
        if peer.hearing is not None:
            peer.hearing.cancel()  # the peer calls again because its earlier link is broken, whatever we think of it
        peer.seen.set()
        pongs = Outbox(max_bytes=_PONG_QUEUE_BYTES, delay_us=self._delays_us.get(peer.id, 0))
        pongs.open()
        with trio.CancelScope() as scope:
            peer.hearing = scope
            try:
                why = await _first_to_end(
                    partial(self._hear_messages, peer, stream, rest, pongs), partial(_drain, stream, pongs)
                )
            finally:
                if peer.hearing is scope:
                    peer.hearing = None
            if why:
                self._complain("peer_error", peer.name, why)

    async def _hear_messages(self, peer: _Peer, stream: trio.abc.Stream, rest: bytes, pongs: Outbox) -> str:
        reader = FrameReader(self._limits.frame_bytes)
        data: bytes | bytearray = rest
        while True:
            for frame in reader.feed(data):
                self._take(peer, frame, pongs)
            await self._inbox.room()
            with peer.listens(), trio.fail_after(SILENCE_US / 1e6):
                data = await stream.receive_some(CHUNK_BYTES)
            if not data:
                return "closed inside a frame" if reader.unfinished else ""

    def _take(self, peer: _Peer, frame: Frame, pongs: Outbox) -> None:
        if frame.header:
            message = decode(frame.header, frame.raw, len(self._names))
            if message is not None:
                self._inbox.put(Receive(peer=peer.id, message=message), len(frame.raw))
            return
        kind, token = control(frame)
        if kind != PING:
            raise ProtocolError("a pong that nobody asked for")
        pongs.put(now_us(), encode_control(PONG, token))

    # ------------------------------------------------------------------------------------------------------- both

    async def _greet(self, stream: trio.abc.Stream, who: str, expected: ReplicaId | None) -> Greeting | None:
        """The handshake, in bounded time; None, and a line in the log, when nothing comes of it."""
        try:
            with trio.fail_after(self._limits.handshake_us / 1e6):
                greeting = await greet(stream, self._hello, partial(self._judge, expected))
        except Refused as error:
            self._complain("peer_refused", who, _reason(error))
            return None
        except LINK_ERRORS as error:
            self._complain("peer_unreachable" if expected is not None else "peer_unknown", who, _reason(error))
            return None
        self._peers[greeting.theirs.replica].meet(greeting.theirs.incarnation)
        return greeting

    async def _judge(self, expected: ReplicaId | None, theirs: Hello) -> str:
        """Why not to talk to `theirs`; empty, and then they are remembered for good, before the first message."""
        async with self._judging:
            known = self._acquaintances.known(theirs.name)
            why_not = objection(self._hello, theirs, names=self._names, expected=expected, known=known)
            met = Acquaintance(theirs.disk, theirs.incarnation)
            if not why_not and met != known:
                try:
                    await self._acquaintances.remember(theirs.name, met)
                except StorageError as error:
                    return (
                        f"{theirs.name} cannot be written down among the peers of {self._hello.name}: {error}. "
                        f"See to the disk of {self._hello.name}; the link is tried again"
                    )
            return why_not

    def _complain(self, event: str, who: str, why: str) -> None:
        """Log trouble with somebody, unless the same was said a moment ago."""
        now = now_us()
        host = who.rpartition(":")[0] or who  # a stranger calls from another port each time
        if len(self._complaints) >= MAX_COMPLAINTS:
            self._complaints.clear()
        said, at_us = self._complaints.get((event, host), ("", 0))
        if said != why or now - at_us >= COMPLAIN_EVERY_US:
            self._complaints[event, host] = (why, now)
            self._log.event(event, f"{who}: {why}")


class _Pulse:
    """The pings of one link: one at a time, each answered before the next is sent.

    A ping may wait behind all that is queued, and longer than a link may be silent: the silence begins when it has
    been sent, and before that each time that something else has. The other end may take its time to answer, as long as
    it says anything on its own link.
    """

    def __init__(self, peer: _Peer) -> None:
        self._peer = peer
        self._outbox = peer.outbox
        self._rtts_us = deque[int](maxlen=RTTS_KEPT)
        self._asked: int | None = None
        """The token of the ping that waits for its pong: when it was queued."""
        self._queued = 0
        """The frames that had been queued when it was, itself included."""
        self._sent = 0
        """The frames of the outbox that have been sent in whole."""
        self._silent_us = 0
        """For how long it has not been answered."""
        self._quiet_us = 0
        """For how long nothing else has come either."""
        self._answered = Signal()

    async def beat(self) -> str:
        """Ping until no answer comes."""
        while True:
            self._asked = now = now_us()
            self._outbox.put(now, encode_control(PING, now), always=True)
            self._queued = self._outbox.queued
            self._silent_us = self._quiet_us = 0
            while self._asked is not None:
                words = self._peer.words
                with trio.move_on_after(STEP_US / 1e6) as step:
                    await self._answered.wait()
                if step.cancelled_caught and self._is_over(words):
                    return "no answer to a ping"
            await trio.sleep(PING_EVERY_US / 1e6)

    def _is_over(self, words: int) -> bool:
        """One more step has passed without an answer, and before it there had been so many words. Is that too long?"""
        self._silent_us += STEP_US
        is_quiet = self._peer.listening and self._peer.words == words
        self._quiet_us = self._quiet_us + STEP_US if is_quiet else 0
        return self._silent_us >= SILENCE_US or self._quiet_us >= self._patience_us()

    def _patience_us(self) -> int:
        if not self._rtts_us:
            return SILENCE_US
        return min(max(QUIET_MIN_US, PING_EVERY_US + QUIET_ROUND_TRIPS * max(self._rtts_us)), SILENCE_US)

    def sent(self, frames: int) -> None:
        """The link took more bytes, and with them all but the latest of the outbox's frames up to this count."""
        if self._sent < self._queued:
            self._silent_us = self._quiet_us = 0
        self._sent = frames

    def pong(self, kind: int, token: int) -> int:
        """Take an answer; the round trip in microseconds. Raises ProtocolError for one that nobody asked for."""
        if kind != PONG or token != self._asked:
            raise ProtocolError("a pong that nobody asked for")
        self._asked = None
        self._answered.set()
        self._rtts_us.append(now_us() - token)
        return self._rtts_us[-1]


async def _drain(stream: trio.abc.Stream, outbox: Outbox, sent: Callable[[int], None] = lambda frames: None) -> str:
    """Write what is due, as it becomes due, in as few pieces as possible; tell `sent` of every piece."""
    while True:
        frames = outbox.taken
        data = memoryview(outbox.take(now_us() + _HALF_TICK_US, CHUNK_BYTES))
        for at in range(0, len(data), PIECE_BYTES):
            await stream.send_all(data[at : at + PIECE_BYTES])
            sent(outbox.taken if at + PIECE_BYTES >= len(data) else frames)
        if data:
            continue
        due_us = outbox.due_us
        with trio.move_on_at(float("inf") if due_us is None else (due_us - _HALF_TICK_US) / 1e6):
            await outbox.filled.wait()


async def _first_to_end(*tasks: Callable[[], Awaitable[str]]) -> str:
    """Run the tasks of a link until one of them ends or fails; why it did."""
    reasons: list[str] = []

    async def run(task: Callable[[], Awaitable[str]]) -> None:
        try:
            reasons.append(await task())
        except LINK_ERRORS as error:
            reasons.append(_reason(error))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    return reasons[0]


def _reason(error: Exception) -> str:
    """Why a link ended, in a few words."""
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _address(stream: trio.abc.Stream) -> str:
    """Whence a connection came, as far as its kind tells."""
    if isinstance(stream, trio.SocketStream):
        with contextlib.suppress(OSError):  # it may be gone already
            host, port, *_ = stream.socket.getpeername()
            return f"{host}:{port}"
    return "somebody"
