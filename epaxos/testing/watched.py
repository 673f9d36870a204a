"""An executor, and somebody who looks at every decision it is told of and at every group that ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from epaxos.command import Payload
from epaxos.execution.interface import Executor, Group
from epaxos.ids import InstanceId
from epaxos.protocols.interface import Frontier, Order, Why


class WatchedExecutor:
    """As the executor inside. `decided` is called before it hears of a decision; `executed` with the groups that may
    run now, and with those that ran in an earlier life."""

    def __init__(
        self,
        inner: Executor,
        *,
        decided: Callable[[InstanceId, Payload, Order], None],
        executed: Callable[[Iterable[Group]], None] | None = None,
    ) -> None:
        self._decided = decided
        self._executed = executed
        self._inner = inner
        self.learn = inner.learn
        self.entangled = inner.entangled
        self.reached = inner.reached

    def decide(self, decisions: Sequence[tuple[InstanceId, Payload, Order]]) -> list[Group]:
        """As `Executor.decide`."""
        for decision in decisions:
            self._decided(*decision)
        groups = self._inner.decide(decisions)
        if self._executed is not None:
            self._executed(groups)
        return groups

    def restore(self, ids: Iterable[InstanceId]) -> None:
        """As `Executor.restore`."""
        group = list(ids)
        if self._executed is not None:
            self._executed([group])
        self._inner.restore(group)

    def executed(self) -> Frontier:
        """As `Executor.executed`."""
        return self._inner.executed()

    def missing(self) -> Mapping[InstanceId, Why]:
        """As `Executor.missing`."""
        return self._inner.missing()

    def waiting(self) -> int:
        """As `Executor.waiting`."""
        return self._inner.waiting()
