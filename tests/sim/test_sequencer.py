"""The engine drives a protocol it has never heard of, and the simulator finds out when that protocol is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epaxos.command import Batch
from epaxos.execution.interface import Executor
from epaxos.execution.total import TotalExecutor
from epaxos.messages import Message
from epaxos.protocols.interface import NOTHING, Decide, Effect, LogView, Protocol, ProtocolConfig, Random, Send
from epaxos.protocols.registry import Factory
from epaxos.testing.seeds import run_seed
from tests.sim.sequencer import Poll, Sequencer

SEEDS = range(20)


def factory(kind: type[Sequencer]) -> Factory:
    def build(config: ProtocolConfig, rng: Random, log: LogView) -> tuple[Protocol, Executor]:
        return kind(config, rng, log), TotalExecutor(config.n)

    return build


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_sequencer_keeps_every_promise(n: int) -> None:
    results = [run_seed(seed, protocol=factory(Sequencer), n=n) for seed in SEEDS]
    assert [result.violations for result in results] == [()] * len(SEEDS)
    assert all(result.counts for result in results)
    assert sum(result.lives for result in results) > 1.5 * n * len(SEEDS), "too few crashes to mean anything"
    assert sum(result.outcomes["done"] for result in results) > 25 * len(SEEDS)


class Hasty(Sequencer):
    """Acts on the order of a batch before that is durable."""

    def _accept(self, index: int, batch: Batch) -> Iterator[Effect]:
        for effect in super()._accept(index, batch):
            if isinstance(effect, Decide):
                effect = Decide(id=effect.id, payload=effect.payload, order=effect.order, after=NOTHING)
            yield effect


class Repetitive(Sequencer):
    """Puts a batch in order as often as it is asked to."""

    def _know(self, index: int, batch: Batch) -> None:
        super()._know(index, batch)
        self._places.pop(batch.name)


class Silent(Sequencer):
    """Never answers who asks for what he missed."""

    def _receive(self, peer: int, message: Message) -> Iterator[Effect]:
        return iter(()) if isinstance(message, Poll) else super()._receive(peer, message)


class Askew(Sequencer):
    """One replica takes every second pair of batches the wrong way round."""

    def _decision(self, index: int) -> Decide:
        decision = super()._decision(index)
        if self._config.me != 2:
            return decision
        return Decide(id=decision.id, payload=decision.payload, order=index + 1 if index % 2 else index - 1)


class Chatty(Sequencer):
    """Answers each message with another one, for ever."""

    def _receive(self, peer: int, message: Message) -> Iterator[Effect]:
        yield from super()._receive(peer, message)
        yield Send(peers=(peer,), message=message)


class Broken(Sequencer):
    """Raises."""

    def _receive(self, peer: int, message: Message) -> Iterator[Effect]:
        raise KeyError(peer)


@pytest.mark.parametrize(
    ("kind", "invariants"),
    [
        (Hasty, {"agreement", "equal_order", "answers"}),
        (Repetitive, {"at_most_once"}),
        (Silent, {"convergence"}),
        (Askew, {"agreement"}),
        (Broken, {"exception"}),
    ],
)
def test_a_wrong_sequencer_is_found_out(kind: type[Sequencer], invariants: set[str]) -> None:
    runs = (run_seed(seed, protocol=factory(kind), n=3) for seed in SEEDS)
    seed, (violation,) = next((run.seed, run.violations) for run in runs if run.violations)
    assert violation.partition(":")[0] in invariants and f"epaxos sim --seed {seed}" in violation


def test_a_run_that_would_never_end_is_stopped() -> None:
    (violation,) = run_seed(1, protocol=factory(Chatty), n=3).violations
    assert violation.startswith("convergence") and "events" in violation
