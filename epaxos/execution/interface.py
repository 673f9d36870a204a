"""What the engine asks of an executor: turn decisions into one order of groups.

An executor is pure and never sleeps. It knows ids, what they touch, and where they stand; it does not know how they
were decided. Conflicting commands come out in an order that is a function of the decided set alone, never of the
order of arrival; ids of one group run in the order of `InstanceId`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol as Interface

from epaxos.command import Batch, Payload
from epaxos.ids import InstanceId
from epaxos.protocols.interface import Frontier, Order

Group = list[InstanceId]
"""The unit of execution, of durable apply and of snapshots: a whole strongly connected component."""


class Executor(Interface):
    """`GraphExecutor(n)` orders by dependencies, `TotalExecutor(n)` by index."""

    def learn(self, id_: InstanceId, batch: Batch) -> None:
        """Know what the undecided `id_` touches. Idempotent; ignored once `id_` is decided or executed.

        What this sets free comes out of the next `decide`, which may be empty.
        """

    def decide(self, decisions: Sequence[tuple[InstanceId, Payload, Order]]) -> list[Group]:
        """Take decisions; return the groups that may execute now, in order. A returned group counts as executed.

        A repeated decision is ignored, also for an executed id. Raises ValueError for an order of the wrong shape.
        """

    def restore(self, ids: Iterable[InstanceId]) -> None:
        """These ids ran in an earlier life. Only before the first `decide`."""

    def executed(self) -> Frontier:
        """What has been returned as executed, or restored."""

    def missing(self) -> tuple[InstanceId, ...]:
        """The ids that decided ones wait for, directly: unknown, or known and undecided. Sorted."""

    def waiting(self) -> int:
        """How many ids are decided and not executed."""

    def reached(self, order: Order, batch: Batch) -> bool:
        """Has everything at or under `order` that conflicts with `batch` executed (and nothing unknown is left)?"""

    def entangled(self, run: bytes) -> bytes:
        """One byte a command of `run`: 1 if one of its keys has a known, unexecuted, conflicting predecessor."""
