"""A cluster by hand, told: what an event changed at whom, what ran, what clients heard, what was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis

from epaxos.engine import Input, Turn
from epaxos.errors import EpaxosError
from epaxos.execution.interface import Group
from epaxos.ids import InstanceId, ReplicaId
from epaxos.packing import decode_run
from epaxos.protocols.registry import VIEWS
from epaxos.protocols.view import Row
from epaxos.session import SessionId
from epaxos.testing.byhand import FOREVER_US, ByHand, Flight, Waiter
from epaxos.testing.words import Namer, run_text

NOTHING: Final = "nothing"
DONE: Final = "done"
"""The answer to a command that has no result."""


class Mortal(ByHand):
    """A cluster by hand in which a replica that finds something wrong stops, as it would in production."""

    def __init__(self, n: int, **settings: Any) -> None:
        self.stopped: list[tuple[ReplicaId, str]] = []
        """(who, why), in order."""
        super().__init__(n, **settings)

    def turn(self, i: ReplicaId, *inputs: Input) -> Turn:
        """As `ByHand.turn`; a replica that stops has no effects any more."""
        try:
            return super().turn(i, *inputs)
        except (AssertionError, EpaxosError, LookupError, TypeError, ValueError) as error:
            self.crash(i)
            self.stopped.append((i, f"{type(error).__name__}: {error}"))
            return Turn()


@dataclass
class Submission:
    """A command of a client, under the name that the scenario gave it."""

    name: str
    site: ReplicaId
    run: bytes
    waiter: Waiter
    incarnation: int
    bound: bool = False
    """Has the id it went into got the name?"""

    @property
    def text(self) -> str:
        """The command as people type it."""
        return run_text(self.run)

    def heard(self) -> list[str]:
        """What the client was told so far."""
        replies = [reply for data in self.waiter.replies for reply in (_replies(data) if data else [DONE])]
        return [*replies, *map(str, self.waiter.errors)]


def _replies(data: bytes) -> Iterator[str]:
    reader = hiredis.Reader(errors="backslashreplace", encoding="utf-8")
    reader.feed(data)
    while (reply := reader.gets()) is not False:
        yield _shown(reply)


def _shown(reply: Any) -> str:
    if isinstance(reply, list):
        return "[" + " ".join(map(_shown, reply)) + "]"
    return "(nil)" if reply is None else str(reply)


@dataclass
class _Before:
    """What there was before an event."""

    rows: list[dict[str, str]]
    lives: list[int]
    notes: list[int]
    groups: list[int]
    heard: list[int]
    stopped: int
    flights: set[Flight] = field(default_factory=set)


class Narrator:
    """`event` makes something happen and tells what came of it, a line each."""

    def __init__(self, n: int, *, protocol: str = "epaxos", **settings: Any) -> None:
        """`settings` are those of `ByHand`. Raises ConfigError for a protocol that is not in the registry."""
        self.cluster = Mortal(n, protocol=protocol, **settings)
        self.view = VIEWS[protocol]
        self.words = Namer(lanes=self.view.lanes)
        self.submissions: dict[str, Submission] = {}
        self.sessions: dict[str, tuple[SessionId, bool]] = {}
        """name -> (session, is it FIFO), of those that clients have asked to open"""

    # -- events

    def event(self, act: Callable[[], object], *, brief: bool = False) -> list[str]:
        """Let it happen. In brief: only what clients heard, and who stopped."""
        before = self._now()
        act()
        self._give_names()
        lines = [f"{self.words.replica(i)}  stops: {why}" for i, why in self.cluster.stopped[before.stopped :]]
        for i in range(self.cluster.n):
            if not brief:
                lines += [*self._changes(i, before), *self._notes(i, before), *self._executions(i, before)]
            lines += self._answers(i, before)
            if not brief:
                sent = self.cluster.pick(source=i)
                lines += self.messages(flight for flight in sent if flight not in before.flights)
        return lines

    def submit(self, site: ReplicaId, name: str, run: bytes, *, stream: int, timeout_us: int = FOREVER_US) -> None:
        """A client of `site` hands in a run."""
        waiter = Waiter()
        incarnation = self.cluster.sites[site].incarnation
        self.submissions[name] = Submission(name, site, run, waiter, incarnation)
        count = len(decode_run(run))
        self.cluster.submit_run(site, run, waiter, count=count, stream=stream, timeout_us=timeout_us)

    def _now(self) -> _Before:
        cluster = self.cluster
        return _Before(
            rows=[dict(self.rows(i)) for i in range(cluster.n)],
            lives=[site.incarnation for site in cluster.sites],
            notes=[len(site.notes) for site in cluster.sites],
            groups=[len(site.groups) for site in cluster.sites],
            heard=[len(each.heard()) for each in self.submissions.values()],
            stopped=len(cluster.stopped),
            flights=set(cluster.flights),
        )

    def _give_names(self) -> None:
        """A command's first id gets the command's name; under its second (after a Nop) it is a stranger."""
        for each in self.submissions.values():
            site = self.cluster.sites[each.site]
            if each.bound or site.incarnation != each.incarnation:
                continue
            for id_, batch in self.view.carried(site.protocol):
                mine = (batch.name.origin, batch.name.incarnation) == (each.site, each.incarnation)
                if mine and batch.run == each.run and id_ not in self.words.names.values():
                    self.words.give(each.name, id_)
                    each.bound = True
                    break

    # -- what came of it

    def _changes(self, i: ReplicaId, before: _Before) -> Iterator[str]:
        was, now = before.rows[i], dict(self.rows(i))
        for about in [*now, *(about for about in was if about not in now)]:
            old, new = was.get(about, NOTHING), now.get(about, NOTHING)
            if old != new:
                yield f"{self.words.replica(i)}  {about} was {old}"
                yield f"{self.words.replica(i)}  {about} now {new}"

    def _notes(self, i: ReplicaId, before: _Before) -> Iterator[str]:
        site = self.cluster.sites[i]
        for note in site.notes[before.notes[i] if site.incarnation == before.lives[i] else 0 :]:
            about = "" if note.id is None else f" {self.words.id(note.id)}"
            yield f"{self.words.replica(i)}  notes {note.event}{about}{note.detail and f': {note.detail}'}"

    def _executions(self, i: ReplicaId, before: _Before) -> Iterator[str]:
        site = self.cluster.sites[i]
        first = before.groups[i] if site.incarnation == before.lives[i] else 0
        for number, group in enumerate(site.groups[first:], start=first):
            verb = "replays" if number < site.replayed else "executes"
            yield f"{self.words.replica(i)}  {verb} {self._group(group)}"

    def _answers(self, i: ReplicaId, before: _Before) -> Iterator[str]:
        for at, each in enumerate(self.submissions.values()):
            if each.site == i:
                known = before.heard[at] if at < len(before.heard) else 0
                yield from (f"{self.words.replica(i)}  answers {each.name}: {reply}" for reply in each.heard()[known:])

    def _group(self, group: Group) -> str:
        members = [f"{self.words.id(id_)}: {self.payload_text(id_)}" for id_ in group]
        return members[0] if len(members) == 1 else f"as one group {', then '.join(members)}"

    def payload_text(self, id_: InstanceId) -> str:
        """The payload that was decided for an id."""
        return " or ".join(sorted(self.words.payload(payload) for payload, _ in self.cluster.decided[id_]))

    # -- views

    def messages(self, flights: Iterable[Flight], mark: str = "") -> Iterator[str]:
        """A line each, behind `mark`; one message to several is one line."""
        sent: dict[int, list[Flight]] = {}
        for flight in flights:
            sent.setdefault(id(flight.message), []).append(flight)
        for same in sent.values():
            targets = self.words.replicas({flight.target for flight in same})
            message = self.words.message(same[0].message)
            yield f"{mark}{self.words.replica(same[0].source)} -> {targets}  {message}"

    def rows(self, i: ReplicaId) -> list[Row]:
        """What site `i` knows; when it is down, what its disk has."""
        site = self.cluster.sites[i]
        return self.view.rows(site.protocol, self.words) if site.up else self.stored(i)

    def stored(self, i: ReplicaId) -> list[Row]:
        """What a power cut would leave of it."""
        return self.view.stored(self.cluster.sites[i].disk, self.cluster.n, self.words)
