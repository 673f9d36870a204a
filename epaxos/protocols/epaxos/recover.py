"""Recovery of the own lane: a coordinator that lost its ballot-0 role finishes what it left (protocol.md 3.1, 3.2).

A restarted replica never acts for ballot 0 again (S18), so it leads a ballot of its own. It is the coordinator of
what it recovers, hence always in its own quorum: only the rules C, R1 and R2 can apply, and no Validate is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epaxos.command import NOP, Payload
from epaxos.ids import Ballot, InstanceId, ReplicaId, Vector, next_ballot
from epaxos.messages import Nack, Recover, RecoverOK
from epaxos.protocols.epaxos import vote
from epaxos.protocols.epaxos.accept import RECOVER_MAX, evidence
from epaxos.protocols.epaxos.state import Instance, Own, Phase, State


@dataclass(slots=True)
class Recovery:
    """One ballot led by this replica. Volatile: a restart goes on with a larger ballot (S30)."""

    ballot: Ballot
    sent_us: int
    replies: dict[ReplicaId, RecoverOK] = field(default_factory=dict)
    proposed: bool = False


class SelfRecovery:
    """Leads ballots for own ids that this incarnation may not finish at ballot 0."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.started = 0
        self.nops = 0
        self._seen: dict[InstanceId, Ballot] = {}
        """Ballots met in a Nack, higher than the joined one."""
        self._patience: dict[InstanceId, int] = {}
        """Until when to wait for whoever leads a higher ballot."""

    def start(self, instances: list[Instance]) -> None:
        """Step 1: a fresh ballot for each, durable before it is sent (the gate sees to it), ranges where possible."""
        state = self.state
        for instance in instances:
            self.started += 1
            above = max(instance.bal, self._seen.pop(instance.id, 0))
            state.join(instance, next_ballot(above, state.me, state.n))
            instance.recovery = Recovery(ballot=instance.bal, sent_us=state.now.mono_us)
            mark = state.save(instance)
            state.due.append((mark, instance.id, Own.JOIN, instance.bal))
        for message in _ranges(instances):
            state.send(state.others, message)

    def own_join_durable(self, instance: Instance, ballot: Ballot) -> None:
        """The own RecoverOK counts once the joined ballot is on disk."""
        if instance.recovery is not None and instance.recovery.ballot == ballot:
            self._reply(instance, self.state.me, evidence(self.state, instance))

    def on_recover_ok(self, peer: ReplicaId, message: RecoverOK) -> None:
        """Step 2. Answers to an older ballot do not count (S29)."""
        instance = self.state.live.get(message.id)
        if instance is not None and instance.recovery is not None and instance.recovery.ballot == message.ballot:
            if message.payload is not None:
                self.state.know(instance, message.payload)
            self._reply(instance, peer, message)

    def _reply(self, instance: Instance, peer: ReplicaId, message: RecoverOK) -> None:
        recovery = instance.recovery
        recovery.replies[peer] = message
        ready = self.state.me in recovery.replies and len(recovery.replies) >= self.state.quorums.slow
        if ready and not recovery.proposed:
            recovery.proposed = True
            self.state.note("recover", instance)
            payload, dep = self._value(instance, recovery.replies)
            vote.propose(self.state, instance, recovery.ballot, payload, dep)

    def _value(self, instance: Instance, replies: dict[ReplicaId, RecoverOK]) -> tuple[Payload, Vector]:
        voted = [reply for reply in replies.values() if reply.phase == Phase.ACC]
        if voted:  # R1: repeat the newest vote; `abal`, never the ballot just joined (S1)
            newest = max(voted, key=lambda reply: reply.abal)
            payload = NOP if newest.nop else newest.payload
            assert payload is not None, f"{instance.id}: a vote without its payload"
            return payload, newest.dep
        # R2: the coordinator is in the quorum and had not committed, so no fast decision exists or ever will.
        self.nops += 1
        return NOP, self.state.zero

    def on_nack(self, message: Nack) -> None:
        """Somebody leads a higher ballot: stop here, wait for the decision, and outbid it only if none comes."""
        instance = self.state.live.get(message.id)
        if instance is None or instance.phase is Phase.COM or message.ballot <= instance.bal:
            return
        self._seen[instance.id] = max(message.ballot, self._seen.get(instance.id, 0))
        instance.recovery = None
        if instance.lead is not None:
            instance.lead.lead0 = False

    def retransmit(self, own: list[Instance]) -> None:
        """Send again what a quorum has not answered for a round trip; outbid whoever took over and did not finish."""
        state = self.state
        overdue = state.now.mono_us - state.round_trip_us()
        again, outbid = [], []
        for instance in own:
            recovery = instance.recovery
            if recovery is None:
                if self._patience_is_over(instance.id):
                    outbid.append(instance)
            elif recovery.sent_us <= overdue:
                recovery.sent_us = state.now.mono_us
                if recovery.proposed:
                    vote.ask_again(state, instance, state.others)
                else:
                    again.append(instance)
        for message in _ranges(again):
            state.send(state.others, message)
        self.start(outbid)

    def _patience_is_over(self, id_: InstanceId) -> bool:
        """A few jittered round trips after the ballot was lost, so that two recoverers do not duel in step."""
        state = self.state
        until = self._patience.setdefault(id_, state.now.mono_us + state.round_trip_us() * state.rng.randrange(2, 6))
        if state.now.mono_us < until:
            return False
        del self._patience[id_]
        return True

    def settled(self, id_: InstanceId) -> None:
        """A decision came: nothing is left to outbid."""
        self._seen.pop(id_, None)
        self._patience.pop(id_, None)


def _ranges(instances: list[Instance]) -> list[Recover]:
    """One message for each run of consecutive slots with the same ballot."""
    messages: list[Recover] = []
    for instance in sorted(instances, key=lambda i: i.id):
        id_, ballot = instance.id, instance.recovery.ballot
        last = messages[-1] if messages else None
        adjacent = last is not None and (last.lane, last.last + 1, last.ballot) == (id_.lane, id_.slot, ballot)
        if last is not None and adjacent and id_.slot - last.first < RECOVER_MAX:
            messages[-1] = Recover(epoch=id_.epoch, lane=id_.lane, first=last.first, last=id_.slot, ballot=ballot)
        else:
            messages.append(Recover(epoch=id_.epoch, lane=id_.lane, first=id_.slot, last=id_.slot, ballot=ballot))
    return messages
