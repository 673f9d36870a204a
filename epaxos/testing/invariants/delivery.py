"""The log a consumer reads only grows, and is what the replica executed, in that order, across crashes."""

from __future__ import annotations

from collections import defaultdict
from itertools import takewhile

from epaxos.ids import ReplicaId
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Applied, Life, Record, is_barrier

Delivered = tuple[int, tuple[bytes, ...], bytes]


class Delivery(Invariant):
    """A consumer that kept its cursor resumes exactly: nothing twice, nothing left out, nothing in another order."""

    name = "delivery"
    reason = "Consumers act on what they read; an entry that is taken back by a power cut cannot be undone outside."
    at_rest = True

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._delivered: dict[ReplicaId, list[Delivered]] = defaultdict(list)
        self._cursor: dict[ReplicaId, int] = defaultdict(int)

    def delivered(self, life: Life, cursor: int, payload: Delivered) -> None:
        if cursor <= self._cursor[life.replica]:
            raise self.no(f"cursor {cursor} follows {self._cursor[life.replica]} in {life}")
        self._cursor[life.replica] = cursor
        self._delivered[life.replica].append(payload)

    def finished(self, final: Final) -> None:
        for replica, log in self.record.newest().items():
            executed = [entry for applied in log if not is_barrier(applied) for entry in _entries(applied)]
            delivered = self._delivered[replica]
            if delivered != executed:
                same = takewhile(lambda pair: pair[0] == pair[1], zip(delivered, executed, strict=False))
                raise self.no(
                    f"replica {replica} delivered {len(delivered)} entries and executed {len(executed)};"
                    f" only the first {len(list(same))} are the same"
                )


def _entries(applied: Applied) -> list[Delivered]:
    return [(command[0].op, tuple(entry.key for entry in command), command[0].payload) for command in applied.commands]
