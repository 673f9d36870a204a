"""A leader commits by an entry of its own term (dissertation 3.6.2; Figure 8 of the paper)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.command import Payload
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import AppendEntries, Message
from epaxos.protocols.interface import Order
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life, Record


class OwnTerm(Invariant):
    """Whoever decides an index before anybody else leads. The commit index it then tells is one of its own term."""

    name = "own_term"
    reason = "An entry of an older term may be on a majority and still be overwritten by who lacks it."
    inside = True
    messages = (AppendEntries,)

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._leads: dict[Life, int] = {}
        self._logs: dict[Life, dict[int, int]] = defaultdict(dict)
        """The terms of the entries in the log of a life, as far as it sent them when it led."""
        self._first: dict[int, tuple[Life, int]] = {}
        """index -> who decided it first, and the term that it led then"""

    def decided(self, life: Life, id_: InstanceId, payload: Payload, order: Order) -> None:
        if isinstance(order, int) and life in self._leads:
            self._first.setdefault(order, (life, self._leads[life]))

    def sent(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        if not isinstance(message, AppendEntries):
            return
        self._leads[life] = message.term
        log = self._logs[life]
        log[message.prev_index] = message.prev_term
        if message.payload is not None:
            log[message.prev_index + 1] = message.entry_term
        first, led = self._first.get(message.commit, (life, 0))
        term = log.get(message.commit, led)
        if first == life and led == message.term and term != led:
            raise self.no(f"{life} commits entry {message.commit}, which is of term {term}, in term {led}")
