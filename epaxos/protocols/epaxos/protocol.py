"""EPaxos behind `Protocol.step`: which rule answers which event. The rules are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from epaxos.command import Batch, Payload
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import (
    Accept,
    AcceptOK,
    Commit,
    CommitQuery,
    Message,
    Nack,
    PreAccept,
    PreAcceptOK,
    Recover,
    RecoverOK,
    Validate,
    ValidateOK,
    Waiting,
)
from epaxos.protocols.epaxos import accept, image, vote
from epaxos.protocols.epaxos.catchup import CATCH_UP
from epaxos.protocols.epaxos.lead import Lead
from epaxos.protocols.epaxos.query import Query
from epaxos.protocols.epaxos.recover import Recoverer, on_waiting
from epaxos.protocols.epaxos.state import EPOCH, Instance, Own, Phase, State
from epaxos.protocols.epaxos.trigger import TURN, Trigger
from epaxos.protocols.epaxos.validate import on_validate
from epaxos.protocols.interface import (
    NOTHING,
    Blocked,
    Decide,
    Durable,
    Effect,
    Event,
    Executed,
    LogView,
    Note,
    Now,
    Order,
    PeerDown,
    PeerUp,
    Propose,
    Protocol,
    ProtocolConfig,
    Random,
    Receive,
    Rtt,
    SetTimer,
    Start,
    Wake,
)

TICK = "tick"


class EPaxos(Protocol):
    """One replica's EPaxos* (mode M): dependencies only, separate `bal` and `abal`, `initDep` in every PreAccept."""

    def __init__(self, config: ProtocolConfig, rng: Random, log: LogView) -> None:
        self._config = config
        self.state = State(config, rng, log)
        self.lead = Lead(self.state)
        self.query = Query(self.state)
        self.recovery = Recoverer(self.state)
        self.trigger = Trigger(self.state, self.recovery)
        self._blocked: tuple[InstanceId, ...] = ()
        self._passed_over = 0
        """How many ticks of a replica at rest are left out before the next one."""
        self._tick_us = 0
        """When that is."""

    def step(self, now: Now, event: Event) -> list[Effect]:
        self.state.now = now
        _EVENTS[type(event)](self, event)
        if self.recovery.active:
            self.recovery.look_again()
        if self._passed_over and not self.state.rests():
            self._tick_later()
        return self._effects()

    def _effects(self) -> list[Effect]:
        effects, self.state.effects = self.state.effects, []
        return effects

    # -- life

    def _start(self, event: Start) -> None:
        """Decide again what the log holds, take up the own lane, and finish what the last incarnation left."""
        state = self.state
        unfinished = []
        own = []
        for instance in state.restore(event.executed):
            if instance.id.lane == state.me:
                own.append(instance.id)
            if instance.phase is Phase.COM:
                payload = instance.payload
                assert payload is not None
                state.effects.append(Decide(id=instance.id, payload=payload, order=instance.dep, after=NOTHING))
                continue
            if instance.batch is not None:
                state.know(instance, instance.batch)
            if instance.id.lane == state.me:
                unfinished.append(instance)
        if event.incarnation > 1:  # with an empty log too: others may have led much in the meantime
            self.query.returned()
        self._hold()
        self.lead.start(own)
        self.lead.open.update((instance.id, None) for instance in unfinished)
        self.recovery.start(unfinished)
        self._tick_later()

    def _tick_later(self) -> None:
        """In a round trip; a replica at rest only asks now and then what is beyond all that it knows."""
        state = self.state
        self._passed_over = self.query.sweeps_before_open_end() if state.rests() else 0
        self._tick_at(self._next_tick_us())

    def _next_tick_us(self) -> int:
        return self.state.now.mono_us + (1 + self._passed_over) * self.state.round_trip_us()

    def _tick_at(self, at_us: int) -> None:
        self._tick_us = at_us
        self.state.effects.append(SetTimer(timer=TICK, at_us=at_us))

    def _wake(self, event: Wake) -> None:
        if event.timer == TICK:
            self.lead.retransmit()
            self.recovery.retransmit()
            self.trigger.own(self.lead.open)
            self.trigger.orphans()
            self.trigger.gaps()
            self.query.sweep(self._passed_over)
            self._need(self._blocked)
            self._tick_later()
            self._hold()
            return
        if event.timer == CATCH_UP:
            self.query.catching_up.step()
            self._hold()
            return
        if event.timer == TURN:
            self.trigger.orphans()
            return
        assert isinstance(event.timer, tuple)
        what, id_, *ballot = event.timer
        if what == "fast":
            self.lead.hurry(id_)
        else:
            self.recovery.out_of_patience(id_, *ballot)

    def _hold(self) -> None:
        """Who catches up leads nothing new; he votes, and recovers, as ever."""
        self.lead.hold(self.query.is_behind())

    def _on_blocked(self, event: Blocked) -> None:
        self._blocked = event.ids
        self._need(self._blocked)

    def _need(self, blocked: tuple[InstanceId, ...]) -> None:
        """Ask for what execution and recoveries wait for, and recover what nobody can tell."""
        ids = dict.fromkeys((*blocked, *self.recovery.needs()))
        self.trigger.needed(self.query.need(id_ for id_ in ids if id_ not in self.state.decided))

    def _peer_up(self, event: PeerUp) -> None:
        self.state.link_up(event.peer)
        self._ask_again(event.peer)
        self.query.catch_up(event.peer)

    def _ask_again(self, peer: ReplicaId) -> None:
        """What was sent to `peer` and not answered may be lost, or the answer."""
        self.lead.ask_again(peer)
        self.recovery.ask_again(peer)

    def _peer_down(self, event: PeerDown) -> None:
        self.state.link_down(event.peer)
        self.query.link_down(event.peer)
        self.trigger.orphans()

    def _rtt(self, event: Rtt) -> None:
        """A round trip that has become shorter moves the tick forward."""
        self.state.measured(event.peer, event.rtt_us)
        sooner_us = self._next_tick_us()
        if sooner_us < self._tick_us:
            self._tick_at(sooner_us)

    def _durable(self, event: Durable) -> None:
        """The disk answered: own acks, votes and joins count now."""
        state = self.state
        state.durable = event.mark
        while state.due and state.due[0][0] <= event.mark:
            _, id_, own, ballot = state.due.popleft()
            instance = state.live.get(id_)
            if instance is None:
                continue
            if own is Own.ACK:
                self.lead.own_ack_durable(instance)
            elif own is Own.JOIN:
                self.recovery.own_join_durable(instance, ballot)
            elif own is Own.VALIDATION:
                self.recovery.own_validation_durable(instance, ballot)
            else:
                vote.own_vote_durable(state, instance, ballot)
            self._maybe_chosen(instance)
        state.evict()

    def _executed(self, event: Executed) -> None:
        self.state.ran(event.ids)
        own = [id_ for id_ in event.ids if id_.lane == self.state.me]
        if own:
            self.lead.executed(own)

    # -- messages

    def _receive(self, event: Receive) -> None:
        if self.state.gone:
            self.state.heard_of(event.peer)
        handler = _MESSAGES.get(type(event.message))
        if handler is None:
            return
        if not _is_of_this_epoch(event.message):
            detail = f"{type(event.message).__name__} from {event.peer}"
            self.state.effects.append(Note(event="other_epoch", detail=detail))
            return
        handler(self, event.peer, event.message)

    def _preaccept(self, peer: ReplicaId, message: PreAccept) -> None:
        accept.on_preaccept(self.state, peer, message)
        if peer in self.state.gone:  # its last words
            self.trigger.orphans()
        self._maybe_chosen(self.state.live.get(message.id))

    def _commit(self, peer: ReplicaId, message: Commit) -> None:
        self.query.catching_up.answered(peer, message.id)
        instance = accept.on_commit(self.state, message)
        if instance is not None:
            payload = instance.batch if message.payload is None else message.payload
            assert payload is not None
            self.query.catching_up.learned(instance.id, len(payload.data) if isinstance(payload, Batch) else 0)
            self.state.commit(instance, payload, message.dep)
            self._decided(instance)
            if self.lead.waits:
                self._hold()

    def _query(self, peer: ReplicaId, message: CommitQuery) -> None:
        """A replica that returns has links before there are any to it: whatever it asked over them was answered in
        vain. The question of a link that has just come up says that answers arrive from now on."""
        if message.fresh:
            self._ask_again(peer)
            self.query.reachable(peer, message.ranges)
            self._hold()
        self.query.on_query(peer, message)

    def _maybe_chosen(self, instance: Instance | None) -> None:
        """Votes or a payload arrived: is a value chosen now? Whoever led the ballot tells the others."""
        if instance is None:
            return
        value = vote.chosen(self.state, instance)
        if value is not None:
            proposer = instance.lead is not None or instance.recovery is not None
            self.state.commit(instance, *value)
            if proposer:
                self.lead.spread(instance)
            self._decided(instance)

    def _decided(self, instance: Instance) -> None:
        """`instance` has just become COM here, by votes or by a message."""
        self.recovery.settled(instance.id)
        self.trigger.settled(instance.id)
        if instance.id.lane == self.state.me:
            self.lead.settled(instance)

    # -- for the model, which chooses when

    def recoverable(self) -> list[InstanceId]:
        """The undecided ids that some timing would make this replica recover now: those that it has heard of, that
        stand under something it has decided, or that a recovery of its own waits for."""
        state = self.state
        ids = {InstanceId(EPOCH, slot, lane) for lane in range(state.n) for slot in range(1, state.highest[lane] + 1)}
        for instance in state.live.values():
            if instance.phase is Phase.COM:
                ids |= {InstanceId(EPOCH, s, lane) for lane, dep in enumerate(instance.dep) for s in range(1, dep + 1)}
        ids.update(self.recovery.needs())
        return sorted(id_ for id_ in ids if self.trigger.is_idle(id_) or self.recovery.waits(id_))

    def recover(self, now: Now, id_: InstanceId) -> list[Effect]:
        """Lead a fresh ballot of `id_` now, instead of when `trigger` thinks it time."""
        self.state.now = now
        self.recovery.start([self.state.touch(id_)])
        return self._effects()

    def resend(self, now: Now) -> list[Effect]:
        """Send again, now, whatever others have not answered."""
        self.state.now = now
        for peer in self.state.others:
            self.lead.ask_again(peer)
        self.recovery.resend()
        return self._effects()

    def copy(self, log: LogView) -> EPaxos:
        """The same protocol in the same state, reading `log`; neither sees what happens to the other from here."""
        state = self.state
        twin = EPaxos(self._config, state.rng, log)
        image.copy_state(state, twin.state)
        roles = (self.lead, self.query, self.recovery, self.trigger)
        image.copy_roles(roles, (twin.lead, twin.query, twin.recovery, twin.trigger))
        twin._blocked, twin._passed_over, twin._tick_us = self._blocked, self._passed_over, self._tick_us
        return twin

    # -- views

    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        instance = self.state.live.get(id_) or self.state.load(id_)
        if instance is None or instance.phase is not Phase.COM or instance.payload is None:
            return None
        return instance.payload, instance.dep

    def status(self) -> Mapping[str, object]:
        state = self.state
        return {
            "fast": self.lead.fast,
            "slow": self.lead.slow,
            "resubmitted": self.lead.resubmitted,
            "recoveries": self.recovery.started,
            "nops": self.recovery.nops,
            "open": len(self.lead.open),
            "catching_up": self.query.catching_up.status(),
            "known": list(state.highest),
            "decided": list(state.decided.low),
            "executed": list(state.executed.low),
        }

    def digest(self) -> bytes:
        return image.digest(self.state, self.lead, self.recovery)


def _is_of_this_epoch(message: Any) -> bool:
    """Are all slots that a message names?"""
    if isinstance(message, ValidateOK) and any(each.id.epoch != EPOCH for each in message.invalid):
        return False
    id_ = getattr(message, "id", message)
    epoch: int = id_.epoch
    return epoch == EPOCH


_EVENTS: Final[dict[type, Callable[[EPaxos, Any], None]]] = {
    Start: EPaxos._start,
    Propose: lambda self, e: self.lead.propose(e.batch, e.deadline_us),
    Receive: EPaxos._receive,
    Durable: EPaxos._durable,
    Executed: EPaxos._executed,
    Blocked: EPaxos._on_blocked,
    Wake: EPaxos._wake,
    PeerUp: EPaxos._peer_up,
    PeerDown: EPaxos._peer_down,
    Rtt: EPaxos._rtt,
}

_MESSAGES: Final[dict[type[Message], Callable[[EPaxos, ReplicaId, Any], None]]] = {
    PreAccept: EPaxos._preaccept,
    PreAcceptOK: lambda self, peer, m: self.lead.on_preaccept_ok(peer, m),
    Accept: lambda self, peer, m: self._maybe_chosen(vote.on_accept(self.state, peer, m)),
    AcceptOK: lambda self, peer, m: self._maybe_chosen(vote.on_accept_ok(self.state, peer, m)),
    Commit: EPaxos._commit,
    Recover: lambda self, peer, m: accept.on_recover(self.state, peer, m),
    RecoverOK: lambda self, peer, m: self.recovery.on_recover_ok(peer, m),
    Validate: lambda self, peer, m: on_validate(self.state, peer, m),
    ValidateOK: lambda self, peer, m: self.recovery.on_validate_ok(peer, m),
    Waiting: lambda self, peer, m: on_waiting(self.state, m),
    Nack: lambda self, peer, m: self.recovery.on_nack(m),
    CommitQuery: EPaxos._query,
}
