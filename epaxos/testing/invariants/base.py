"""What an invariant can look at."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from epaxos.command import Payload
from epaxos.execution.interface import Group
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message
from epaxos.protocols.interface import Frontier, Order
from epaxos.testing.record import Applied, Call, Life, Record, Violation


class Final(NamedTuple):
    """The world after everything was healed and had its time to settle."""

    states: dict[ReplicaId, tuple[bytes, ...]]
    """The session table and the machine of each, in their canonical forms."""
    frontiers: dict[ReplicaId, Frontier]
    waiting: dict[ReplicaId, int]
    """Decided and not executed."""
    settled: bool
    """Did it come to rest within the time it had?"""


class Invariant:
    """One thing that must hold. Subclasses override the hooks they need, and raise `Violation` through `no`."""

    name: ClassVar[str]
    reason: ClassVar[str]
    """Why it must hold, in a sentence."""
    inside: ClassVar[bool] = False
    """Is it a step on the way, which nobody notices outside of the replicas until something else goes wrong as well?"""
    at_rest: ClassVar[bool] = False
    """Does it say what has to have happened by the end? No event is too much then; others are missing."""
    messages: ClassVar[tuple[type[Message], ...]] = ()
    """The types of messages that `sent` is called for."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def no(self, what: str) -> Violation:
        """The exception to raise."""
        return Violation(self.name, what)

    def decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        """The executor of this life was told of a decision."""

    def executed(self, life: Life, group: Group) -> None:
        """The executor of this life has run these together, or has just been told that an earlier life had."""

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        """A message of one of the types in `messages` left this replica for each of `peers`."""

    def applied(self, life: Life, applied: Applied) -> None:
        """The machine of this life is about to run this batch, for the first time or once more after a restart."""

    def answered(self, call: Call) -> None:
        """A client got the result of its command."""

    def asked(self, call: Call) -> None:
        """A client without a session submits a command."""

    def replied(self, call: Call, executed: Frontier) -> None:
        """It is about to get a reply, of a replica that has executed so far."""

    def delivered(self, life: Life, cursor: int, payload: tuple[int, tuple[bytes, ...], bytes]) -> None:
        """The consumer of this replica's log got one more entry: cursor, (operation, keys, payload)."""

    def finished(self, final: Final) -> None:
        """The run is over."""
