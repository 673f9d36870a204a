"""The order of a protocol with one log: by index, 1, 2, 3, ….

Everything is ordered against everything already, so nobody's keys matter here and there is no compiled twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epaxos.command import Batch, Payload
from epaxos.execution.interface import Group
from epaxos.execution.lanes import Lanes
from epaxos.ids import InstanceId
from epaxos.packing import count_commands
from epaxos.protocols.interface import Frontier, Order


class TotalExecutor:
    """The executor of one epoch with `n` lanes, for decisions whose order is a log index; see `interface.Executor`.

    Each group is one id. The indices of what ran in an earlier life are the first: each restored id stands for one.
    """

    def __init__(self, n: int) -> None:
        """`n` lanes, at least one: members that may give ids to what the log orders."""
        self._executed = Lanes(n)
        self._index = 0
        """How many have executed, which is the highest index of them."""
        self._held: dict[int, InstanceId] = {}
        """Decided above a gap, by index."""
        self._indices: dict[InstanceId, int] = {}
        """The same, the other way round."""
        self._begun = False

    def learn(self, id_: InstanceId, batch: Batch) -> None:
        """Nothing to know: what an undecided id touches does not matter in a log. ValueError as for a decision."""
        self._executed.place(id_)

    def decide(self, decisions: Sequence[tuple[InstanceId, Payload, Order]]) -> list[Group]:
        """See `Executor.decide`.

        Raises ValueError, before anything of the call is taken, for an index that is no positive integer, and for
        one that belongs to another id.
        """
        ids: dict[int, InstanceId] = {}
        indices: dict[InstanceId, int] = {}
        for id_, _, order in decisions:
            lane, slot = self._executed.place(id_)
            if not isinstance(order, int) or order < 1:
                raise ValueError(f"{order} is no log index")
            if self._executed.has(lane, slot):
                continue
            holder = self._held.get(order) or ids.setdefault(order, id_)
            index = self._indices.get(id_) or indices.setdefault(id_, order)
            if order <= self._index or holder != id_ or index != order:
                raise ValueError(f"{id_} is decided at index {order}, and one of the two otherwise")
        self._begun = True
        self._held |= ids
        self._indices |= indices
        groups: list[Group] = []
        while (next_ := self._held.pop(self._index + 1, None)) is not None:
            del self._indices[next_]
            self._executed.add(next_.lane, next_.slot)
            self._index += 1
            groups.append([next_])
        return groups

    def restore(self, ids: Iterable[InstanceId]) -> None:
        """See `Executor.restore`. ValueError after the first `decide`."""
        if self._begun:
            raise ValueError("restored after the first decision")
        for id_ in ids:
            lane, slot = self._executed.place(id_)
            if not self._executed.has(lane, slot):
                self._executed.add(lane, slot)
                self._index += 1

    def executed(self) -> Frontier:
        """See `Executor.executed`."""
        return self._executed.frontier()

    def missing(self) -> tuple[InstanceId, ...]:
        """Nothing: a gap is an index, and which id will fill it is not known before it is decided."""
        return ()

    def waiting(self) -> int:
        """See `Executor.waiting`."""
        return len(self._held)

    def reached(self, order: Order, batch: Batch) -> bool:
        """Has everything up to index `order` executed? ValueError for what is no index (0 is: before all)."""
        if not isinstance(order, int) or order < 0:
            raise ValueError(f"{order} is no log index")
        return order <= self._index

    def entangled(self, run: bytes) -> bytes:
        """One zero a command: each waits for all before it in the log, so no command holds up another of its batch."""
        return bytes(count_commands(run))
