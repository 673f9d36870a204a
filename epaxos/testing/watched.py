"""An executor, a machine and a protocol, each with somebody who looks at what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from epaxos.command import Batch, Payload
from epaxos.execution.interface import Executor, Group
from epaxos.ids import BatchNumber, InstanceId
from epaxos.machines.interface import BatchMachine
from epaxos.messages import Message
from epaxos.protocols.interface import Effect, Event, Now, Order, Protocol, Receive

if TYPE_CHECKING:
    from epaxos.testing.invariants import Watch
    from epaxos.testing.record import Life, Record


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
        self.executed = inner.executed
        self.missing = inner.missing
        self.waiting = inner.waiting

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


class WatchedMachine(BatchMachine):
    """The machine, and a record of what it ran. A read that was answered without being ordered is nobody's history but
    its client's."""

    def __init__(
        self, record: Record, watch: Watch, life: Life, inner: BatchMachine, ordered: set[BatchNumber]
    ) -> None:
        self._ordered = ordered
        self._record = record
        self._watch = watch
        self._life = life
        self._inner = inner
        self._log = record.logs[life] = []
        self.replaying = True

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        if spans and batch.name not in self._ordered and not self.replaying:
            return self._inner.apply_batch(batch, spans)
        applied = self._record.unpack(batch)
        for hook in self._watch.applied:
            hook(self._life, applied)
        self._log.append(applied)
        return self._inner.apply_batch(batch, spans)

    def save(self) -> Iterable[bytes]:
        return self._inner.save()

    def load(self, chunks: Iterable[bytes]) -> None:
        self._inner.load(chunks)


def witnessed(
    life: Life,
    executor: Executor,
    machine: BatchMachine,
    *,
    record: Record,
    watch: Watch,
    decided: dict[InstanceId, Payload],
) -> tuple[WatchedExecutor, WatchedMachine]:
    """The executor and the machine of a life, told to `watch` and to `record`; decisions also to `decided`."""
    ordered: set[BatchNumber] = set()

    def decides(id_: InstanceId, payload: Payload, order: Order) -> None:
        for hook in watch.decided:
            hook(life, id_, payload, order)
        decided[id_] = payload
        if isinstance(payload, Batch):
            ordered.add(payload.name)

    def executes(groups: Iterable[Group]) -> None:
        for group in groups:
            for hook in watch.executed:
                hook(life, group)

    return (
        WatchedExecutor(executor, decided=decides, executed=executes),
        WatchedMachine(record, watch, life, machine, ordered),
    )


class WatchedProtocol(Protocol):
    """As the protocol inside. `received` is called before it takes a message."""

    def __init__(self, inner: Protocol, received: Callable[[Protocol, Message], None]) -> None:
        self.inner = inner
        self.steps = 0
        """Events taken."""
        self._received = received

    @property
    def reads_apart(self) -> bool:  # type: ignore[override]  # here it is a matter of the object, not of the class
        """As `Protocol.reads_apart`."""
        return self.inner.reads_apart

    def step(self, now: Now, event: Event) -> list[Effect]:
        """As `Protocol.step`."""
        self.steps += 1
        if type(event) is Receive:
            self._received(self.inner, event.message)
        return self.inner.step(now, event)

    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        """As `Protocol.recall`."""
        return self.inner.recall(id_)

    def status(self) -> Mapping[str, object]:
        """As `Protocol.status`."""
        return self.inner.status()

    def digest(self) -> bytes:
        """As `Protocol.digest`."""
        return self.inner.digest()
