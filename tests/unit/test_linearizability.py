"""The checker against brute force on tiny histories, and against histories broken on purpose."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import permutations
from random import Random
from typing import Any

import pytest

from epaxos.testing.linearizability import Operation, Verdict, check


def register(state: Any, op: Operation) -> tuple[bool, Any]:
    """("write", v) and ("read",); an unknown outcome may have any result."""
    if op.action[0] == "write":  # type: ignore[index]  # actions are tuples here
        return True, op.action[1]  # type: ignore[index]
    return op.returned is None or op.result == state, state


def counter(state: Any, op: Operation) -> tuple[bool, Any]:
    """("incr",) answers with the new value."""
    return op.returned is None or op.result == state + 1, state + 1


def brute_force(operations: Sequence[Operation], initial: Hashable, step: Any) -> bool:
    """By the definition: some order of all that returned and some of the others."""
    returned = [op for op in operations if op.returned is not None]
    open_ = [op for op in operations if op.returned is None]
    subsets = [[op for i, op in enumerate(open_) if bits >> i & 1] for bits in range(1 << len(open_))]
    return any(_fits(order, initial, step) for subset in subsets for order in permutations(returned + subset))


def _fits(order: Sequence[Operation], initial: Any, step: Any) -> bool:
    state = initial
    for at, op in enumerate(order):
        if any(later.returned is not None and later.returned < op.invoked for later in order[at + 1 :]):
            return False
        fits, state = step(state, op)
        if not fits:
            return False
    return True


def random_history(rng: Random, model: str) -> list[Operation]:
    times = list(range(40))
    rng.shuffle(times)
    operations = []
    for _ in range(rng.randint(2, 6)):
        first, second = sorted((times.pop(), times.pop()))
        returned = None if rng.random() < 0.2 else second
        if model == "counter":
            operations.append(Operation(first, returned, ("incr",), rng.randint(1, 4)))
        elif rng.random() < 0.5:
            operations.append(Operation(first, returned, ("write", rng.randint(1, 3))))
        else:
            operations.append(Operation(first, returned, ("read",), rng.choice([0, 1, 2, 3]), pure=True))
    return operations


@pytest.mark.parametrize("model", ["register", "counter"])
def test_the_verdict_is_that_of_brute_force(model: str) -> None:
    rng = Random(1)
    step = register if model == "register" else counter
    seen = set()
    for _ in range(1_500):
        history = random_history(rng, model)
        expected = Verdict.LINEARIZABLE if brute_force(history, 0, step) else Verdict.BROKEN
        assert check(history, 0, step) is expected, history
        seen.add(expected)
    assert seen == {Verdict.LINEARIZABLE, Verdict.BROKEN}


def test_a_stale_read_is_found() -> None:
    history = [
        Operation(1, 2, ("write", 1)),
        Operation(3, 4, ("write", 2)),
        Operation(5, 6, ("read",), 1, pure=True),
    ]
    assert check(history, 0, register) is Verdict.BROKEN
    concurrent = [*history[:2], Operation(2, 6, ("read",), 1, pure=True)]
    assert check(concurrent[:1] + [Operation(3, 7, ("write", 2)), concurrent[2]], 0, register) is Verdict.LINEARIZABLE


def test_two_reads_that_disagree_about_the_order_are_found() -> None:
    history = [
        Operation(1, 20, ("write", 1)),
        Operation(2, 19, ("write", 2)),
        Operation(3, 4, ("read",), 1, pure=True),
        Operation(5, 6, ("read",), 2, pure=True),
        Operation(7, 8, ("read",), 1, pure=True),
    ]
    assert check(history, 0, register) is Verdict.BROKEN


def test_an_unknown_write_may_take_effect_late_or_never() -> None:
    lost = Operation(1, None, ("write", 9))
    late = [lost, Operation(2, 3, ("read",), 0, pure=True), Operation(4, 5, ("read",), 9, pure=True)]
    never = [lost, Operation(2, 3, ("read",), 0, pure=True)]
    twice = [*late, Operation(6, 7, ("read",), 0, pure=True)]
    assert check(late, 0, register) is Verdict.LINEARIZABLE
    assert check(never, 0, register) is Verdict.LINEARIZABLE
    assert check(twice, 0, register) is Verdict.BROKEN


def test_a_lost_increment_is_found() -> None:
    history = [Operation(i * 10, i * 10 + 5, ("incr",), i + 1) for i in range(5)]
    assert check(history, 0, counter) is Verdict.LINEARIZABLE
    assert check([*history, Operation(60, 65, ("incr",), 5)], 0, counter) is Verdict.BROKEN


def test_it_gives_up_rather_than_never_end() -> None:
    history = [Operation(i, None, ("write", i)) for i in range(12)]
    history.append(Operation(50, 60, ("read",), 99, pure=True))
    assert check(history, 0, register, steps_max=50) is Verdict.UNDECIDED
