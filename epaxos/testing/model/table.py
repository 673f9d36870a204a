"""Every local step is made once: (local state, event) -> (local state, what is said), by number.

A world is made of the same few local states over and over, so that millions of worlds need some ten thousand steps of
the protocol. Local states are told apart by `Site.digest`, and each has one `Site`, which is never changed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from epaxos.ids import ReplicaId
from epaxos.messages import Message
from epaxos.testing.model.laws import Broken, check_step
from epaxos.testing.model.scope import Scope
from epaxos.testing.model.site import Deliver, Event, Fire, Recover, Site, Sync, What

NOWHERE: Final = -1
"""The local state behind a step that broke a law."""


class Flight(NamedTuple):
    """A message that was sent, or (target OUTSIDE) a mark that a replica has left of itself."""

    source: ReplicaId
    target: ReplicaId
    what: What


class Step(NamedTuple):
    """What a local step leads to."""

    after: int
    flights: tuple[int, ...]
    broken: Broken | None = None


class Table:
    """All local states and local steps of a scope that were met."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.sites: list[Site] = []
        self.flights: list[Flight] = []
        self.real_steps = 0
        self._numbers: dict[bytes, int] = {}
        self._flight_numbers: dict[Flight, int] = {}
        self._steps: dict[tuple[int, Event], Step] = {}
        self._deliveries: dict[int, Step] = {}
        self._choices: dict[int, tuple[tuple[Event, ...], tuple[Recover, ...]]] = {}
        self._immortal: dict[int, int] = {}

    def first(self, me: ReplicaId) -> int:
        """A replica with an empty disk, after its Start."""
        scope = self.scope
        return self._number(Site(me, scope.n, slow_disk=scope.slow_disk, mortal=scope.restarts > 0, asked=True))

    def deliver(self, local: int, flight: int) -> Step:
        """The message of that number arrives at its target."""
        key = local << 32 | flight
        step = self._deliveries.get(key)
        if step is None:
            source, _, message = self.flights[flight]
            assert isinstance(message, Message)
            step = self._deliveries[key] = self._make(local, Deliver(source, message))
        return step

    def step(self, local: int, event: Event) -> Step:
        """Any other event."""
        step = self._steps.get((local, event))
        if step is None:
            step = self._steps[local, event] = self._make(local, event)
        return step

    def choices(self, local: int) -> tuple[tuple[Event, ...], tuple[Recover, ...]]:
        """(what this replica may do by itself, the recoveries it may begin)"""
        found = self._choices.get(local)
        if found is None:
            site = self.sites[local]
            alone: list[Event] = [Fire(timer) for timer in sorted(site.timers, key=repr)]
            if site.slow_disk and site.saves:
                alone.append(Sync())
            found = self._choices[local] = tuple(alone), tuple(map(Recover, site.protocol.recoverable()))
        return found

    def immortal(self, local: int) -> int:
        """The same replica, which will not crash any more."""
        found = self._immortal.get(local)
        if found is None:
            twin = self.sites[local].copy()
            twin.mortal = False
            found = self._immortal[local] = self._number(twin)
        return found

    def _make(self, local: int, event: Event) -> Step:
        self.real_steps += 1
        before = self.sites[local]
        after = before.copy()
        try:
            said = after.take(event)
            check_step(before, after, event, said, self.scope)
        except AssertionError as error:
            return Step(NOWHERE, (), error if isinstance(error, Broken) else Broken("assertion", str(error)))
        after.drop_idle_timers()
        flights = tuple(dict.fromkeys(self._flight(Flight(before.me, target, what)) for target, what in said))
        return Step(self._number(after), flights)

    def _number(self, site: Site) -> int:
        digest = site.digest()
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.sites)
            self.sites.append(site)
        return number

    def _flight(self, flight: Flight) -> int:
        number = self._flight_numbers.get(flight)
        if number is None:
            number = self._flight_numbers[flight] = len(self.flights)
            self.flights.append(flight)
        return number
