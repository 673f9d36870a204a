"""Events played on a cluster by hand while an invariant looks on: does it still say No when less happens?

Whatever of the events cannot happen (a message that nobody sent, a disk with nothing to sync) does not; what is left is
something that could have happened by itself, since every message was sent, every write synced or lost in order, and
clocks only run on. So each No is a real one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from epaxos.engine import Turn
from epaxos.errors import Rejected, Unknown
from epaxos.execution.interface import Executor
from epaxos.ids import ReplicaId
from epaxos.machines.interface import BatchMachine
from epaxos.messages import Message
from epaxos.protocols.interface import PeerDown, PeerUp, Receive, Rtt
from epaxos.testing import events
from epaxos.testing.byhand import FOREVER_US, ByHand, Flight
from epaxos.testing.events import Event
from epaxos.testing.invariants import Final as World_at_the_end, Invariant, Watch
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.record import Call, Life, Outcome, Record, Violation, as_violation
from epaxos.testing.watched import WatchedMachine, witnessed


@dataclass(frozen=True, slots=True)
class Script:
    """Events, and the cluster that they happen to."""

    settings: Mapping[str, Any]
    """Those of `ByHand`."""
    events: Sequence[Event]
    calls: Mapping[int, Sequence[Call]] = field(default_factory=dict)
    """By the number of their submission, the calls as they were made once; they are only looked at."""
    keys: tuple[bytes, ...] = ()
    """Those that more than one command touches."""


class _Watched(ByHand):
    """A cluster by hand that is told to an invariant. Messages under way are kept by link, which is faster."""

    def __init__(self, record: Record, watch: Watch, settings: Mapping[str, Any]) -> None:
        self.record = record
        self.watch = watch
        self._machines: dict[ReplicaId, WatchedMachine] = {}
        self.under_way: dict[tuple[ReplicaId, ReplicaId], list[Flight]] = defaultdict(list)
        self.delivered: dict[tuple[ReplicaId, ReplicaId], list[Flight]] = defaultdict(list)
        super().__init__(**settings)

    def lend(
        self, i: ReplicaId, incarnation: int, executor: Executor, machine: BatchMachine
    ) -> tuple[Executor, BatchMachine]:
        """As `ByHand.lend`."""
        life = Life(i, incarnation)
        executor, self._machines[i] = witnessed(
            life, executor, machine, record=self.record, watch=self.watch, decided={}
        )
        return executor, self._machines[i]

    def _turn(self, i: ReplicaId, inputs: Sequence[Any]) -> Turn:
        self._machines[i].replaying = False
        turn = super()._turn(i, inputs)
        life = Life(i, self.sites[i].incarnation)
        for peers, message in turn.sends:
            self.watch.sends(life, peers, message)
        for flight in self.flights:
            self.under_way[flight.source, flight.target].append(flight)
        self.flights.clear()
        return turn


class _Client:
    """Who waits for a submission."""

    def __init__(self, rehearsal: Rehearsal, calls: list[Call], *, sent_once: bool) -> None:
        self._rehearsal = rehearsal
        self._calls = calls
        self._sent_once = sent_once
        """Otherwise other submissions are for the same call, and that this one has no result tells nothing."""

    def reply(self, first: int, count: int, data: bytes) -> None:
        """As `Waiter.reply`."""
        if self._calls:
            replies = self._rehearsal.record.model.split(data, count)
            for call, reply in zip(self._calls[first : first + count], replies, strict=True):
                self._rehearsal.answered(call, reply, sent_once=self._sent_once)

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """As `Waiter.fail`."""
        if self._sent_once and isinstance(error, Rejected):
            for call in self._calls[first : first + count]:
                self._rehearsal.rejected(call)


Happening = tuple[Event, Callable[[], object]]
"""What can happen, and how it is made to."""


class Rehearsal:
    """One play of a script under invariants of these kinds."""

    def __init__(self, script: Script, kinds: Sequence[type[Invariant]]) -> None:
        self._script = script
        self.record = Record(KvModel(), script.keys, script.settings["window"])
        self.watch = Watch(self.record, kinds)
        self._ticks = 0
        self._calls: dict[int, Call] = {}
        self._clients: dict[int, _Client] = {}
        self._submissions = Counter(call.number for calls in script.calls.values() for call in calls)
        """Of each call: a client with a session sends a command more than once."""
        self._cluster = _Watched(self.record, self.watch, script.settings)
        self.happened: list[Event] = []
        """What could happen and did, the last of it perhaps not to its end."""

    def run(self) -> Violation | None:
        """Play it, to the first violation if there is one."""
        try:
            with as_violation():
                for event in self._script.events:
                    happening = self._happening(event)
                    if happening is not None:
                        self.happened.append(happening[0])
                        happening[1]()
                self.watch.finished(World_at_the_end({}, {}, {}, settled=True))
        except Violation as violation:
            return violation
        return None

    # -- events

    def _happening(self, event: Event) -> Happening | None:
        """What of it can happen now."""
        cluster = self._cluster
        if isinstance(event, events.Deliver):
            return self._arrival(event)
        if isinstance(event, events.Drop | events.Wake | events.Act):
            raise ValueError(f"{event}: no tape has such an event")
        site = cluster.sites[event.site]
        match event:
            case events.HoldDisk(me):
                return event, partial(cluster.hold_disk.add, me)
            case events.HoldTurns(me):
                return event, partial(cluster.hold_turns.add, me)
            case events.Restart(me, alone) if not site.up:
                return event, partial(cluster.restart, me, alone=alone)
            case _ if not site.up:
                return None
            case events.Submit():
                return event, partial(self._submit, event)
            case events.Cancel(me, number) if number in self._clients:
                return event, partial(cluster.cancel, me, self._clients[number])
            case events.Sync(me, groups) if site.disk.unsynced:
                waiting = site.disk.unsynced[:groups]
                return events.Sync(me, len(waiting)), partial(cluster.sync, me, waiting[-1])
            case events.Crash(me, keep):
                keep = min(keep, len(site.disk.unsynced))
                return events.Crash(me, keep), partial(cluster.crash, me, keep)
            case events.LinkUp(me, peer):
                return event, partial(cluster.turn, me, PeerUp(peer=peer))
            case events.LinkDown(me, peer):
                return event, partial(cluster.turn, me, PeerDown(peer=peer))
            case events.Measure(me, peer, rtt_us):
                return event, partial(cluster.turn, me, Rtt(peer=peer, rtt_us=rtt_us))
            case events.Turn(me, after_us, timers):
                return event, partial(cluster.take, me, after_us, timers)
        return None

    def _arrival(self, event: events.Deliver) -> Happening | None:
        """That message, or one that was sent in its place: of the same type, about the same id."""
        source, target, message = event
        if not self._cluster.sites[target].up:
            return None
        link = source, target
        under_way, delivered = self._cluster.under_way[link], self._cluster.delivered[link]
        for same in (_is(message), _stands_for(message)):
            for flights in (under_way, delivered):
                flight = next((flight for flight in flights if same(flight.message)), None)
                if flight is not None:
                    if flights is under_way:
                        under_way.remove(flight)
                        delivered.append(flight)
                    receive = Receive(peer=source, message=flight.message)
                    return event._replace(message=flight.message), partial(self._cluster.turn, target, receive)
        return None

    # -- clients

    def _submit(self, event: events.Submit) -> None:
        site, number, run, commands, stream, timeout_us = event
        calls = [self._call(site, call) for call in self._script.calls.get(number, ())]
        sent_once = all(self._submissions[call.number] == 1 for call in calls)
        if sent_once:
            for hook in self.watch.asked:
                for call in calls:
                    hook(call)
        client = self._clients[number] = _Client(self, calls, sent_once=sent_once)
        self._cluster.submit_run(
            site,
            run,
            client,
            count=commands,
            stream=number if stream is None else stream,
            timeout_us=FOREVER_US if timeout_us is None else timeout_us,
        )

    def _call(self, site: ReplicaId, made: Call) -> Call:
        """The same call, made in this play."""
        if made.number not in self._calls:
            life = Life(site, self._cluster.sites[site].incarnation)
            call = Call(made.number, life, made.stream, made.form, self._tick())
            self._calls[made.number] = call
            self.record.calls.append(call)
        return self._calls[made.number]

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def answered(self, call: Call, reply: bytes, *, sent_once: bool) -> None:
        """A client has a result. Raises Violation when it had another."""
        if call.outcome is Outcome.DONE and call.reply != reply:
            raise Violation("at_most_once", f"{call} was answered {call.reply!r}, and another copy {reply!r}")
        if call.outcome is Outcome.OPEN:
            executed = self._cluster.sites[call.life.replica].engine.executor.executed()
            for hook in self.watch.replied if sent_once else ():
                hook(call, executed)
            call.outcome, call.reply, call.returned = Outcome.DONE, reply, self._tick()
            for hook in self.watch.answered:
                hook(call)

    def rejected(self, call: Call) -> None:
        """A client was told that its command is certainly not applied."""
        call.outcome, call.returned = Outcome.REJECTED, self._tick()


def _is(message: Message) -> Callable[[Message], bool]:
    return lambda other: other == message


def _stands_for(message: Message) -> Callable[[Message], bool]:
    kind, id_ = type(message), getattr(message, "id", None)
    return lambda other: type(other) is kind and getattr(other, "id", None) == id_
