"""Counters that clients increment with WATCH, GET, MULTI, SET and EXEC: no increment may be lost.

Each attempt is a client of its own, who asks whichever replica it likes best for each of its three commands, while
others do the same and somebody increments the plain way. An increment that was answered wrote one more than what was
read, so no two of them wrote the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final as FinalName

from epaxos.command import READ, Entry
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import INCREMENT, Kv, Op
from epaxos.machines.operations import pack_words
from epaxos.machines.transactions import WATCHER_BYTES, exec_command
from epaxos.testing.forks import chance, pick
from epaxos.testing.invariants import OF_ANY_MACHINE
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.kvmodel import bulk
from epaxos.testing.loop import Play
from epaxos.testing.record import Call, Form, OnePart, Outcome, Part

_DONE: FinalName = b"*1\r\n+OK\r\n"
_REFUSED: FinalName = b"*-1\r\n"


@dataclass(slots=True)
class _Attempt:
    """One increment."""

    key: bytes
    watcher: bytes
    value: int = -1
    """What was read; -1 before that."""


@dataclass(slots=True)
class _Attempts:
    """The `Source`: attempts go on as their replies come."""

    rng: Random
    ready: list[_Attempt] = field(default_factory=list)
    under_way: dict[bytes, _Attempt] = field(default_factory=dict)
    """By the bytes that tell its last command from all others."""
    number: int = 0

    keys = (b"hot", b"cold")
    run_max = 1

    def next(self) -> Form:
        """As `Source.next`."""
        if self.ready and chance(self.rng, 0.8):
            return self._go_on(self.ready.pop(0))
        if chance(self.rng, 0.2):
            return self._plain()
        key = self.keys[chance(self.rng, 0.2)]
        attempt = _Attempt(key, self._tag())
        self.under_way[attempt.watcher] = attempt
        command = (Entry(Op.WATCH, 0, key, pack_words([attempt.watcher])),)
        return Form(command, "watch", (Part(key, "watch", attempt.watcher),), pure=False)

    def survey(self) -> Form:
        """As `Source.survey`."""
        return self._get(self.keys[0], self._tag())

    def heard(self, call: Call) -> None:
        """A command has its outcome: the attempt goes on if it was its first, or its second."""
        attempt = self.under_way.pop(_tag_of(call.form), None)
        if attempt is None or call.outcome is not Outcome.DONE or call.form.verb == "exec":
            return
        if call.form.verb == "get":
            assert call.reply is not None
            attempt.value = int(call.reply.split(b"\r\n")[1] or b"0") if call.reply != bulk(None) else 0
        self.ready.append(attempt)

    def _go_on(self, attempt: _Attempt) -> Form:
        if attempt.value < 0:
            tag = self._tag()
            self.under_way[tag] = attempt
            return self._get(attempt.key, tag)
        after = b"%d" % (attempt.value + 1)
        queued = (Entry(Op.SET, 0, attempt.key, after),)
        command = exec_command(Op.EXEC, Op.WATCH, attempt.watcher, (attempt.key,), (queued,))
        return Form(command, "exec", (Part(attempt.key, "exec", attempt.watcher + after),), pure=False)

    def _plain(self) -> Form:
        key = pick(self.rng, self.keys)
        if chance(self.rng, 0.5):
            return self._get(key, self._tag())
        command = (Entry(Op.INCRBY, 0, key, INCREMENT.pack(1)), Entry(Op.INCRBY, READ, b"tag" + self._tag(), b""))
        return Form(command, "incrby", (Part(key, "incrby", 1),), pure=False)

    def _get(self, key: bytes, tag: bytes) -> Form:
        return Form((Entry(Op.GET, READ, key, tag),), "get", (Part(key, "get", tag),), pure=True)

    def _tag(self) -> bytes:
        self.number += 1
        return b"%0*d" % (WATCHER_BYTES, self.number)


def _tag_of(form: Form) -> bytes:
    argument = form.parts[0].argument
    return argument if isinstance(argument, bytes) else b""


class CounterModel(OnePart):
    """The `Model`. The state of a key is its value and who watches it."""

    def step(self, state: Any, part: Part) -> tuple[bytes, Hashable]:
        """As `Model.step`."""
        value, watchers = state or (None, ())
        if part.verb == "get":
            return bulk(value), state
        if part.verb == "incrby":
            after = int(value or b"0") + 1
            return b":%d\r\n" % after, (b"%d" % after, ())
        assert isinstance(part.argument, bytes)
        watcher, written = part.argument[:WATCHER_BYTES], part.argument[WATCHER_BYTES:]
        if part.verb == "watch":
            return b"+OK\r\n", (value, (*watchers, watcher))
        return (_DONE, (written, ())) if watcher in watchers else (_REFUSED, state)


def optimistic(make_machine: Callable[[], BatchMachine] = Kv) -> Play:
    """What to perform, once."""
    sources: list[_Attempts] = []

    def make_commands(rng: Random) -> _Attempts:
        sources.append(_Attempts(rng))
        return sources[0]

    class NoLostUpdate(Invariant):
        name = "no_lost_update"
        reason = "Each increment that was answered is one more than the one before it, so no two wrote the same."

        def answered(self, call: Call) -> None:
            sources[0].heard(call)

        def finished(self, final: Final) -> None:
            written: dict[tuple[bytes, bytes], Call] = {}
            for call in self.record.calls:
                after = _written(call)
                if after is None:
                    continue
                other = written.setdefault((call.form.parts[0].key, after), call)
                if other is not call:
                    raise self.no(f"{call} and {other} both wrote {after.decode()}")

    return Play(make_machine, make_commands, CounterModel(), (*OF_ANY_MACHINE, NoLostUpdate))


def _written(call: Call) -> bytes | None:
    """The value that an increment wrote, if it is known to have."""
    if call.outcome is Outcome.DONE and call.form.verb == "incrby":
        return (call.reply or b"")[1:-2]
    done = call.outcome is Outcome.DONE and call.form.verb == "exec" and call.reply == _DONE
    return _tag_of(call.form)[WATCHER_BYTES:] if done else None
