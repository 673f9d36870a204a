"""A batch takes effect at most once in a life, and a rejected command never (protocol.md 1.7: I13, I15)."""

from __future__ import annotations

from collections import defaultdict

from epaxos.ids import BatchNumber
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Applied, Life, Outcome, Record


class AtMostOnce(Invariant):
    """Also when a batch was proposed again under a new id, because its first one became a Nop."""

    name = "at_most_once"
    reason = "A client that sent INCR once may not find it counted twice, nor find it counted after `Rejected`."

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._seen: dict[Life, set[BatchNumber]] = defaultdict(set)

    def applied(self, life: Life, applied: Applied) -> None:
        seen = self._seen[life]
        if applied.batch.name in seen:
            raise self.no(f"{applied.batch} is applied a second time in {life}")
        seen.add(applied.batch.name)

    def finished(self, final: Final) -> None:
        calls = self.record.by_command()
        for life, log in self.record.logs.items():
            found: set[int] = set()
            for applied in log:
                for command, ref in zip(applied.commands, applied.refs, strict=True):
                    call = calls.get(command)
                    if call is None:
                        continue
                    if call.outcome is Outcome.REJECTED:
                        raise self.no(f"{call} was executed in {life} as {ref}")
                    if call.number in found:
                        raise self.no(f"{call} was executed twice in {life}, the second time as {ref}")
                    found.add(call.number)
