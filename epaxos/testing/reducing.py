"""Make a list of events that breaks an invariant shorter, while it still breaks the same one (delta debugging).

First everything of one replica or of one kind, then parts of the list, large ones before small ones, down to single
events; then what is left is made plainer: no clock runs on that need not, nobody is in a hurry who need not be, and
settings are the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from epaxos.testing import events
from epaxos.testing.events import Event
from epaxos.testing.invariants import ALL
from epaxos.testing.record import Violation
from epaxos.testing.rehearsal import Rehearsal, Script
from epaxos.testing.vocabulary import USUAL

EVENTS_MAX: Final = 3_000_000
"""Nothing shorter is looked for once so many events were played."""


class Reduction:
    """The shortest script so far that breaks the invariant that `broken` did."""

    def __init__(self, script: Script, broken: Violation, progress: Callable[[str], None] = lambda _: None) -> None:
        self.script = script
        self.violation = broken
        self._kinds = [kind for kind in ALL if kind.name == broken.invariant]
        self._progress = progress
        self._played = 0

    def run(self) -> bool:
        """Look for it. False when the script, played by hand, does not break the invariant at all."""
        if not self._breaks(self.script.events):
            return False
        self._without_whole_kinds()
        size = len(self.script.events)
        while size:
            shorter = self._without_parts(size)
            size = size if shorter and size == 1 else size // 2
        self._plainer()
        self._usual()
        return True

    def _breaks(self, tried: Sequence[Event], **settings: Any) -> bool:
        """Does this? Then what really happened of it is the shortest so far."""
        if self._played > EVENTS_MAX:
            return False
        self._played += len(tried)
        script = replace(self.script, events=tried, settings={**self.script.settings, **settings})
        rehearsal = Rehearsal(script, self._kinds)
        violation = rehearsal.run()
        if violation is None or _kind(violation) != _kind(self.violation):
            return False
        self.violation = violation
        self.script = replace(script, events=rehearsal.happened)
        self._progress(f"still breaks {violation.invariant} with {len(rehearsal.happened)} events")
        return True

    def _without_whole_kinds(self) -> None:
        for belongs in _kinds_of_events(self.script.settings["n"]):
            self._breaks([event for event in self.script.events if not belongs(event)])

    def _without_parts(self, size: int) -> bool:
        """Leave out `size` events at a time, from the end; was it possible anywhere?"""
        before = len(self.script.events)
        end = before
        while end > 0:
            tried = list(self.script.events)
            del tried[max(0, end - size) : end]
            self._breaks(tried)
            # A crash and the restart behind it go together, wherever they stand.
            end = min(end - (size if size > 2 else 1), len(self.script.events))
        return len(self.script.events) < before

    def _plainer(self) -> None:
        for change in (_untimed, _undisturbed, _patient, _apart):
            for at in reversed(range(len(self.script.events))):
                if at < len(self.script.events):
                    tried = list(self.script.events)
                    plain = change(tried[at])
                    if plain != tried[at]:
                        tried[at] = plain
                        self._breaks(tried)

    def _usual(self) -> None:
        """Every setting as it is without saying so, as far as that will do."""
        for key, value in USUAL.items():
            if self.script.settings[key] != value:
                self._breaks(self.script.events, **{key: value})


def _kind(violation: Violation) -> str:
    """The name of the invariant; of an exception, its type too."""
    return violation.invariant if violation.invariant != "exception" else violation.what.partition("(")[0]


def _kinds_of_events(n: int) -> Iterator[Callable[[Event], bool]]:
    for kind in (events.Cancel, events.Measure, events.LinkDown, events.LinkUp, events.Crash, events.Submit):
        yield lambda event, kind=kind: isinstance(event, kind)  # type: ignore[misc]  # the default binds it now
    for site in range(n):
        yield lambda event, site=site: getattr(event, "site", getattr(event, "target", None)) == site  # type: ignore[misc]  # likewise


def _untimed(event: Event) -> Event:
    return event._replace(after_us=0) if isinstance(event, events.Turn) else event


def _undisturbed(event: Event) -> Event:
    return event._replace(timers=()) if isinstance(event, events.Turn) else event


def _patient(event: Event) -> Event:
    return event._replace(timeout_us=None) if isinstance(event, events.Submit) else event


def _apart(event: Event) -> Event:
    return event._replace(stream=None) if isinstance(event, events.Submit) else event
