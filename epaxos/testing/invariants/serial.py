"""The order of execution is strictly serializable, and every reply is the one that it explains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Call, Outcome


class StrictlySerializable(Invariant):
    """Multi-key commands included, and whatever their number: it walks the order that the replicas agree on.

    Walking it once, it carries along, for each key, the latest invocation among everything that precedes in
    conflict order. A command that returned before that invocation closes a cycle of conflict order and real time; and
    when there is any such cycle, there is one of this shape: take, in the cycle, the command invoked last among those
    that something returned before.
    """

    name = "strict_serializability"
    reason = "A command that was answered is in front of every command submitted afterwards, everywhere (4.3)."

    def finished(self, final: Final) -> None:
        calls = self.record.by_command()
        states: dict[bytes, Hashable] = {}
        after_writes: dict[bytes, int] = defaultdict(int)
        after_reads: dict[bytes, int] = defaultdict(int)
        log = self.record.newest()[0]
        for applied in log:
            for command, touched in zip(applied.commands, applied.touches, strict=True):
                call = calls.get(command)
                if call is None:
                    continue
                self._reply(call, states)
                keys = list(self.record.expand(touched))
                latest = call.invoked
                for key, writes in keys:
                    latest = max(latest, after_writes[key], after_reads[key] if writes else 0)
                if call.returned is not None and call.returned < latest:
                    raise self.no(f"{call} returned at {call.returned} but follows a call invoked at {latest}")
                for key, writes in keys:
                    (after_writes if writes else after_reads)[key] = latest

    def _reply(self, call: Call, states: dict[bytes, Hashable]) -> None:
        replies = []
        for part in call.form.parts:
            reply, states[part.key] = self.record.model.step(states.get(part.key), part)
            replies.append(reply)
        expected = self.record.model.compose(call.form, replies)
        if call.outcome is Outcome.DONE and call.reply != expected:
            raise self.no(f"{call} was answered {call.reply!r}; in the order of execution it is {expected!r}")
