"""Commands on several lists are strictly serializable, by nothing but what clients saw."""

from __future__ import annotations

from epaxos.testing.cycles import Append, Read, Transaction, find_anomaly
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Call, Outcome, Part


class NoCycles(Invariant):
    """From the outside only: what was appended to which list, what reads saw, and when. The history of each key by
    itself says nothing of a command on several keys of which another one saw only a part."""

    name = "cycles"
    reason = "A command on several keys takes effect at one moment, for all of them, and between two others (4.3)."

    def finished(self, final: Final) -> None:
        lists = {part.key for call in self.record.calls for part in call.form.parts if "append" in part.verb}
        history = [
            self._transaction(call, lists)
            for call in self.record.calls
            if call.outcome is not Outcome.REJECTED and any(part.key in lists for part in call.form.parts)
        ]
        anomaly = find_anomaly(history)
        if anomaly is not None:
            raise self.no(f"{anomaly.kind}: {anomaly.text}")

    def _transaction(self, call: Call, lists: set[bytes]) -> Transaction:
        parts, done = call.form.parts, call.outcome is Outcome.DONE
        results: list[bytes | None] = [None] * len(parts)
        if done:
            assert call.reply is not None
            results = self.record.model.project(call.form, call.reply)
        steps: list[Append | Read] = []
        for part, result in zip(parts, results, strict=True):
            if part.key in lists:
                steps += _steps(part, result)
        return Transaction(f"call {call.number}", call.invoked, call.returned if done else None, tuple(steps))


def _steps(part: Part, reply: bytes | None) -> list[Append | Read]:
    steps: list[Append | Read] = []
    if "append" in part.verb:
        assert isinstance(part.argument, bytes)
        steps.append(Append(part.key, part.argument))
    if part.verb in ("get", "append_get"):
        steps.append(Read(part.key, None if reply is None else _elements(reply)))
    return steps


def _elements(reply: bytes) -> tuple[bytes, ...]:
    """The elements `<…>` of a list that was read; what is none stands for itself, and nobody appended it."""
    value = reply[reply.index(b"\r\n") + 2 : -2] if reply[:1] == b"$" else reply
    return tuple(value.replace(b"><", b">\x00<").split(b"\x00")) if value else ()
