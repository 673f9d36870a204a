"""Is a history linearizable? Wing and Gong's search with Lowe's memory of configurations.

The history of one object is a set of operations with the times of their invocation and return. An operation whose
outcome is unknown has no return: it may take effect at any time after its invocation, or never. The search walks
the events in order and takes any operation that has been invoked and not yet been taken, as long as no other one
has returned in the meantime; what was taken and the state it led to are remembered, so that no configuration is
visited twice. It is exponential in the worst case: callers keep the operations on one object to a few hundred and
give hints, or an order that they believe in, which is then tried before any other; and the search gives up after a
number of steps rather than never.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

STEPS_MAX: Final = 200_000
"""Of one search. Far below, entangled histories are not decided; far above, one of them takes minutes."""


class Operation(NamedTuple):
    """One operation on one object."""

    invoked: int
    returned: int | None
    """None: the outcome is unknown, and `result` has no meaning."""
    action: Hashable
    result: Hashable = None
    pure: bool = False
    """It never changes the state, whatever the state is."""
    place: int | None = None
    """Where it stands in an order that somebody claims, if it does. That order is tried first, and never trusted."""


class Verdict(enum.Enum):
    """What the search found."""

    LINEARIZABLE = "linearizable"
    BROKEN = "broken"
    UNDECIDED = "undecided"
    """The search was given up."""


Step = Callable[[Any, Operation], tuple[bool, Any]]
"""(state, operation) -> (is its result possible in this state, the state afterwards). States are hashable.

For an operation that did not return, every result is possible.
"""


def _always(state: Any) -> bool:
    return True


class Hints(NamedTuple):
    """What is known of an object beyond its steps. True hints make the search shorter and never change its verdict."""

    viable: Callable[[Any], bool] = _always
    """May say False for a state that no linearization passes through."""
    needed: Mapping[Hashable, int] = MappingProxyType({})
    """For states that never come back once they were left: the operations that fit in no other, as bits by position."""


NO_HINTS: Final = Hints()


def check(
    operations: Sequence[Operation],
    initial: Hashable,
    step: Step,
    hints: Hints = NO_HINTS,
    steps_max: int = STEPS_MAX,
) -> Verdict:
    """Judge the history of one object that starts as `initial`.

    Times must differ from each other; an operation precedes another if it returned before the other was invoked.
    """
    if _Search(operations, step, hints, steps_max).follow(initial):
        return Verdict.LINEARIZABLE
    return _Search(operations, step, hints, steps_max).run(initial)


class _Search:
    """The events of a history in a doubly linked list, from which taken operations are lifted."""

    def __init__(self, operations: Sequence[Operation], step: Step, hints: Hints, steps_max: int) -> None:
        self._operations = operations
        self._step = step
        self._viable = hints.viable
        self._needed = hints.needed
        self._steps_max = steps_max
        events: list[tuple[int, int, bool]] = []
        for index, op in enumerate(operations):
            if op.returned is not None:
                events.append((op.returned, index, False))
            if op.returned is not None or not op.pure:
                events.append((op.invoked, index, True))
        events.sort()
        size = len(events)
        # Event 0 is the head of the list, event size+1 its end.
        self._of = [-1] + [index for _, index, _ in events] + [-1]
        self._is_call = [False] + [call for _, _, call in events] + [False]
        self._next = list(range(1, size + 2)) + [0]
        self._prev = [0] + list(range(size + 1))
        self._return_at = [0] * len(operations)
        for at, (_, index, call) in enumerate(events, 1):
            if not call:
                self._return_at[index] = at
        self._end = size + 1

    def _lift(self, call: int) -> None:
        back = self._return_at[self._of[call]]
        for at in (call, back) if back else (call,):
            before, after = self._prev[at], self._next[at]
            self._next[before], self._prev[after] = after, before

    def _unlift(self, call: int) -> None:
        back = self._return_at[self._of[call]]
        for at in (back, call) if back else (call,):
            self._next[self._prev[at]] = at
            self._prev[self._next[at]] = at

    def _may_go(self, state: Hashable, after: Hashable, taken: int) -> bool:
        """Is nothing lost by going from `state` to `after`, with these operations taken?"""
        return after == state or (not self._needed.get(state, 0) & ~taken and self._viable(after))

    def follow(self, initial: Hashable) -> bool:
        """Is the order that is claimed a linearization? What never changes the state goes wherever it fits."""
        order = iter(sorted((op.place, index) for index, op in enumerate(self._operations) if op.place is not None))
        turns = (index for _, index in order if not self._operations[index].pure)
        turn = next(turns, None)
        unreturned = sum(1 for op in self._operations if op.returned is not None)
        state, at = initial, self._next[0]
        while unreturned:
            if at == self._end or not self._is_call[at]:
                return False
            index = self._of[at]
            op = self._operations[index]
            fits, after = self._step(state, op) if op.pure or index == turn else (False, state)
            if not fits:
                at = self._next[at]
                continue
            if not op.pure:
                turn = next(turns, None)
            unreturned -= op.returned is not None
            self._lift(at)
            state, at = after, self._next[0]
        return True

    def run(self, initial: Hashable) -> Verdict:
        """Walk until nothing that returned is left, or every way is a dead end."""
        unreturned = sum(1 for op in self._operations if op.returned is not None)
        taken, state = 0, initial
        seen = {(taken, state)}
        # (event of the call, state before it, was it certain to be right)
        path: list[tuple[int, Hashable, bool]] = []
        at = self._next[0]
        for _ in range(self._steps_max):
            if not unreturned:
                return Verdict.LINEARIZABLE
            if at != self._end and self._is_call[at]:
                op = self._operations[self._of[at]]
                fits, after = self._step(state, op)
                mark = taken | 1 << self._of[at]
                if fits and (mark, after) not in seen and self._may_go(state, after, mark):
                    seen.add((mark, after))
                    path.append((at, state, op.pure))
                    taken, state = mark, after
                    unreturned -= op.returned is not None
                    self._lift(at)
                    at = self._next[0]
                else:
                    at = self._next[at]
                continue
            # Something returned that cannot have taken effect yet: undo, up to the last choice that was a choice. A
            # pure operation that fits is none: if the rest can be completed at all, then also with it in this place.
            while True:
                if not path:
                    return Verdict.BROKEN
                call, state, certain = path.pop()
                taken &= ~(1 << self._of[call])
                unreturned += self._operations[self._of[call]].returned is not None
                self._unlift(call)
                if not certain:
                    break
            at = self._next[call]
        return Verdict.UNDECIDED
