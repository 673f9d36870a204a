"""The batches of this replica's own clients: on their way to the leader, and until they have executed here.

A batch is appended where the leader is, and its result is found where it came from: execution at its origin meets the
waiting clients, because a batch carries its name. Until then its origin sends it again, to whoever leads: when what it
was forwarded to leads no longer, when the link broke, and now and then. That is safe because a batch takes effect once
however often the log holds it (`once`), and it is needed because a leader may be lost with all that it was sent.

A batch that never left (no leader was known by its deadline) is certainly not applied and settled as such. One that
left is settled by being decided, even if that is after its deadline: by then its clients have been told that the
outcome is unknown, and later commands of their streams wait until it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epaxos.command import Batch
from epaxos.errors import Rejected
from epaxos.ids import BatchNumber, InstanceId, ReplicaId
from epaxos.messages import Forward
from epaxos.protocols.interface import NOTHING, ClearTimer, Credit, SetTimer, Settle
from epaxos.protocols.raft.lead import Lead
from epaxos.protocols.raft.state import Role, State


@dataclass(slots=True)
class Own:
    """A batch of this replica that is not decided."""

    batch: Batch
    deadline_us: int
    sent_us: int | None = None
    """When it was last appended or forwarded; None: it never left."""
    term: int = 0
    """In which term that was."""


class Submit:
    """All own batches."""

    def __init__(self, state: State, lead: Lead) -> None:
        self.state = state
        self.lead = lead
        self.open: dict[BatchNumber, Own] = {}
        """Not decided, those sent longest ago first."""
        self.commits = 0
        self.forwarded = 0
        """Forward messages sent, again or not."""
        self._running: set[int] = set()
        """Indices of own batches that are decided and have not executed."""
        self._renewed = 0
        """The last term in which what had been sent in earlier ones was sent again."""

    def start(self) -> None:
        """What earlier lives submitted is nobody's any more: the whole window is free."""
        self.state.effects.append(Credit(n=self.state.window))

    def propose(self, batch: Batch, deadline_us: int) -> None:
        """A batch of own clients."""
        own = self.open[batch.name] = Own(batch, deadline_us)
        self._offer(own)
        if own.sent_us is None:
            self.state.effects.append(SetTimer(timer=("deadline", batch.name), at_us=deadline_us))

    def _offer(self, own: Own) -> None:
        """Append it here, or send it to the leader; hold it while none is known."""
        state, name = self.state, own.batch.name
        if state.once.knows(name):
            # Not decided before, or it would not be open; so it came too late, and every copy of it will.
            self._settle(own, Rejected("busy", "it was lost on its way, and too many later batches were decided"))
            return
        if state.leader is None or (state.role is Role.LEADER and not self.lead.accepting):
            return
        if own.sent_us is None:
            if state.now.mono_us >= own.deadline_us:
                self.deadline(name)
                return
            state.effects.append(ClearTimer(timer=("deadline", name)))
        own.sent_us, own.term = state.now.mono_us, state.term
        del self.open[name]
        self.open[name] = own
        if state.role is Role.LEADER:
            self.lead.append(own.batch)
        else:
            self.forwarded += 1
            # No record of this replica stands behind a forwarded batch: the leader's log makes it durable.
            state.send((state.leader,), Forward(payload=own.batch), NOTHING)

    def on_forward(self, peer: ReplicaId, message: Forward) -> None:
        """A batch for the leader. Who leads no longer, or not for long, stays silent: its origin will hear who does."""
        batch = message.payload
        if batch.name.origin != peer:
            self.state.note("wrong_owner", f"Forward of {batch} from {peer}", batch=batch)
        elif self.state.role is Role.LEADER and self.lead.accepting:
            self.lead.append(batch)

    # -- again

    def leader_known(self) -> None:
        """There is a leader: what never left can go."""
        self._again(lambda own: own.sent_us is None)

    def settled(self) -> None:
        """An entry of this term is committed here, so all that its leader took over is decided: what was sent in
        earlier terms and is still open is not in its log, unless it was sent in this one."""
        if self.state.leader is not None and self._renewed != self.state.term:
            self._renewed = self.state.term
            self._again(lambda own: own.term < self.state.term)

    def link_up(self, peer: ReplicaId) -> None:
        """What was in flight to the leader may be lost: send it again now rather than after a timeout."""
        if peer == self.state.leader:
            self._again(lambda own: True)

    def tick(self) -> None:
        """Send again what has not been decided for an election timeout, and what has waited for a leader to accept."""
        overdue_us = self.state.now.mono_us - self.state.election_us()
        self._again(lambda own: own.sent_us is None or own.sent_us <= overdue_us)

    def _again(self, wanted: Callable[[Own], bool]) -> None:
        for own in [own for own in self.open.values() if wanted(own)]:
            self._offer(own)

    # -- what becomes of it

    def decided(self, index: int, batch: Batch) -> None:
        """A batch is decided, whoever's it is."""
        own = self.open.pop(batch.name, None)
        if own is None:
            return
        self._running.add(index)
        self.commits += 1
        self.state.note("commit", index=index, batch=batch)

    def executed(self, ids: tuple[InstanceId, ...]) -> None:
        """These ran here: places in the window are free."""
        own = self._running.intersection(id_.slot for id_ in ids)
        self._running -= own
        if own:
            self.state.effects.append(Credit(n=len(own)))

    def deadline(self, name: BatchNumber) -> None:
        """Too late for a batch that never left."""
        own = self.open.get(name)
        if own is not None and own.sent_us is None:
            self._settle(own, Rejected("no_quorum", "no leader was known before the deadline"))

    def _settle(self, own: Own, outcome: Rejected) -> None:
        del self.open[own.batch.name]
        self.state.effects.append(Settle(name=own.batch.name, outcome=outcome))
        self.state.effects.append(Credit(n=1))

    def digest(self) -> tuple[object, ...]:
        """For digests."""
        sent = [(name, own.deadline_us, own.sent_us, own.term) for name, own in self.open.items()]
        return (sent, sorted(self._running), self._renewed)
