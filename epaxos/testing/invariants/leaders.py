"""A term has one leader at most, and it leads in the life in which it was elected (Figure 3.2: Election Safety)."""

from __future__ import annotations

from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, Message
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class OneLeader(Invariant):
    """Who sends AppendEntries leads their term. Silent about protocols that have no leader."""

    name = "one_leader"
    reason = "Two leaders of one term put different entries under the same index and term, and both are believed."
    inside = True
    messages = (AppendEntries,)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._leaders: dict[int, Life] = {}

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, AppendEntries):
            leader = self._leaders.setdefault(message.term, life)
            if leader != life:
                raise self.no(f"{life} leads term {message.term}, and so does {leader}")
