"""The checker, against a checker by brute force on tiny histories, and against histories broken on purpose."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from typing import Any

import pytest

from epaxos.testing.keyed import judge_key, shortest
from epaxos.testing.kvmodel import KvModel, bulk
from epaxos.testing.linearizability import NO_HINTS, Operation, Verdict, check
from epaxos.testing.record import Part

MODEL = KvModel()
VERBS = {
    "register": ("set", "set", "get", "get", "getset"),
    "counter": ("incrby", "incrby", "get"),
    "list": ("append", "append", "get"),
    "fleeting": ("set", "setnx", "del", "exists", "strlen", "get"),
}


def step(state: Any, op: Operation) -> tuple[bool, Hashable]:
    assert isinstance(op.action, Part)
    reply, after = MODEL.step(state, op.action)
    return op.result is None or op.result == reply, after


def explained_by_brute_force(left: Sequence[Operation], state: Any = None) -> bool:
    """Try every order that real time allows, and every choice of operations of unknown outcome."""
    if all(op.returned is None for op in left):
        return True
    first_return = min(op.returned for op in left if op.returned is not None)
    for position, op in enumerate(left):
        if op.invoked < first_return:
            fits, after = step(state, op)
            if fits and explained_by_brute_force([*left[:position], *left[position + 1 :]], after):
                return True
    return False


# ------------------------------------------------------------------------------------------------ making histories


def make(rng: Random, kind: str, count: int, unknown: float) -> list[Operation]:
    """A linearizable history: commands with overlapping times that took effect, one after the other, in between."""
    spans: list[tuple[int, int]] = []
    ticks = list(range(1, 2 * count + 1))
    opened: list[int] = []
    for tick in ticks:
        left = count - len(spans) - len(opened)
        if left and (not opened or rng.random() < 0.5):
            opened.append(tick)
        else:
            spans.append((opened.pop(rng.randrange(len(opened))), tick))
    points = sorted((rng.uniform(invoked, returned), invoked, returned) for invoked, returned in spans)
    history = []
    state: Any = None
    for number, (_, invoked, returned) in enumerate(points):
        part = draw_part(rng, kind, number)
        lost = rng.random() < unknown
        reply, after = MODEL.step(state, part)
        if not lost or rng.random() < 0.5:
            state = after
        pure = part.verb in ("get", "exists", "strlen")
        history.append(Operation(invoked, None if lost else returned, part, None if lost else reply, pure))
    return history


def draw_part(rng: Random, kind: str, number: int) -> Part:
    verb = rng.choice(VERBS[kind])
    if verb == "incrby":
        return Part(b"k", verb, 1 << number)
    return Part(b"k", verb, b"<%d>" % number if verb in ("set", "getset", "setnx", "append") else None)


def spoil(rng: Random, history: list[Operation]) -> list[Operation]:
    """Give one operation the result of another one, or a time of its own."""
    spoiled = list(history)
    at, other = rng.randrange(len(history)), rng.randrange(len(history))
    op = spoiled[at]
    if op.returned is not None and rng.random() < 0.7:
        spoiled[at] = op._replace(result=spoiled[other].result or bulk(b"from nowhere"))
    else:
        beyond = 2 * len(history) + 1
        spoiled[at] = op._replace(invoked=beyond, returned=op.returned and beyond + 1)
    return spoiled


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("kind", VERBS)
def test_agrees_with_brute_force_on_tiny_histories(kind: str) -> None:
    rng = Random(kind)
    found = {Verdict.LINEARIZABLE: 0, Verdict.BROKEN: 0}
    for _ in range(1500):
        history = make(rng, kind, rng.randrange(1, 7), unknown=0.2)
        for _ in range(rng.randrange(3)):
            history = spoil(rng, history)
        expected = Verdict.LINEARIZABLE if explained_by_brute_force(history) else Verdict.BROKEN
        assert judge_key(history) is expected, history
        assert check(history, None, step, NO_HINTS) is expected, history
        found[expected] += 1
    assert min(found.values()) > 200, found


@pytest.mark.parametrize("kind", VERBS)
def test_an_order_that_is_claimed_changes_no_verdict(kind: str) -> None:
    rng = Random(kind)
    for _ in range(500):
        history = make(rng, kind, rng.randrange(1, 7), unknown=0.2)
        for _ in range(rng.randrange(2)):
            history = spoil(rng, history)
        claim = [*range(len(history)), None]
        rng.shuffle(claim)
        expected = Verdict.LINEARIZABLE if explained_by_brute_force(history) else Verdict.BROKEN
        claimed = [op._replace(place=place) for op, place in zip(history, claim, strict=False)]
        assert check(claimed, None, step, NO_HINTS) is expected, claimed


def test_the_true_order_spares_the_search() -> None:
    """All at once, and hardly any has a result: far too entangled to be searched."""
    count, rng = 60, Random(1)
    order = list(range(count))
    rng.shuffle(order)
    total, history = 0, []
    for place, number in enumerate(order):
        total += 1 << number
        history.append(add(number + 1, 1000 + number, 1 << number, total)._replace(place=place))
    entangled = [op if op.place in (0, count - 1) else op._replace(result=None) for op in history]
    unplaced = [op._replace(place=None) for op in entangled]
    assert check(unplaced, None, step, NO_HINTS, steps_max=10_000) is Verdict.UNDECIDED
    assert check(entangled, None, step, NO_HINTS, steps_max=10_000) is Verdict.LINEARIZABLE


@pytest.mark.parametrize("kind", VERBS)
def test_long_linearizable_histories_are_recognised(kind: str) -> None:
    rng = Random(kind)
    for _ in range(10):
        history = make(rng, kind, 60, unknown=0.05)
        assert judge_key(history) is Verdict.LINEARIZABLE, history


def get(invoked: int, returned: int | None, value: bytes | None) -> Operation:
    return Operation(invoked, returned, Part(b"k", "get"), bulk(value), pure=True)


def put(invoked: int, returned: int | None, value: bytes) -> Operation:
    return Operation(invoked, returned, Part(b"k", "set", value), None if returned is None else b"+OK\r\n")


def add(invoked: int, returned: int | None, amount: int, total: int | None = None) -> Operation:
    return Operation(invoked, returned, Part(b"k", "incrby", amount), None if total is None else b":%d\r\n" % total)


@pytest.mark.parametrize(
    ("name", "history"),
    [
        ("a read in front of everything", [get(1, 2, None)]),
        ("two writes at once, read in either order", [put(1, 4, b"a"), put(2, 3, b"b"), get(5, 6, b"a")]),
        ("a read during a write sees it", [put(1, 4, b"a"), get(2, 3, b"a"), get(5, 6, b"a")]),
        ("a read during a write does not see it", [put(1, 4, b"a"), get(2, 3, None)]),
        ("a write of unknown outcome takes effect late", [put(1, None, b"a"), get(2, 3, None), get(4, 5, b"a")]),
        ("a write of unknown outcome never takes effect", [put(1, None, b"a"), get(2, 3, None), get(4, 5, None)]),
        ("an unknown increment is counted", [add(1, None, 1), add(2, 3, 2, 3)]),
        ("an unknown increment is not counted", [add(1, None, 1), add(2, 3, 2, 2)]),
    ],
)
def test_allows(name: str, history: list[Operation]) -> None:
    assert judge_key(history) is Verdict.LINEARIZABLE


@pytest.mark.parametrize(
    ("name", "history"),
    [
        ("a stale read", [put(1, 2, b"a"), put(3, 4, b"b"), get(5, 6, b"a")]),
        ("an acknowledged write is lost", [put(1, 2, b"a"), get(3, 4, None)]),
        ("a value from nowhere", [put(1, 2, b"a"), get(3, 4, b"b")]),
        ("a read before the write was submitted", [get(1, 2, b"a"), put(3, 4, b"a")]),
        ("time runs backwards for two readers", [put(1, 6, b"a"), get(2, 3, b"a"), get(4, 5, None)]),
        (
            "two readers see two writes in opposite orders",
            [put(1, 2, b"a"), put(3, 12, b"b"), get(4, 5, b"b"), get(6, 7, b"a"), get(8, 9, b"b")],
        ),
        ("an increment counted twice", [add(1, 2, 1, 1), add(3, 4, 2, 4)]),
        ("an unknown increment counted twice", [add(1, None, 1), add(2, 3, 2, 4)]),
        ("an increment forgotten", [add(1, 2, 1, 1), add(3, 4, 2, 2)]),
        ("a value that was overwritten comes back", [put(1, None, b"a"), put(2, 3, b"b"), *(
            get(4 + 2 * i, 5 + 2 * i, value) for i, value in enumerate((b"a", b"b", b"a"))
        )]),
    ],
)  # fmt: skip
def test_refuses(name: str, history: list[Operation]) -> None:
    assert judge_key(history) is Verdict.BROKEN


def test_what_is_shown_of_a_broken_history_ends_where_it_breaks() -> None:
    fine = [put(1, 2, b"a"), get(3, 4, b"a"), put(5, 12, b"b")]
    history = [*fine, get(6, 7, b"b"), get(8, 9, b"a"), put(10, 11, b"c"), get(13, 14, b"c")]
    shown = shortest(history)
    assert [op.returned for op in shown] == [2, 4, None, 7, 9], "the read that went back in time is the last to return"
    assert judge_key(shown) is Verdict.BROKEN


def test_gives_up_rather_than_search_for_ever() -> None:
    blind = [put(1 + i, 100 + i, b"%d" % i) for i in range(30)]
    history = [*blind, *(get(200 + 2 * i, 201 + 2 * i, b"nothing") for i in range(2))]
    assert check(history, None, step, steps_max=1000) is Verdict.UNDECIDED


def test_nothing_happened() -> None:
    assert check([], None, step) is Verdict.LINEARIZABLE


def test_replies_stand_one_behind_the_other() -> None:
    replies = [b"+OK\r\n", bulk(b"a\r\nb"), bulk(None), b":-3\r\n", b"*2\r\n" + bulk(b"x") + bulk(None), b"-ERR no\r\n"]
    assert MODEL.split(b"".join(replies), len(replies)) == replies
    for data, count in ((b"+OK\r\n", 2), (b"+OK\r\n+OK\r\n", 1), (b"?\r\n", 1), (b"+OK", 1)):
        with pytest.raises(ValueError):
            MODEL.split(data, count)
