"""The whole replica as one pure object: events in, effects out. Read this second, after `protocols/interface.py`.

    shell / simulator --(Submit, Receive, Durable, …)--> Engine.turn --(Turn: write, sends, replies, wake)--> shell

What is shipped is what is simulated: admission and batching, the protocol, the durability gate, the executor, the
state machine and the replies are all behind `turn`, so the trio shell and the simulator drive the very same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from epaxos.admission import Admission, Outstanding, Piece
from epaxos.applier import Applier
from epaxos.command import Batch, is_opening
from epaxos.errors import MachineError, Rejected, Unknown
from epaxos.execution.interface import Executor
from epaxos.gate import Gate, Timers
from epaxos.idle import IdleSessions
from epaxos.ids import ReplicaId
from epaxos.log import LogEntry
from epaxos.machines.interface import BatchMachine
from epaxos.messages import Message
from epaxos.protocols.interface import (
    Blocked,
    ClearTimer,
    Credit,
    Decide,
    Durable,
    Event,
    Executed,
    Learn,
    LogView,
    Note,
    Now,
    PeerDown,
    PeerUp,
    Propose,
    Protocol,
    Read,
    Receive,
    Rtt,
    Save,
    Send,
    Serve,
    SetTimer,
    Settle,
    Start,
    Timer,
    Wake,
)
from epaxos.session import Ended, SessionId, end_run
from epaxos.storage.interface import WriteGroup
from epaxos.submission import DEFAULT_LIMITS, NOBODY, Cancel, Limits, Submit

Input = Submit | Cancel | Receive | Durable | PeerUp | PeerDown | Rtt


@dataclass(slots=True)
class Turn:
    """What the shell has to do after a turn, in any order: the gate has held back what must wait."""

    write: WriteGroup | None = None
    sends: list[tuple[tuple[ReplicaId, ...], Message]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)
    """(microseconds from submission to decision, commands), for own batches decided in this turn."""
    executions: list[tuple[int, int]] = field(default_factory=list)
    """(microseconds from submission to reply, commands), for own batches executed in this turn."""
    groups: list[int] = field(default_factory=list)
    """Of every group that executed in this turn, how many batches it has."""
    delivered: int = 0
    """The highest cursor of the log that is durable: what `Engine.entries` will give."""
    wake_us: int | None = None
    """Call `turn` again at this monotonic time at the latest, with no input if there is none."""


class Engine:
    """One replica. `turn` is the only way in while it runs."""

    def __init__(
        self,
        *,
        me: ReplicaId,
        n: int,
        incarnation: int,
        protocol: Protocol,
        executor: Executor,
        machine: BatchMachine,
        log: LogView,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.me = me
        self.n = n
        self.incarnation = incarnation
        self.limits = limits
        self.protocol = protocol
        self.executor = executor
        self.admission = Admission(
            me=me,
            incarnation=incarnation,
            limits=limits,
            entangled=executor.entangled,
            reads_apart=protocol.reads_apart,
        )
        self.applier = Applier(machine=machine, log=log, recall=protocol.recall)
        self._timers = Timers()
        self._gate = Gate(lazy_us=limits.lazy_us)
        self._now = Now(0, 0)
        self._out = Turn()
        self._decisions: list[Decide] = []
        self._learned = False
        """Was anything learned since the executor was last asked what may run?"""
        self._serving: list[Serve] = []
        self._idle = IdleSessions(me, limits.session_idle_ms * 1_000)
        self._session_numbers = count(1)
        self._started = False
        self._blocked_at_us: int | None = None
        self._perform: dict[type, Callable[[Any], None]] = {
            Save: self._gate.save,
            Send: self._gate.hold,
            Decide: self._gate.hold,
            Learn: self._learn,
            Serve: self._serving.append,
            Settle: self._settle,
            Credit: self._credit,
            SetTimer: lambda e: self._timers.set(e.timer, e.at_us),
            ClearTimer: lambda e: self._timers.clear(e.timer),
            Note: lambda e: self._out.notes.append(e),
        }

    # -- the way in

    def replay(self) -> Iterator[int]:
        """Before the first turn: apply again what earlier lives executed. Yields progress in commands."""
        for ids, commands in self.applier.replay():
            self.executor.restore(ids)
            yield commands

    def turn(self, now: Now, inputs: Sequence[Input]) -> Turn:
        """Take what happened, in order; fire due timers; close batches. The first call starts the protocol."""
        self._now = now
        out = self._out = Turn()
        if not self._started:
            self._started = True
            self._step(Start(incarnation=self.incarnation, executed=self.executor.executed()))
        for item in inputs:
            self._take(item)
        for timer in self._timers.due(now.mono_us):
            self._step(Wake(timer=timer))
        self._execute()
        self.admission.expire(now.mono_us)
        self._follow_sessions()
        if self._idle.wake_us is not None:
            self._end(self._idle.due(now.mono_us))
        self._propose()
        self._report_blocked()
        out.write = self._gate.flush(now.mono_us, self.applier)
        out.delivered = self.applier.delivered
        out.wake_us = self._wake_us()
        return out

    def _take(self, item: Input) -> None:
        if isinstance(item, Receive):
            self._step(item)
        elif isinstance(item, Submit):
            self._submit(item)
        elif isinstance(item, Durable):
            mark = self._gate.durable(item.mark, self.applier)
            if mark is not None:
                self._step(Durable(mark=mark))
        elif isinstance(item, Cancel):
            self.admission.cancel(item.waiter)
        else:
            self._step(item)

    def _step(self, event: Event) -> None:
        """One step of the protocol, and its effects, in order; then whatever the gate lets through."""
        perform = self._perform
        for effect in self.protocol.step(self._now, event):
            perform[type(effect)](effect)
        for released in self._gate.release():
            if isinstance(released, Send):
                self._out.sends.append((released.peers, released.message))
            else:
                self._decide(released)

    # -- sessions

    def new_session(self) -> SessionId:
        """A name for a session to open: no other replica gives it, nor this one again."""
        return SessionId(self.me, self.incarnation, next(self._session_numbers))

    def _submit(self, submit: Submit) -> None:
        """Queue a run. When there are too many sessions for one more, an idle one goes, and the caller tries again."""
        sessions = self.applier.sessions
        if len(sessions) >= self.limits.sessions and is_opening(submit.run):
            submit.waiter.fail(0, submit.count, Rejected("busy", f"{len(sessions)} sessions are open"))
            self._follow_sessions()
            self._end(self._idle.evictable(self._now.mono_us))
        else:
            self.admission.submit(self._now.mono_us, submit)

    def _follow_sessions(self) -> None:
        """Take note of which sessions were active since this was last done."""
        sessions = self.applier.sessions
        for session in sessions.touched():
            if session in sessions:
                self._idle.touch((session,), self._now.mono_us)
            else:
                self._idle.forget((session,))

    def _end(self, idle: list[SessionId]) -> None:
        """Propose to end these, unless they go on meanwhile."""
        if idle:
            now_us = self._now.mono_us
            run = end_run(Ended(session, self.applier.sessions.last(session)) for session in idle)
            self.admission.submit(now_us, Submit(NOBODY, 0, run, 1, now_us + self.limits.session_idle_ms * 1_000))
            self._idle.touch(idle, now_us)

    # -- effects

    def _decide(self, decision: Decide) -> None:
        self._decisions.append(decision)
        payload = decision.payload
        if isinstance(payload, Batch):
            outstanding = self.admission.decided(payload.name)
            if outstanding is not None:
                self._measure(self._out.commits, outstanding)

    def _learn(self, effect: Learn) -> None:
        self.executor.learn(effect.id, effect.batch)
        self._learned = True

    def _settle(self, effect: Settle) -> None:
        outstanding = self.admission.answered(effect.name)
        if outstanding is not None:
            for piece in outstanding.pieces:
                piece.fail(effect.outcome)

    def _credit(self, effect: Credit) -> None:
        self.admission.credit += effect.n

    def _measure(self, samples: list[tuple[int, int]], outstanding: Outstanding) -> None:
        samples.extend((self._now.mono_us - piece.submitted_us, piece.count) for piece in outstanding.pieces)

    # -- execution

    def _execute(self) -> None:
        """Order and apply what is decided. Executing tells the protocol, which may decide more; learning what an id
        touches may set others free."""
        while self._decisions or (self._learned and self.executor.waiting()):
            decisions, self._decisions = self._decisions, []
            self._learned = False
            for decision in decisions:
                self.applier.payloads.setdefault(decision.id, decision.payload)
            groups = self.executor.decide([(d.id, d.payload, d.order) for d in decisions])
            for group in groups:
                for payload in self.applier.take(group):
                    self._apply(payload)
            if groups:
                self._out.groups.extend(map(len, groups))
                self._step(Executed(ids=tuple(id_ for group in groups for id_ in group)))
        if self._serving:
            self._serve()

    def _apply(self, batch: Batch) -> None:
        outstanding = self.admission.answered(batch.name)
        if outstanding is None:
            self.applier.execute(batch)
        elif batch.engine_entries:
            self._answer_each(outstanding, batch)
        else:
            self._answer(outstanding, batch)

    def _answer(self, outstanding: Outstanding, batch: Batch) -> None:
        pieces = outstanding.pieces
        with _told_when_the_machine_raises(pieces):
            replies = self.applier.apply(batch, [piece.count for piece in pieces])
        self._measure(self._out.executions, outstanding)
        for piece, data in zip(pieces, replies, strict=True):
            waiter, piece.waiter = piece.waiter, None
            if waiter is not None:
                waiter.reply(piece.first, piece.count, data)

    def _answer_each(self, outstanding: Outstanding, batch: Batch) -> None:
        """Command by command: the session table may have refused some of them."""
        with _told_when_the_machine_raises(outstanding.pieces):
            outcomes = iter(self.applier.apply_judged(batch))
        self._measure(self._out.executions, outstanding)
        for piece in outstanding.pieces:
            waiter, piece.waiter = piece.waiter, None
            for at, outcome in enumerate(islice(outcomes, piece.count), piece.first):
                if waiter is None:
                    continue
                if isinstance(outcome, bytes):
                    waiter.reply(at, 1, outcome)
                else:
                    waiter.fail(at, 1, outcome)

    def _serve(self) -> None:
        """Answer the reads whose point in the order has been reached."""
        waiting: list[Serve] = []
        for serve in self._serving:
            outstanding = self.admission.outstanding.get(serve.name.number)
            if outstanding is None:
                continue
            if self.executor.reached(serve.order, outstanding.batch):
                self.admission.answered(serve.name)
                self._answer(outstanding, outstanding.batch)
            else:
                waiting.append(serve)
        self._serving[:] = waiting

    def _propose(self) -> None:
        batches = self.admission.close(self._now.mono_us)
        for outstanding in batches:
            deadlines_us = [piece.deadline_us for piece in outstanding.pieces]
            # A batch stands or falls as one: once somebody in it has heard that nobody knows, it is not proposed again,
            # and the others learn that it was not applied. Reads have no effect, so the last to give up decides.
            if outstanding.read:
                self._step(Read(batch=outstanding.batch, deadline_us=max(deadlines_us)))
            else:
                self._step(Propose(batch=outstanding.batch, deadline_us=min(deadlines_us)))
        if batches:
            self._execute()

    def _report_blocked(self) -> None:
        """Tell the protocol what execution waits for, when it has waited for `blocked_us`."""
        if not self.executor.waiting():
            self._blocked_at_us = None
        elif self._blocked_at_us is None:
            self._blocked_at_us = self._now.mono_us + self.limits.blocked_us
        elif self._blocked_at_us <= self._now.mono_us:
            self._blocked_at_us = self._now.mono_us + self.limits.blocked_us
            self._step(Blocked(ids=self.executor.missing()))

    def _wake_us(self) -> int | None:
        soonest_us = self._timers.next_us()
        for wake_us in (self._gate.wake_us, self.admission.wake_us(), self._blocked_at_us, self._idle.wake_us):
            if wake_us is not None and (soonest_us is None or wake_us < soonest_us):
                soonest_us = wake_us
        return soonest_us

    # -- views, and the end

    def entries(self, after: int, limit: int) -> list[LogEntry]:
        """Executed commands behind cursor `after`, oldest first, from the durable log."""
        return self.applier.entries(after, limit)

    def timers(self) -> list[tuple[int, Timer]]:
        """(when it is due, name) of every timer of the protocol, the next one first."""
        return self._timers.waiting()

    def status(self) -> dict[str, object]:
        """Counters and watermarks for people, JSON-able."""
        return {
            "protocol": dict(self.protocol.status()),
            "executed": self.applier.commands,
            "behind": self.executor.waiting(),
            "in_flight": self.admission.undecided,
            "pending": self.admission.commands,
            "sessions": len(self.applier.sessions),
        }

    def shut(self) -> None:
        """No more turns will come: everybody waiting learns what is known of his commands."""
        self.admission.shut()


@contextmanager
def _told_when_the_machine_raises(pieces: Sequence[Piece]) -> Iterator[None]:
    """These are no longer among the outstanding ones, so nobody would tell them when the replica stops of it."""
    try:
        yield
    except MachineError:
        for piece in pieces:
            piece.fail(Unknown("the state machine raised on a command of the same batch"))
        raise
