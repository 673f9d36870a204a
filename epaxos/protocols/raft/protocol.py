"""Raft behind `Protocol.step`: which rule answers which event. The rules are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from epaxos.command import Payload
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import (
    AppendEntries,
    AppendOK,
    Forward,
    Message,
    ReadIndex,
    ReadIndexOK,
    RequestVote,
    TimeoutNow,
    Vote,
)
from epaxos.protocols.interface import (
    Blocked,
    Durable,
    Effect,
    Event,
    Executed,
    LogView,
    Now,
    Order,
    PeerDown,
    PeerUp,
    Propose,
    Protocol,
    ProtocolConfig,
    Random,
    Read,
    Receive,
    Rtt,
    SetTimer,
    Start,
    Wake,
)
from epaxos.protocols.raft import follow
from epaxos.protocols.raft.elect import ELECTION, Elect
from epaxos.protocols.raft.lead import SPREAD, Lead
from epaxos.protocols.raft.reads import Reads
from epaxos.protocols.raft.state import EPOCH, Role, State
from epaxos.protocols.raft.submit import Submit
from epaxos.protocols.raft.transfer import Transfer

TICK = "tick"


class Raft(Protocol):
    """One replica's Raft, after Ongaro's dissertation: PreVote, CheckQuorum, transfer, pipelining, ReadIndex."""

    reads_apart = True

    def __init__(self, config: ProtocolConfig, rng: Random, log: LogView) -> None:
        self.state = State(config, rng, log)
        self.elect = Elect(self.state)
        self.lead = Lead(self.state)
        self.transfer = Transfer(self.state, self.lead)
        self.submit = Submit(self.state, self.lead)
        self.reads = Reads(self.state, self.lead)
        self._started = False
        self._ticking = False
        self._led: tuple[int, ReplicaId | None] = (0, None)
        """The term and the leader that own batches and reads know of."""
        self._events: dict[type, Callable[[Any], None]] = {
            Start: self._start,
            Propose: lambda e: self.submit.propose(e.batch, e.deadline_us),
            Read: lambda e: self.reads.read(e.batch.name, e.deadline_us),
            Receive: self._receive,
            Durable: self._durable,
            Executed: self._executed,
            Blocked: lambda e: None,
            Wake: self._wake,
            PeerUp: self._peer_up,
            PeerDown: lambda e: self.elect.peer_down(e.peer),
            Rtt: self._rtt,
        }
        self._messages: dict[type[Message], Callable[[ReplicaId, Any], None]] = {
            RequestVote: self.elect.on_request_vote,
            Vote: lambda peer, m: self._maybe_elected(self.elect.on_vote(peer, m)),
            TimeoutNow: self.elect.on_timeout_now,
            AppendEntries: self._append_entries,
            AppendOK: self._append_ok,
            Forward: self.submit.on_forward,
            ReadIndex: self.reads.on_read_index,
            ReadIndexOK: lambda peer, m: self.reads.on_read_index_ok(m),
        }

    def step(self, now: Now, event: Event) -> list[Effect]:
        state = self.state
        state.now = now
        self._events[type(event)](event)
        self._follow_up()
        if not self._ticking and self._has_to_tick():
            self._tick_later()
        effects, state.effects = state.effects, []
        return effects

    def _follow_up(self) -> None:
        """What own batches and reads have to know of this step: decisions, a leader, a term that is settled."""
        state = self.state
        fresh, state.fresh = state.fresh, []
        for index, batch, effective in fresh:
            self.lead.committed(batch.name)
            if effective:
                self.submit.decided(index, batch)
        if self._led != (state.term, state.leader):
            self._led = (state.term, state.leader)
            if state.leader is not None:
                self.submit.leader_known()
                self.reads.leader_known()
        if state.settled:
            self.submit.settled()

    # -- life

    def _start(self, event: Start) -> None:
        """What was executed is committed. The rest of the log waits for a leader to say what becomes of it."""
        state = self.state
        state.executed = event.executed.watermark[0]
        if state.executed:
            state.decided(state.executed)
        state.commit = state.executed
        self._started = True
        self.submit.start()
        self.elect.start()

    def _has_to_tick(self) -> bool:
        """Is there anybody to be heard by, or something to be sent again?"""
        return self.state.role is Role.LEADER or bool(self.submit.open or self.reads.open)

    def _tick_later(self) -> None:
        self._ticking = True
        state = self.state
        state.effects.append(SetTimer(timer=TICK, at_us=state.now.mono_us + state.heartbeat_us()))

    def _wake(self, event: Wake) -> None:
        if event.timer == TICK:
            self._tick()
        elif event.timer == ELECTION:
            self.elect.due()
        elif event.timer == SPREAD:
            if self.state.role is Role.LEADER:
                self.lead.spread()
        else:
            assert isinstance(event.timer, tuple)
            kind, name = event.timer
            (self.reads if kind == "read" else self.submit).deadline(name)

    def _tick(self) -> None:
        """Once a heartbeat interval, for as long as there is a reason."""
        self._ticking = False
        if self.state.role is Role.LEADER:
            if self.lead.is_cut_off():
                self.elect.follow(self.state.term)
            else:
                self.transfer.tick()
                self.lead.beat()
        self.submit.tick()
        self.reads.tick()

    def _peer_up(self, event: PeerUp) -> None:
        if self.state.role is Role.LEADER:
            self.lead.link_up(event.peer)
        else:
            self.elect.peer_up()
            self.submit.link_up(event.peer)
            self.reads.link_up(event.peer)

    def _rtt(self, event: Rtt) -> None:
        self.state.rtt_us[event.peer] = event.rtt_us
        self.state.measured.add(event.peer)

    def _durable(self, event: Durable) -> None:
        """The disk answered: the own vote, and the own copies of entries, count now."""
        state = self.state
        state.durable = event.mark
        state.log.synced(event.mark)
        self._maybe_elected(self.elect.own_vote_durable())
        if state.role is Role.LEADER:
            self.lead.advance()
            self.reads.proceed()
        state.log.evict(state.executed)

    def _executed(self, event: Executed) -> None:
        state = self.state
        state.executed = event.ids[-1].slot
        state.log.evict(state.executed)
        self.submit.executed(event.ids)

    # -- messages

    def _receive(self, event: Receive) -> None:
        handler = self._messages.get(type(event.message))
        if handler is not None:
            handler(event.peer, event.message)

    def _maybe_elected(self, elected: bool) -> None:
        if elected:
            self.lead.begin()
            self.transfer.begin()

    def _append_entries(self, peer: ReplicaId, message: AppendEntries) -> None:
        if self.elect.on_leader(peer, message):
            follow.on_append(self.state, peer, message)
        else:
            follow.refuse_term(self.state, peer, message)

    def _append_ok(self, peer: ReplicaId, message: AppendOK) -> None:
        state = self.state
        if message.term > state.term:
            self.elect.follow(message.term)
        elif message.term == state.term and state.role is Role.LEADER:
            self.lead.on_append_ok(peer, message)
            self.transfer.check(peer)
            self.reads.proceed()

    # -- views

    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        """Before `Start`, whoever asks for an id knows it to be executed: that is what tells how far the log counts."""
        index = id_.slot
        if id_.epoch != EPOCH or id_.lane or index > (self.state.commit if self._started else self.state.log.last):
            return None
        return self.state.decided(index), index

    def status(self) -> Mapping[str, object]:
        state = self.state
        return {
            "role": state.role.value,
            "term": state.term,
            "leader": state.leader,
            "commit": state.commit,
            "known": state.log.last,
            "durable": state.log.durable,
            "executed": state.executed,
            "open": len(self.submit.open),
            "commits": self.submit.commits,
            "forwarded": self.submit.forwarded,
            "reads": self.reads.served,
            "elections": self.elect.held,
            "repeated": len(state.once.refused),
        }

    def digest(self) -> bytes:
        roles = (self.elect.digest(), self.lead.digest(), self.transfer.digest())
        return self.state.digest_of(roles, self.submit.digest(), self.reads.digest())
