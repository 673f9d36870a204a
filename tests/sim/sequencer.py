"""The smallest protocol that the engine can drive: replica 0 puts everything in order, the others forward to it.

It survives any crash and loses nothing, but does nothing while replica 0 is down. It is here because the engine must
not know which protocol it drives, and because the simulator was built with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from epaxos.command import Batch, Payload
from epaxos.execution.interface import Executor
from epaxos.execution.total import TotalExecutor
from epaxos.ids import BatchNumber, InstanceId
from epaxos.messages import Message
from epaxos.protocols.interface import (
    Credit,
    Decide,
    Effect,
    Event,
    Executed,
    LogView,
    Now,
    Order,
    PeerUp,
    Propose,
    Protocol,
    ProtocolConfig,
    Random,
    Receive,
    Save,
    Send,
    SetTimer,
    Start,
    Wake,
)
from epaxos.value import value

SEQUENCER = 0
POLL_MAX = 20


@value
class Forward(Message):
    """Put this in order."""

    batch: Batch


@value
class Ordered(Message):
    """This is the place of that batch."""

    index: int
    batch: Batch


@value
class Poll(Message):
    """This is the first place that I lack."""

    index: int


class Sequencer(Protocol):
    """One replica. The log holds the batch of each index under the index, eight bytes, big-endian."""

    def __init__(self, config: ProtocolConfig, rng: Random, log: LogView) -> None:
        self._config = config
        self._log = log
        self._batches: dict[int, Batch] = {}
        self._places: dict[BatchNumber, int] = {}
        self._mine: dict[BatchNumber, Batch] = {}
        self._lacks = 1
        self._mark = 0

    def step(self, now: Now, event: Event) -> list[Effect]:
        return list(self._effects(now, event))

    def _effects(self, now: Now, event: Event) -> Iterator[Effect]:
        if isinstance(event, Start):
            for key, value in self._log.scan(bytes(8), b"\x01"):
                index = int.from_bytes(key, "big")
                self._know(index, Batch(value))
                if InstanceId(0, index, SEQUENCER) not in event.executed:
                    yield self._decision(index)
            yield Credit(n=self._config.window)
            yield SetTimer(timer="retry", at_us=now.mono_us + self._config.retry_us)
        elif isinstance(event, Propose):
            self._mine[event.batch.name] = event.batch
            yield from self._submit(event.batch)
        elif isinstance(event, Receive):
            yield from self._receive(event.peer, event.message)
        elif isinstance(event, Executed):
            names = [self._batches[id_.slot].name for id_ in event.ids]
            yield Credit(n=sum(self._mine.pop(name, None) is not None for name in names))
        elif isinstance(event, Wake):
            yield from self._retry(now)
        elif isinstance(event, PeerUp) and event.peer == SEQUENCER:
            yield Send(peers=(SEQUENCER,), message=Poll(index=self._lacks))

    def _retry(self, now: Now) -> Iterator[Effect]:
        for name, batch in self._mine.items():
            if name not in self._places:
                yield from self._submit(batch)
        if self._config.me != SEQUENCER:
            yield Send(peers=(SEQUENCER,), message=Poll(index=self._lacks))
        yield SetTimer(timer="retry", at_us=now.mono_us + self._config.retry_us)

    def _submit(self, batch: Batch) -> Iterator[Effect]:
        if self._config.me != SEQUENCER:
            yield Send(peers=(SEQUENCER,), message=Forward(batch=batch))
        elif batch.name not in self._places:
            others = tuple(peer for peer in range(self._config.n) if peer != SEQUENCER)
            index = self._lacks
            yield from self._accept(index, batch)
            yield Send(peers=others, message=Ordered(index=index, batch=batch))

    def _receive(self, peer: int, message: Message) -> Iterator[Effect]:
        if isinstance(message, Forward):
            yield from self._submit(message.batch)
        elif isinstance(message, Ordered) and message.index not in self._batches:
            yield from self._accept(message.index, message.batch)
        elif isinstance(message, Poll):
            for index in range(message.index, min(message.index + POLL_MAX, self._lacks)):
                yield Send(peers=(peer,), message=Ordered(index=index, batch=self._batches[index]))

    def _accept(self, index: int, batch: Batch) -> Iterator[Effect]:
        self._know(index, batch)
        self._mark += 1
        urgent = self._config.me == SEQUENCER
        yield Save(puts=((index.to_bytes(8, "big"), batch.data),), mark=self._mark, urgent=urgent)
        yield self._decision(index)

    def _know(self, index: int, batch: Batch) -> None:
        self._batches[index] = batch
        self._places[batch.name] = index
        while self._lacks in self._batches:
            self._lacks += 1

    def _decision(self, index: int) -> Decide:
        return Decide(id=InstanceId(0, index, SEQUENCER), payload=self._batches[index], order=index)

    def recall(self, id_: InstanceId) -> tuple[Payload, Order] | None:
        value = self._log.get(id_.slot.to_bytes(8, "big"))
        batch = self._batches.get(id_.slot) if value is None else Batch(value)
        return None if batch is None else (batch, id_.slot)

    def status(self) -> Mapping[str, object]:
        return {"known": max(self._batches, default=0), "executed": self._lacks - 1}

    def digest(self) -> bytes:
        return hashlib.blake2b(b"".join(self._batches[i].data for i in sorted(self._batches)), digest_size=16).digest()


def build(config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
    """The protocol and its executor, as the registry's factories give them."""
    return Sequencer(config, rng, log), TotalExecutor(config.n)
