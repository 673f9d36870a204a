"""What is committed in a term is in the log of every leader of a later one (Figure 3.2: Leader Completeness)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, Message
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class LeaderCompleteness(Invariant):
    """Looks at what leaders say of their logs: the terms of entries, and how far those are committed."""

    name = "leader_completeness"
    reason = "A leader never looks at others' logs before it overwrites them: what it lacks is lost."
    inside = True
    messages = (AppendEntries,)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._committed: dict[int, tuple[int, int]] = {}
        """index -> (term of the entry, the lowest term whose leader said that it is committed)"""
        self._led_with: dict[int, dict[int, int]] = defaultdict(dict)
        """index -> term of the entry -> the highest term whose leader has that entry there"""

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if not isinstance(message, AppendEntries):
            return
        for index, term in _entries(message):
            leaders = self._led_with[index]
            leaders[term] = max(message.term, leaders.get(term, 0))
            if index <= message.commit:
                known, by = self._committed.get(index, (term, message.term))
                self._committed[index] = known, min(by, message.term)
            if index in self._committed:
                self._check(index, *self._committed[index])

    def _check(self, index: int, term: int, by: int) -> None:
        for other, leader in self._led_with[index].items():
            if other != term and leader >= by:
                raise self.no(
                    f"entry {index} of term {term} is committed in term {by}, and the leader of term {leader} has one"
                    f" of term {other} there"
                )


def _entries(message: AppendEntries) -> Iterator[tuple[int, int]]:
    if message.prev_index:
        yield message.prev_index, message.prev_term
    if message.payload is not None:
        yield message.prev_index + 1, message.entry_term
