"""An id has one payload and one set of initial dependencies, for ever (protocol.md 1.7: I2, I3, S38)."""

from __future__ import annotations

from epaxos.command import Batch
from epaxos.ids import InstanceId, ReplicaId, Vector
from epaxos.messages import Message, PreAccept, RecoverOK, Validate
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class Registration(Invariant):
    """Looks at what leaves the replicas; silent about protocols that have no such messages."""

    name = "registration"
    reason = "A slot that is used again after a restart, for another command, is two commands under one id."
    inside = True
    messages = (PreAccept, Validate, RecoverOK)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._registered: dict[InstanceId, tuple[Batch, Vector, Life]] = {}

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, PreAccept | Validate):
            self._check(life, message.id, message.payload, message.init_dep)
        elif isinstance(message, RecoverOK) and message.registered and not message.nop:
            assert message.payload is not None
            self._check(life, message.id, message.payload, message.init_dep)

    def _check(self, life: Life, id_: InstanceId, payload: Batch, init_dep: Vector) -> None:
        known, dep, where = self._registered.setdefault(id_, (payload, init_dep, life))
        if known != payload or dep != init_dep:
            raise self.no(f"{id_} is {payload} after {init_dep} in {life}, but {known} after {dep} in {where}")
