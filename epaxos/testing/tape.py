"""A run of the simulator, taped: what each engine of it took and when, so that it can be played again by hand.

Everything else about a run (the network, the heap, the faults) shows in this alone: what was lost never arrives, what
was late arrives late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from epaxos.engine import Input
from epaxos.protocols.interface import PeerDown, PeerUp, Receive, Rtt
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
    _clocks: dict[int, int] = field(default_factory=dict)
    """What the clock of each replica showed when it last did something."""
    _numbers: dict[int, int] = field(default_factory=dict)
    """The address of a waiter -> the number of its submission."""
    _waiters: list[object] = field(default_factory=list)
    """So that no address is given twice."""

    def began(self, node: Node, mono_us: int) -> None:
        """A replica begins a life."""
        self._clocks[node.me] = mono_us
        if node.life.number > 1:
            self.events.append(events.Restart(node.me, alone=True))

    def took(self, node: Node, mono_us: int) -> None:
        """It is about to take a turn with all that has arrived."""
        before_us = self._clocks[node.me]
        self._clocks[node.me] = mono_us
        due = tuple(timer for at_us, timer in node.engine.timers() if at_us <= mono_us)
        self.events.append(events.Turn(node.me, mono_us - before_us, due))

    def arrived(self, node: Node, item: Input) -> None:
        """Something arrives there."""
        me = node.me
        match item:
            case Receive(peer=peer, message=message):
                self.events.append(events.Deliver(peer, me, message))
            case Submit(waiter, stream, run, count, deadline_us):
                number, timeout_us = self._number(waiter), max(1, deadline_us - self._clocks[me])
                self.calls[number] = list(getattr(waiter, "calls", ()))
                self.events.append(events.Submit(me, number, run, count, stream, timeout_us))
            case Cancel(waiter):
                self.events.append(events.Cancel(me, self._number(waiter)))
            case PeerUp(peer=peer):
                self.events.append(events.LinkUp(me, peer))
            case PeerDown(peer=peer):
                self.events.append(events.LinkDown(me, peer))
            case Rtt(peer=peer, rtt_us=rtt_us):
                self.events.append(events.Measure(me, peer, rtt_us))
            case _:
                pass  # that something is durable follows from its sync

    def _number(self, waiter: object) -> int:
        if id(waiter) not in self._numbers:
            self._waiters.append(waiter)
        return self._numbers.setdefault(id(waiter), len(self._waiters))

    def synced(self, node: Node, groups: int) -> None:
        """Its disk has made so many writes durable."""
        self.events.append(events.Sync(node.me, groups))

    def died(self, node: Node, keep: int) -> None:
        """The power went; so many of the writes that waited are kept."""
        self.events.append(events.Crash(node.me, keep))
