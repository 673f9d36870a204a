"""An index and a term name one entry, and all before it (Figure 3.2: Log Matching)."""

from __future__ import annotations

from epaxos.command import Payload
from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, Message
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class LogMatching(Invariant):
    """Looks at the entries that leaders send: which payload, and behind an entry of which term."""

    name = "log_matching"
    reason = "A follower concludes from one equal index and term that its whole log is the leader's up to there."
    inside = True
    messages = (AppendEntries,)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._entries: dict[tuple[int, int], tuple[Payload, int, Life]] = {}

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if not isinstance(message, AppendEntries) or message.payload is None:
            return
        index, term = message.prev_index + 1, message.entry_term
        payload, prev_term, where = self._entries.setdefault((index, term), (message.payload, message.prev_term, life))
        if payload != message.payload or prev_term != message.prev_term:
            raise self.no(
                f"entry {index} of term {term} is {message.payload} behind one of term {message.prev_term} in {life},"
                f" but {payload} behind one of term {prev_term} in {where}"
            )
