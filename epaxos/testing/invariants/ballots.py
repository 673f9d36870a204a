"""A replica votes once in a term, also across a crash, and a majority makes a leader (dissertation 3.4, 3.8)."""

from __future__ import annotations

from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, Message, RequestVote, Vote
from epaxos.quorums import quorums
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class OneVote(Invariant):
    """Whoever asks for votes has voted for itself. What PreVote asks and answers is no vote."""

    name = "one_vote"
    reason = "Two votes of one replica are two majorities in one term."
    inside = True
    messages = (AppendEntries, RequestVote, Vote)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._votes: dict[tuple[ReplicaId, int], tuple[ReplicaId, Life]] = {}
        self._replicas = 0
        self._leaders: set[tuple[Life, int]] = set()
        """Those who are known to have been elected."""

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, AppendEntries):
            self._elected(life, message.term)
        elif isinstance(message, RequestVote) and not message.pre:
            self._replicas = len(peers) + 1
            self._vote(life, message.term, life.replica)
        elif isinstance(message, Vote) and message.granted and not message.pre:
            for peer in peers:
                self._vote(life, message.term, peer)

    def _vote(self, life: Life, term: int, candidate: ReplicaId) -> None:
        known, where = self._votes.setdefault((life.replica, term), (candidate, life))
        if known != candidate:
            raise self.no(f"{life} votes for {candidate} in term {term}, but {where} voted for {known}")

    def _elected(self, life: Life, term: int) -> None:
        if (life, term) in self._leaders:
            return
        voters = [
            voter for (voter, of), (candidate, _) in self._votes.items() if of == term and candidate == life.replica
        ]
        if len(voters) < quorums(self._replicas).majority:
            raise self.no(f"{life} leads term {term} with the votes of {sorted(voters)}")
        self._leaders.add((life, term))
