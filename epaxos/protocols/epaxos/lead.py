"""The command leader: submit, the fast path, the slow path, and proposing again what was given up.

Rules: protocol.md 2.2 (mode M), 1.6 (what is durable before what), 4.4 (the window), 4.6 (Nop and resubmission).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Final

from epaxos.command import Batch
from epaxos.errors import Rejected
from epaxos.ids import BatchNumber, InstanceId, ReplicaId, Vector, join
from epaxos.messages import PreAccept, PreAcceptOK
from epaxos.protocols.epaxos import vote
from epaxos.protocols.epaxos.state import EPOCH, Instance, Own, Phase, State
from epaxos.protocols.interface import Credit, SetTimer, Settle

HOLD_US: Final = 10_000_000
"""For so long at most a replica that catches up leads nothing new."""


@dataclass(slots=True)
class Leading:
    """What only the submitting incarnation knows of its instance: protocol.md 1.3, `acks` and `lead0`."""

    deadline_us: int
    sent_us: int
    resent: int = 0
    """How often it was sent again."""
    lead0: bool = True
    """May still act for ballot 0. Ends when any ballot > 0 is joined, and with the incarnation."""
    timed: bool = False
    """T_fast runs, since a slow quorum has answered."""
    hurry: bool = False
    """T_fast has passed: a slow quorum is enough."""
    acks: dict[ReplicaId, Vector] = field(default_factory=dict)
    holders: set[ReplicaId] = field(default_factory=set)
    """Replicas known to hold the payload durably: their Commit needs none."""


class Lead:
    """Everything this replica does as the coordinator of its own lane."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.next_slot = 1
        self.fast = 0
        self.slow = 0
        self.resubmitted = 0
        self.open: dict[InstanceId, None] = {}
        """Own undecided ids, oldest first."""
        self._unexecuted: set[InstanceId] = set()
        """Own ids that were sent, in this life or an earlier one, and have not run here: at most the window (I19)."""
        self._granted = 0
        """How many more batches may come."""
        self._held_us: int | None = None
        """Since when this replica leads nothing new, if so."""
        self._again: deque[tuple[Batch, int]] = deque()
        self._deadlines: dict[BatchNumber, int] = {}

    # -- submit

    def start(self, unexecuted: Iterable[InstanceId]) -> None:
        """Take up the lane behind the last slot in the log; what an earlier life submitted counts in the window."""
        self.next_slot = self.state.highest[self.state.me] + 1
        self._unexecuted.update(unexecuted)
        self._grant()

    def _grant(self) -> None:
        """Take as many batches as the window has room for, and no more if it has become smaller."""
        room = 0 if self._is_held() else max(0, self.state.window - len(self._unexecuted))
        if room != self._granted:
            self.state.effects.append(Credit(n=room - self._granted))
            self._granted = room

    @property
    def waits(self) -> bool:
        """Does this replica take no batches until it has caught up?"""
        return self._held_us is not None

    def hold(self, behind: bool) -> None:
        """A replica that is `behind` leads nothing new, for a bounded time. What it leads must be answered, and what
        depends on that must be executed, by somebody who has thousands of old decisions to take before: all others
        would wait for its commands on a key that they write as well."""
        if not behind:
            self._held_us = None
        elif self._held_us is None:
            self._held_us = self.state.now.mono_us
        self._grant()

    def _is_held(self) -> bool:
        return self._held_us is not None and self.state.now.mono_us - self._held_us < HOLD_US

    def propose(self, batch: Batch, deadline_us: int) -> None:
        """Lead a batch, as was granted."""
        self._granted -= 1
        self._submit(batch, deadline_us)

    def _submit(self, batch: Batch, deadline_us: int) -> None:
        """A new instance for `batch`. Logged before it is sent (S38 is what happens otherwise)."""
        state = self.state
        id_ = self._fresh_id()
        self._unexecuted.add(id_)
        self._deadlines[batch.name] = deadline_us
        instance = state.touch(id_)
        instance.phase = Phase.PRE
        instance.init_dep = instance.dep = instance.ack_dep = state.index.lead(id_, batch)
        state.know(instance, batch)
        instance.lead = Leading(deadline_us=deadline_us, sent_us=state.now.mono_us)
        self.open[id_] = None
        mark = state.save(instance)
        state.due.append((mark, id_, Own.ACK, 0))
        state.send(state.others, self._preaccept(instance))

    def _fresh_id(self) -> InstanceId:
        """The next slot of the lane that nobody has heard of: one that others recovered as a gap is spent (S19)."""
        state = self.state
        while True:
            id_ = InstanceId(EPOCH, self.next_slot, state.me)
            self.next_slot += 1
            if id_ not in state.live and id_ not in state.executed:
                return id_

    @staticmethod
    def _preaccept(instance: Instance) -> PreAccept:
        assert instance.batch is not None and instance.init_dep is not None
        return PreAccept(id=instance.id, payload=instance.batch, init_dep=instance.init_dep)

    # -- the two paths

    def own_ack_durable(self, instance: Instance) -> None:
        """The own record is on disk: the own vote counts from now on, like any peer's."""
        leading = instance.lead
        if leading is not None and instance.ack_dep is not None:
            leading.acks[self.state.me] = instance.ack_dep
            leading.sent_us = self.state.now.mono_us  # only now did the gate let PreAccept go
            self._check(instance)

    def on_preaccept_ok(self, peer: ReplicaId, message: PreAcceptOK) -> None:
        """An answer to PreAccept; only the incarnation that submitted counts it, and only at ballot 0."""
        instance = self.state.live.get(message.id)
        if instance is None or instance.lead is None:
            return
        instance.lead.holders.add(peer)
        instance.lead.acks[peer] = message.dep
        self._check(instance)

    def hurry(self, id_: InstanceId) -> None:
        """T_fast fired."""
        instance = self.state.live.get(id_)
        if instance is not None and instance.lead is not None:
            instance.lead.hurry = True
            self._check(instance)

    def _check(self, instance: Instance) -> None:
        """Fast when n-e agree with the initial dependencies; slow as soon as waiting is no longer worth it.

        Once the nearest fast quorum has answered and does not agree, one more round trip to the nearest majority
        is what the formula for the slow path promises; waiting for farther replies would only be longer.
        """
        state, leading = self.state, instance.lead
        if instance.phase is not Phase.PRE or not leading.lead0 or instance.bal or state.me not in leading.acks:
            return
        quorums = state.quorums
        acks = len(leading.acks)
        agree = sum(dep == instance.init_dep for dep in leading.acks.values())
        if agree >= quorums.fast:
            self._decide_fast(instance)
        elif acks >= quorums.slow and (acks >= quorums.fast or acks - agree > quorums.e or leading.hurry):
            self._go_slow(instance)
        elif acks >= quorums.slow and not leading.timed:
            leading.timed = True
            state.effects.append(SetTimer(timer=("fast", instance.id), at_us=self._t_fast_us(leading)))

    def _t_fast_us(self, leading: Leading) -> int:
        """When the fast quorum's farthest member should have answered, with a margin."""
        nearest = sorted(self.state.rtt_us[p] or self.state.retry_us for p in self.state.others)
        farthest = nearest[self.state.quorums.fast - 2]
        return max(self.state.now.mono_us, leading.sent_us + farthest + farthest // 4) + 1_000

    def _decide_fast(self, instance: Instance) -> None:
        assert instance.batch is not None and instance.init_dep is not None
        self.state.commit(instance, instance.batch, instance.init_dep, fast=True)
        self.spread(instance)
        self.settled(instance, fast=True)

    def _go_slow(self, instance: Instance) -> None:
        """Accept at ballot 0 for the union; from here on the fast path is closed (I6)."""
        assert instance.batch is not None
        vote.propose(self.state, instance, 0, instance.batch, reduce(join, instance.lead.acks.values()))

    def spread(self, instance: Instance) -> None:
        """Tell everybody the decision, without the payload where it is known to be held."""
        holders = instance.lead.holders if instance.lead is not None else frozenset()
        self.state.tell(tuple(p for p in self.state.others if p in holders), instance, short=True)
        self.state.tell(tuple(p for p in self.state.others if p not in holders), instance)

    # -- what becomes of it

    def settled(self, instance: Instance, *, fast: bool = False) -> None:
        """An own id is decided. A Nop that was somebody's command is proposed again (4.6): on the committed Nop
        only, by the incarnation that took it, within its deadline, and never past it."""
        self.open.pop(instance.id, None)
        if instance.lead is None or instance.batch is None:
            return
        instance.lead.lead0 = False
        deadline_us = self._deadlines.pop(instance.batch.name)
        if instance.nop:
            self._again.append((instance.batch, deadline_us))
        elif fast:
            self.fast += 1
            self.state.note("fast_commit", instance)
        else:
            self.slow += 1
            self.state.note("slow_commit", instance)

    def executed(self, own: Iterable[InstanceId]) -> None:
        """Ids of this lane have run here: their places in the window are free, for resubmissions first. One that others
        spent as a gap had none."""
        self._unexecuted.difference_update(own)
        while self._again and len(self._unexecuted) < self.state.window:
            batch, deadline_us = self._again.popleft()
            if self.state.now.mono_us >= deadline_us:
                detail = "given up by a recovery, and its deadline has passed"
                self.state.effects.append(Settle(name=batch.name, outcome=Rejected("deadline", detail)))
                continue
            self.resubmitted += 1
            self._submit(batch, deadline_us)
        self._grant()

    def proposed_again(self) -> list[BatchNumber]:
        """The batches that wait for a place in the window, because their first id became a Nop."""
        return [batch.name for batch, _ in self._again]

    # -- links lose

    def retransmit(self) -> None:
        """Send again what was not answered for a round trip, then for two, …; at most the window's worth."""
        state = self.state
        for id_ in self.open:
            instance = state.live[id_]
            leading = instance.lead
            if leading is not None and leading.lead0 and state.is_overdue(leading.sent_us, leading.resent):
                leading.sent_us = state.now.mono_us
                leading.resent += 1
                self._send_again(instance, state.others)

    def ask_again(self, peer: ReplicaId) -> None:
        """What was in flight to `peer`, or from it, may be lost: send it again now rather than after a timeout."""
        for id_ in self.open:
            instance = self.state.live[id_]
            if instance.lead is not None and instance.lead.lead0:
                self._send_again(instance, (peer,))

    def _send_again(self, instance: Instance, peers: tuple[ReplicaId, ...]) -> None:
        if not self.state.may_send_again(instance):
            return
        if instance.phase is Phase.ACC:
            vote.ask_again(self.state, instance, peers)
        else:
            acks = instance.lead.acks
            peers = tuple(p for p in peers if p not in acks)
            self.state.send(peers, self._preaccept(instance), after=instance.mark)
