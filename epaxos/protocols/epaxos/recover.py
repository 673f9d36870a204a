"""Recovery of any instance by any replica (protocol.md 3.2; when it starts is in `trigger`).

Step 1 joins a fresh ballot at a slow quorum; step 2 reads the answers (rules C, R1, R2, R3); a candidate goes through
Validate (R4) and the verdicts of step 3 (V1 … V4, W1 … W5, in `verdict`); step 4 is an ordinary round of votes. A
restarted replica leads a ballot of its own for what it left unfinished: it never acts for ballot 0 again (S18).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from epaxos.command import NOP, Batch, Payload
from epaxos.ids import Ballot, InstanceId, ReplicaId, Vector, next_ballot
from epaxos.messages import Nack, Recover, RecoverOK, Validate, ValidateOK, Waiting
from epaxos.protocols.epaxos import verdict, vote
from epaxos.protocols.epaxos.accept import RECOVER_MAX, evidence
from epaxos.protocols.epaxos.state import Instance, Own, Phase, State
from epaxos.protocols.epaxos.validate import validate
from epaxos.protocols.interface import SetTimer

BACK_OFF_MAX: Final = 10
"""Doublings of the time between two attempts."""


class Stage(enum.Enum):
    """What a recovery is waiting for."""

    EVIDENCE = "RecoverOK from a slow quorum"
    VALIDATION = "ValidateOK from all of Q"
    COMPETITORS = "the ids that stand against the candidate"
    VOTES = "AcceptOK from a slow quorum"


@dataclass(slots=True)
class Recovery:
    """One ballot led by this replica. Volatile: a restart goes on with a larger ballot (S30)."""

    ballot: Ballot
    sent_us: int
    resent: int = 0
    """How often it was sent again in this stage."""
    stage: Stage = Stage.EVIDENCE
    since_us: int = 0
    """When the stage began."""
    replies: dict[ReplicaId, RecoverOK] = field(default_factory=dict)
    patient: bool = True
    """More than a slow quorum may still answer, which makes waiting for competitors rarer."""
    patience_us: int | None = None
    """Until when, since a slow quorum has answered."""
    quorum: frozenset[ReplicaId] = frozenset()
    """Q: whose answers step 2 was decided on; all of them must validate."""
    k: int = 0
    """|R|: members of Q whose answer at ballot 0 agreed with the candidate."""
    batch: Batch | None = None
    dep: Vector = ()
    """The candidate, D = initDep."""
    validated: dict[ReplicaId, ValidateOK] = field(default_factory=dict)
    against: dict[InstanceId, bool] = field(default_factory=dict)
    """I: id -> is it committed somewhere."""

    @property
    def needs_all_of_q(self) -> bool:
        """Can one silent member of Q hold this stage up for ever?"""
        return self.stage is Stage.VALIDATION or self.stage is Stage.COMPETITORS

    def enter(self, stage: Stage, now_us: int) -> None:
        """Begin the next stage."""
        self.stage = stage
        self.sent_us = self.since_us = now_us
        self.resent = 0


class Recoverer:
    """Leads ballots above 0."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.started = 0
        self.nops = 0
        self.active: dict[InstanceId, None] = {}
        """Ids with a recovery led by this replica, oldest first."""
        self.outbid: dict[InstanceId, Ballot] = {}
        """Ballots met in a Nack, higher than the joined one."""
        self.attempts: dict[InstanceId, int] = {}
        """How often this replica has started to recover an undecided id."""

    # -- step 1

    def start(self, instances: list[Instance]) -> None:
        """A fresh ballot for each, durable before it is sent (the gate sees to it), in ranges where possible."""
        state = self.state
        for instance in instances:
            self.started += 1
            self.attempts[instance.id] = self.attempts.get(instance.id, 0) + 1
            above = max(instance.bal, self.outbid.pop(instance.id, 0))
            state.join(instance, next_ballot(above, state.me, state.n))
            instance.recovery = Recovery(ballot=instance.bal, sent_us=state.now.mono_us, patient=not state.eager)
            self.active[instance.id] = None
            mark = state.save(instance)
            state.due.append((mark, instance.id, Own.JOIN, instance.bal))
        for message in _ranges(instances):
            state.send(state.others, message)

    def own_join_durable(self, instance: Instance, ballot: Ballot) -> None:
        """The own RecoverOK counts once the joined ballot is on disk."""
        if instance.recovery is not None and instance.recovery.ballot == ballot:
            self._reply(instance, self.state.me, evidence(self.state, instance))

    # -- step 2

    def on_recover_ok(self, peer: ReplicaId, message: RecoverOK) -> None:
        """Answers to an older ballot do not count (S29); late ones matter while waiting (W4)."""
        instance = self.state.live.get(message.id)
        if instance is not None and instance.recovery is not None and instance.recovery.ballot == message.ballot:
            if message.payload is not None:
                self.state.know(instance, message.payload)
            self._reply(instance, peer, message)

    def _reply(self, instance: Instance, peer: ReplicaId, message: RecoverOK) -> None:
        recovery: Recovery = instance.recovery
        recovery.replies[peer] = message
        if recovery.stage is Stage.EVIDENCE:
            self._read_evidence(instance)

    def _read_evidence(self, instance: Instance) -> None:
        state = self.state
        recovery: Recovery = instance.recovery
        if state.me not in recovery.replies or len(recovery.replies) < state.quorums.slow:
            return
        found = verdict.from_evidence(state, instance.id, recovery.replies)
        if found is None:
            silent = state.n - len(recovery.replies.keys() | state.suspected)
            if recovery.patient and silent:
                self._be_patient(instance)
            else:
                self._test_candidate(instance)
        else:
            self._propose(instance, *found)

    def _be_patient(self, instance: Instance) -> None:
        """For a quarter of the time that a slow quorum took."""
        recovery: Recovery = instance.recovery
        if recovery.patience_us is None:
            now_us = self.state.now.mono_us
            recovery.patience_us = now_us + max(now_us - recovery.sent_us, self.state.retry_us) // 4
            timer = ("evidence", instance.id, recovery.ballot)
            self.state.effects.append(SetTimer(timer=timer, at_us=recovery.patience_us))

    def out_of_patience(self, id_: InstanceId, ballot: Ballot) -> None:
        """Whoever has not answered by now is not waited for."""
        instance = self.state.live.get(id_)
        if instance is not None and instance.recovery is not None and instance.recovery.ballot == ballot:
            instance.recovery.patient = False
            if instance.recovery.stage is Stage.EVIDENCE:
                self._read_evidence(instance)

    def _test_candidate(self, instance: Instance) -> None:
        """R3: is there a value that may have been decided fast? If so it goes to all of Q (R4)."""
        state = self.state
        recovery: Recovery = instance.recovery
        candidate = verdict.candidate(state, recovery.replies)
        if candidate is None:
            self._propose(instance, NOP, state.zero)
            return
        recovery.batch, recovery.dep, recovery.k = candidate
        recovery.enter(Stage.VALIDATION, state.now.mono_us)
        recovery.quorum = frozenset(recovery.replies)
        answer = validate(state, instance, recovery.batch, recovery.dep, recovery.dep)
        if answer is not None:
            recovery.validated[state.me] = answer
            state.due.append((instance.mark, instance.id, Own.VALIDATION, recovery.ballot))
        self._ask_to_validate(instance, state.others)

    # -- step 3

    def _ask_to_validate(self, instance: Instance, peers: tuple[ReplicaId, ...]) -> None:
        recovery: Recovery = instance.recovery
        assert recovery.batch is not None
        peers = tuple(p for p in peers if p in recovery.quorum and p not in recovery.validated)
        message = Validate(
            id=instance.id,
            ballot=recovery.ballot,
            payload=recovery.batch,
            init_dep=recovery.dep,
            dep=recovery.dep,
        )
        self.state.send(peers, message)

    def own_validation_durable(self, instance: Instance, ballot: Ballot) -> None:
        """The own registration is on disk; if the others have answered meanwhile, go on."""
        if instance.recovery is not None and instance.recovery.ballot == ballot:
            self._weigh(instance)

    def on_validate_ok(self, peer: ReplicaId, message: ValidateOK) -> None:
        """From exactly the members of Q, each counted once."""
        instance = self.state.live.get(message.id)
        if instance is None or instance.recovery is None or instance.recovery.ballot != message.ballot:
            return
        if peer in instance.recovery.quorum:
            instance.recovery.validated[peer] = message
            self._weigh(instance)

    def _weigh(self, instance: Instance) -> None:
        state = self.state
        recovery: Recovery = instance.recovery
        complete = recovery.validated.keys() == recovery.quorum and instance.mark <= state.durable
        if recovery.stage is not Stage.VALIDATION or not complete:
            return
        for answer in recovery.validated.values():
            for id_, committed in answer.invalid:
                recovery.against[id_] = recovery.against.get(id_, False) or committed
        recovery.enter(Stage.COMPETITORS, state.now.mono_us)
        if not self._judge(instance):
            self._tell_waiting(instance)

    def _judge(self, instance: Instance) -> bool:
        """Do the competitors allow a verdict? Then it is proposed."""
        recovery: Recovery = instance.recovery
        found = verdict.from_competitors(self.state, instance.id, recovery)
        if found is not None:
            self._propose(instance, *found)
        return found is not None

    def _tell_waiting(self, instance: Instance) -> None:
        recovery: Recovery = instance.recovery
        message = Waiting(id=instance.id, k=recovery.k, dep=recovery.dep)
        on_waiting(self.state, message)
        self.state.send(self.state.others, message)

    def look_again(self) -> None:
        """Something was decided, or told: is a wait over?"""
        for id_ in list(self.active):
            instance = self.state.live.get(id_)
            if instance is None or instance.recovery is None:
                del self.active[id_]
            elif instance.recovery.stage is Stage.COMPETITORS:
                self._judge(instance)

    def waits(self, id_: InstanceId) -> bool:
        """Does this replica lead a recovery of `id_` that may have to start over (W5)?"""
        instance = self.state.live.get(id_)
        recovery: Recovery | None = None if instance is None else instance.recovery
        return recovery is not None and recovery.needs_all_of_q

    def needs(self) -> list[InstanceId]:
        """Ids that must be driven to a decision because a recovery waits for them."""
        waiting = (self.state.live[i].recovery for i in self.active if i in self.state.live)
        return [id_ for r in waiting if r is not None and r.stage is Stage.COMPETITORS for id_ in r.against]

    # -- step 4

    def _propose(self, instance: Instance, payload: Payload, dep: Vector) -> None:
        recovery: Recovery = instance.recovery
        recovery.enter(Stage.VOTES, self.state.now.mono_us)
        self.nops += payload is NOP
        self.state.note("recover", instance, "nop" if payload is NOP else "value")
        vote.propose(self.state, instance, recovery.ballot, payload, dep)

    # -- links lose, and others may be faster

    def on_nack(self, message: Nack) -> None:
        """Somebody leads a higher ballot: stop here and wait for the decision."""
        instance = self.state.live.get(message.id)
        if instance is None or instance.phase is Phase.COM or message.ballot <= instance.bal:
            return
        self.outbid[instance.id] = max(message.ballot, self.outbid.get(instance.id, 0))
        instance.recovery = None
        if instance.lead is not None:
            instance.lead.lead0 = False

    def retransmit(self) -> None:
        """Send again what was not answered for a round trip, then for two, …. A wait for all of Q, or for competitors,
        that lasts too long starts over with a fresh ballot: a member of Q may have crashed since (W5, S7)."""
        state, now_us = self.state, self.state.now.mono_us
        patience_us = state.round_trip_us()
        again: dict[tuple[ReplicaId, ...], list[Instance]] = {}
        stale: list[Instance] = []
        for id_ in list(self.active):
            instance = state.live.get(id_)
            recovery: Recovery | None = None if instance is None else instance.recovery
            if instance is None or recovery is None:
                del self.active[id_]
            elif recovery.needs_all_of_q and now_us - recovery.since_us >= patience_us + self.back_off_us(id_):
                stale.append(instance)
            elif recovery.stage is Stage.COMPETITORS:
                self._tell_waiting(instance)
            elif state.is_overdue(recovery.sent_us, recovery.resent) and state.may_send_again(instance):
                self._send_again(instance, recovery, again)
        self._send_ranges(again)
        self.start(stale)

    def ask_again(self, peer: ReplicaId) -> None:
        """What was sent to `peer` may be lost, and all of it is while a replica that returns has no links yet: ask it
        now rather than after a timeout, which has grown meanwhile."""
        again: dict[tuple[ReplicaId, ...], list[Instance]] = {}
        for id_ in self.active:
            instance = self.state.live.get(id_)
            recovery: Recovery | None = None if instance is None else instance.recovery
            if instance is None or recovery is None or recovery.stage is Stage.COMPETITORS:
                continue
            if self.state.may_send_again(instance):
                self._ask(instance, recovery, again, (peer,))
        self._send_ranges(again)

    def resend(self) -> None:
        """Send again whatever was not answered, however short ago it was sent."""
        again: dict[tuple[ReplicaId, ...], list[Instance]] = {}
        for id_ in list(self.active):
            instance = self.state.live.get(id_)
            recovery: Recovery | None = None if instance is None else instance.recovery
            if instance is not None and recovery is not None:
                if recovery.stage is Stage.COMPETITORS:
                    self._tell_waiting(instance)
                else:
                    self._send_again(instance, recovery, again)
        self._send_ranges(again)

    def _send_ranges(self, again: dict[tuple[ReplicaId, ...], list[Instance]]) -> None:
        for peers, instances in again.items():
            for message in _ranges(instances):
                self.state.send(peers, message, after=max(instance.mark for instance in instances))

    def _send_again(
        self, instance: Instance, recovery: Recovery, again: dict[tuple[ReplicaId, ...], list[Instance]]
    ) -> None:
        recovery.sent_us = self.state.now.mono_us
        recovery.resent += 1
        self._ask(instance, recovery, again, self.state.others)

    def _ask(
        self,
        instance: Instance,
        recovery: Recovery,
        again: dict[tuple[ReplicaId, ...], list[Instance]],
        peers: tuple[ReplicaId, ...],
    ) -> None:
        """Those of `peers` who have not answered; a Recover goes into `again`, where it may become part of a range."""
        if recovery.stage is Stage.VOTES:
            vote.ask_again(self.state, instance, peers)
        elif recovery.stage is Stage.VALIDATION:
            self._ask_to_validate(instance, peers)
        else:
            silent = tuple(p for p in peers if p not in recovery.replies)
            again.setdefault(silent, []).append(instance)

    def back_off_us(self, id_: InstanceId) -> int:
        """Doubles with every attempt of one's own, and with every round of ballots: round trips may be longer than
        they were ever measured, and then a fixed pace would have each recoverer outbid the others for ever."""
        instance = self.state.live.get(id_)
        rounds = 0 if instance is None else instance.bal // self.state.n
        return self.state.round_trip_us() << min(max(self.attempts.get(id_, 0), rounds), BACK_OFF_MAX)

    def settled(self, id_: InstanceId) -> None:
        """A decision came: nothing is left to lead or to outbid."""
        self.attempts.pop(id_, None)
        self.active.pop(id_, None)
        self.outbid.pop(id_, None)


def on_waiting(state: State, message: Waiting) -> None:
    """A fact, true for ever (I20): k replicas other than the coordinator pre-accepted id at ballot 0 with dep."""
    if message.id not in state.decided:
        known = state.facts.get(message.id)
        if known is None or known[0] < message.k:
            state.facts[message.id] = (message.k, message.dep)


def _ranges(instances: list[Instance]) -> list[Recover]:
    """One message for each run of consecutive slots with the same ballot."""
    messages: list[Recover] = []
    for instance in sorted(instances, key=lambda i: (i.id.lane, i.id.slot)):
        id_, ballot = instance.id, instance.recovery.ballot
        last = messages[-1] if messages else None
        adjacent = last is not None and (last.lane, last.last + 1, last.ballot) == (id_.lane, id_.slot, ballot)
        if last is not None and adjacent and id_.slot - last.first < RECOVER_MAX:
            messages[-1] = Recover(epoch=id_.epoch, lane=id_.lane, first=last.first, last=id_.slot, ballot=ballot)
        else:
            messages.append(Recover(epoch=id_.epoch, lane=id_.lane, first=id_.slot, last=id_.slot, ballot=ballot))
    return messages
