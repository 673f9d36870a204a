"""Behind which messages and events a replica dies: each type is drawn when it is first seen, however rare it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Final

from epaxos.messages import BOOL, TABLE, Message
from epaxos.testing.forks import Forks, chance, log_between

STRIKES_MAX: Final = 2
"""Of one run behind messages or events of one type: somebody has to get something done."""


_FLAGS: Final = {
    kind: tuple(field.name for field in fields(kind) if field.metadata["kind"] is BOOL) for kind in TABLE.values()
}


def said(message: Message) -> str:
    """What a message says, for a fate: its type, and which of its flags are set.

    A vote that counts is another thing than the vote before it that asks whether there should be one, and comes later:
    of one name, the first deaths behind it would all be spent before the vote that counts.
    """
    kind = type(message)
    return " ".join((kind.__name__, *(flag for flag in _FLAGS.get(kind, ()) if getattr(message, flag))))


class Doom:
    """What is fatal in one run, to one kind of fault: `name`, that of its forks."""

    def __init__(self, forks: Forks, name: str) -> None:
        self.rng = forks[name]
        self._forks = forks
        self._name = name
        self._odds: dict[str, float] = {}
        """By type of message and of event: how likely a replica is to die right behind one."""
        self._struck: Counter[str] = Counter()

    def is_fatal(self, what: str) -> bool:
        """Is this message, or this event, one behind which its replica dies?"""
        odds = self._odds.get(what)
        if odds is None:
            rng = self._forks[f"{self._name}.{what}"]
            odds = self._odds[what] = log_between(rng, 50, 1_000) / 1_000 if chance(rng, 0.3) else 0.0
        return odds > 0.0 and chance(self.rng, odds)

    def strikes(self, what: str) -> bool:
        """Count one more death behind that; False when there were enough."""
        self._struck[what] += 1
        return self._struck[what] <= STRIKES_MAX
