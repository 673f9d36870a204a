"""The history that clients saw is linearizable, key by key, whatever the replicas say they did."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.kvmodel import hints, unseen
from epaxos.testing.linearizability import Operation, Verdict, check
from epaxos.testing.record import Call, Outcome, Part


class HistoryLinearizable(Invariant):
    """From the outside only: invocations, replies and their times. Unknown outcomes stay open.

    Linearizability is local (Herlihy and Wing), so each key is judged alone; of a command on several keys, this sees
    its part of each.
    """

    name = "linearizability"
    reason = "It is what clients are promised, and it needs no trust in what the simulator recorded inside."

    def finished(self, final: Final) -> None:
        histories: dict[bytes, list[Operation]] = defaultdict(list)
        for call in self.record.calls:
            if call.outcome is not Outcome.REJECTED:
                for operation in self._operations(call):
                    part = operation.action
                    assert isinstance(part, Part)
                    histories[part.key].append(operation)
        for key, history in histories.items():
            unnoticed = unseen(history)
            useful = [op for position, op in enumerate(history) if position not in unnoticed]
            verdict = check(useful, None, self._step, hints(useful))
            if verdict is Verdict.BROKEN:
                raise self.no(f"the history of {key!r}, {len(history)} operations, is not linearizable")
            if verdict is Verdict.UNDECIDED:
                self.record.undecided.append(key)

    def _operations(self, call: Call) -> list[Operation]:
        parts = call.form.parts
        done = call.outcome is Outcome.DONE
        results: list[bytes | None] = [None] * len(parts)
        if done:
            assert call.reply is not None
            results = self.record.model.project(call.form, call.reply)
        returned = call.returned if done else None
        return [
            Operation(call.invoked, returned, part, result, call.form.pure)
            for part, result in zip(parts, results, strict=True)
        ]

    def _step(self, state: Any, operation: Operation) -> tuple[bool, Any]:
        assert isinstance(operation.action, Part)
        reply, after = self.record.model.step(state, operation.action)
        return operation.result is None or operation.result == reply, after
