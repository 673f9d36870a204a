"""The history that clients saw is linearizable, key by key, whatever the replicas say they did."""

from __future__ import annotations

from collections.abc import Iterator

from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.keyed import Observed, judge
from epaxos.testing.record import Outcome, Record


class HistoryLinearizable(Invariant):
    """From the outside only: invocations, replies and their times. Unknown outcomes stay open."""

    name = "linearizability"
    reason = "It is what clients are promised, and it needs no trust in what the simulator recorded inside."

    def finished(self, final: Final) -> None:
        judgement = judge(observed(self.record))
        for key, history in judgement.broken.items():
            raise self.no(f"the history of {key!r} is not linearizable up to its {len(history)}th operation")
        self.record.undecided += judgement.undecided


def observed(record: Record) -> Iterator[Observed]:
    """The calls of a run as their clients saw them, without what was certainly not applied. The order that one of the
    replicas executed is tried first: it spares a search, and where it does not explain what was seen, others are."""
    executed = (command for applied in record.newest()[0] for command in applied.commands)
    places = {command: place for place, command in enumerate(executed)}
    for call in record.calls:
        if call.outcome is Outcome.REJECTED:
            continue
        parts, done = call.form.parts, call.outcome is Outcome.DONE
        results: list[bytes | None] = [None] * len(parts)
        if done:
            assert call.reply is not None
            results = record.model.project(call.form, call.reply)
        returned = call.returned if done else None
        yield Observed(
            f"call {call.number}", call.invoked, returned, parts, results, call.form.pure, places.get(call.form.command)
        )
