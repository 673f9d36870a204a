"""A promise is never taken back, also not by a crash (protocol.md 1.7: I1, I14)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.ids import Ballot, InstanceId, ReplicaId
from epaxos.messages import AcceptOK, Message, RecoverOK
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class Promises(Invariant):
    """Who joined a ballot casts no vote at a lower one afterwards, and answers no lower Recover.

    Answers leave in the order in which they were given, so what was sent first was promised first.
    """

    name = "promises"
    reason = "A recoverer concludes from a promise what can no longer happen; one that is forgotten makes it wrong."
    inside = True
    messages = (AcceptOK, RecoverOK)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._joined: dict[tuple[ReplicaId, InstanceId], Ballot] = defaultdict(int)

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, AcceptOK | RecoverOK):
            key = life.replica, message.id
            if message.ballot < self._joined[key]:
                raise self.no(f"{life} answers {message}, having joined ballot {self._joined[key]}")
            self._joined[key] = message.ballot
