"""The executor of a log: order is an index."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from epaxos.command import NOP, READ, Payload
from epaxos.execution.total import TotalExecutor
from epaxos.ids import InstanceId
from tests.unit.graphs import A1, A2, B1, B2, batch, id_at, run, write

DECISIONS: list[tuple[InstanceId, Payload, int]] = [
    (A1, write(1), 1),
    (B1, write(1), 2),
    (B2, NOP, 3),
    (A2, write(2), 4),
]
ORDER = [[A1], [B1], [B2], [A2]]


def test_ids_execute_by_index_in_whatever_order_they_are_decided() -> None:
    for decisions in itertools.permutations(DECISIONS):
        executor = TotalExecutor(2)
        assert list(itertools.chain(*(executor.decide([decision]) for decision in decisions))) == ORDER
        assert executor.waiting() == 0


def test_many_ids_in_one_call_or_shuffled_over_many() -> None:
    decisions = [(id_at(index % 3, index // 3 + 1), write(index), index + 1) for index in range(1000)]
    assert TotalExecutor(3).decide(decisions) == [[id_] for id_, _, _ in decisions]
    shuffled = list(decisions)
    random.Random(1).shuffle(shuffled)
    executor = TotalExecutor(3)
    assert list(itertools.chain(*(executor.decide([one]) for one in shuffled))) == [[id_] for id_, _, _ in decisions]


def test_what_is_above_a_gap_waits() -> None:
    executor = TotalExecutor(2)
    assert executor.decide(DECISIONS[1:]) == []
    assert executor.waiting() == 3
    assert executor.missing() == (), "which id fills the gap is not known"
    assert executor.executed().watermark == (0, 0)
    assert executor.decide(DECISIONS[:1]) == ORDER
    assert executor.executed().watermark == (2, 2)


def test_a_repeated_decision_is_ignored() -> None:
    executor = TotalExecutor(2)
    assert executor.decide([DECISIONS[1], DECISIONS[1]]) == []
    assert executor.decide([DECISIONS[1]]) == []
    assert executor.decide([DECISIONS[0], DECISIONS[0]]) == [[A1], [B1]]
    assert executor.decide(DECISIONS[:2]) == []


def test_restored_ids_are_the_first_of_the_log() -> None:
    executor = TotalExecutor(2)
    executor.restore([B1, A1, A1])
    assert executor.reached(2, write(1))
    assert executor.decide(DECISIONS) == ORDER[2:]
    with pytest.raises(ValueError, match="after the first decision"):
        executor.restore([id_at(0, 3)])


def test_reached_is_the_executed_index_whatever_the_keys() -> None:
    executor = TotalExecutor(2)
    executor.decide(DECISIONS[:2])
    assert [executor.reached(index, write(99)) for index in range(4)] == [True, True, True, False]


def test_no_command_is_entangled() -> None:
    executor = TotalExecutor(2)
    executor.learn(A1, batch(((1, 0),)))
    executor.decide(DECISIONS[1:])
    assert executor.entangled(run(((1, 0), (2, READ)), ((1, 0),))) == b"\0\0"


@pytest.mark.parametrize("order", [0, -1, (1, 1), None, "1"])
def test_an_order_that_is_no_index_is_refused_before_anything_is_taken(order: Any) -> None:
    executor = TotalExecutor(2)
    with pytest.raises(ValueError, match="no log index"):
        executor.decide([DECISIONS[0], (B1, write(1), order)])
    assert executor.waiting() == 0
    assert executor.decide(DECISIONS[:1]) == ORDER[:1]


@pytest.mark.parametrize("wrong", [(B1, NOP, 3), (B1, NOP, 1), (A2, NOP, 5)])
def test_an_index_has_one_id_and_an_id_one_index(wrong: tuple[InstanceId, Any, int]) -> None:
    executor = TotalExecutor(2)
    executor.decide([DECISIONS[0], DECISIONS[2], DECISIONS[3]])
    with pytest.raises(ValueError, match="and one of the two otherwise"):
        executor.decide([wrong])
    assert executor.decide([DECISIONS[1]]) == ORDER[1:]


def test_an_id_is_not_decided_at_two_indices_in_one_call() -> None:
    with pytest.raises(ValueError, match="and one of the two otherwise"):
        TotalExecutor(2).decide([(A1, NOP, 2), (A1, NOP, 3)])


def test_an_id_outside_the_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        TotalExecutor(2).decide([(id_at(2, 1), NOP, 1)])
    with pytest.raises(ValueError, match="no place"):
        TotalExecutor(2).learn(id_at(0, 0), write(1))
