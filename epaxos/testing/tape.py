"""A run of the simulator, taped: what each engine of it took and when, so that it can be played again by hand.

Everything else about a run (the network, the heap, the faults) shows in this alone: what was lost never arrives, what
was late arrives late.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from epaxos.engine import Input
from epaxos.ids import ReplicaId
from epaxos.protocols.interface import Durable, PeerDown, PeerUp, Receive, Rtt
from epaxos.submission import Cancel, Submit
from epaxos.testing import events
from epaxos.testing.events import Event
from epaxos.testing.record import Call

if TYPE_CHECKING:
    from epaxos.testing.node import Node


@dataclass
class Tape:
    """The events of one run, as they happened."""

    events: list[Event] = field(default_factory=list)
    calls: dict[int, list[Call]] = field(default_factory=dict)
    """The commands of each submission, as far as they are calls of the history. A call of a session has several
    submissions."""
    _waiting: dict[ReplicaId, deque[Input]] = field(default_factory=lambda: defaultdict(deque))
    """What has arrived and is not taken. It is told when it is taken, its syncs too: nobody has noticed them before."""
    _clocks: dict[ReplicaId, int] = field(default_factory=dict)
    """What the clock of each replica showed when it last did something."""
    _durable: dict[ReplicaId, int] = field(default_factory=dict)
    """The last mark that each took from its disk."""
    _numbers: dict[int, int] = field(default_factory=dict)
    """The address of a waiter -> the number of its submission."""
    _waiters: list[object] = field(default_factory=list)
    """So that no address is given twice."""

    def began(self, node: Node, mono_us: int) -> None:
        """A replica begins a life."""
        self._clocks[node.me] = mono_us
        self._durable[node.me] = 0
        if node.life.number > 1:
            self.events.append(events.Restart(node.me, alone=True))

    def arrived(self, node: Node, item: Input) -> None:
        """Something arrives there."""
        self._waiting[node.me].append(item)

    def took(self, node: Node, mono_us: int, inputs: int) -> None:
        """It is about to take a turn with the first so many of what has arrived."""
        for _ in range(inputs):
            self.events.extend(self._told(node.me, self._waiting[node.me].popleft()))
        due = tuple(timer for at_us, timer in node.engine.timers() if at_us <= mono_us)
        self.events.append(events.Turn(node.me, mono_us - self._clocks[node.me], due))
        self._clocks[node.me] = mono_us

    def died(self, node: Node, keep: int) -> None:
        """The power went; so many of the writes that waited are kept, beside those whose sync it has not noticed."""
        waiting = self._waiting.pop(node.me, ())
        durable = max((item.mark for item in waiting if isinstance(item, Durable)), default=self._durable[node.me])
        self.events.append(events.Crash(node.me, keep + durable - self._durable[node.me]))

    def _told(self, me: ReplicaId, item: Input) -> Iterator[Event]:
        match item:
            case Receive(peer=peer, message=message):
                yield events.Deliver(peer, me, message)
            case Submit(waiter, stream, run, count, deadline_us):
                number, timeout_us = self._number(waiter), max(1, deadline_us - self._clocks[me])
                self.calls[number] = list(getattr(waiter, "calls", ()))
                yield events.Submit(me, number, run, count, stream, timeout_us)
            case Cancel(waiter):
                yield events.Cancel(me, self._number(waiter))
            case Durable(mark=mark):
                groups, self._durable[me] = mark - self._durable[me], mark
                if groups:
                    yield events.Sync(me, groups)
            case PeerUp(peer=peer):
                yield events.LinkUp(me, peer)
            case PeerDown(peer=peer):
                yield events.LinkDown(me, peer)
            case Rtt(peer=peer, rtt_us=rtt_us):
                yield events.Measure(me, peer, rtt_us)

    def _number(self, waiter: object) -> int:
        if id(waiter) not in self._numbers:
            self._waiters.append(waiter)
        return self._numbers.setdefault(id(waiter), len(self._waiters))
