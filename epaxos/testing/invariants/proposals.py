"""At most one value is ever proposed for an id at a ballot (protocol.md 1.7: I6; S18, S30)."""

from __future__ import annotations

from epaxos.command import Payload
from epaxos.ids import Ballot, InstanceId, ReplicaId, Vector
from epaxos.messages import Accept, AcceptOK, Message
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class OneProposal(Invariant):
    """Also across a restart of the proposer. Votes at a ballot are for its proposal."""

    name = "one_proposal"
    reason = "Two Accept messages of one ballot can both gather a quorum: a ballot is worth what its uniqueness is."
    inside = True
    messages = (Accept, AcceptOK)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._proposals: dict[tuple[InstanceId, Ballot], tuple[Payload, Vector, Life]] = {}
        self._votes: dict[tuple[InstanceId, Ballot], tuple[bool, Vector, Life]] = {}

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, Accept):
            key = message.id, message.ballot
            payload, dep, where = self._proposals.setdefault(key, (message.payload, message.dep, life))
            if payload != message.payload or dep != message.dep:
                raise self.no(
                    f"{message.id} at ballot {message.ballot}: {message.payload} {message.dep} from {life},"
                    f" {payload} {dep} from {where}"
                )
        elif isinstance(message, AcceptOK):
            key = message.id, message.ballot
            nop, dep, where = self._votes.setdefault(key, (message.nop, message.dep, life))
            if nop != message.nop or dep != message.dep:
                raise self.no(f"votes for {message.id} at ballot {message.ballot} differ between {life} and {where}")
