"""A term begins only when a majority would have another leader (dissertation 9.6: PreVote)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.ids import ReplicaId
from epaxos.messages import Message, RequestVote, Vote
from epaxos.quorums import quorums
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class Elections(Invariant):
    """A candidate, other than one whom the leader itself asked to take over, was encouraged by a majority with it."""

    name = "elections"
    reason = "A replica that was cut off must not cost the others their leader when it comes back with a higher term."
    inside = True
    messages = (RequestVote, Vote)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._willing: dict[tuple[ReplicaId, int], set[ReplicaId]] = defaultdict(set)

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, Vote) and message.granted and message.pre:
            for peer in peers:
                self._willing[peer, message.term].add(life.replica)
        elif isinstance(message, RequestVote) and not message.pre and not message.transfer:
            willing = self._willing[life.replica, message.term]
            if len(willing) + 1 < quorums(len(peers) + 1).majority:
                raise self.no(f"{life} begins term {message.term}, and only {sorted(willing)} would have it")
