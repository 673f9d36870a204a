"""The cycle checker, against brute force on tiny histories, and against histories that were broken on purpose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import pytest

from epaxos.testing.cycles import Append, Read, Transaction, find_anomaly

Lists = dict[bytes, tuple[bytes, ...]]


def carry_out(lists: Lists, one: Transaction) -> tuple[Lists, Transaction]:
    """(the lists afterwards, the command with what its reads saw)."""
    after, steps = dict(lists), []
    for step in one.steps:
        if isinstance(step, Append):
            after[step.key] = (*after.get(step.key, ()), step.element)
            steps.append(step)
        else:
            steps.append(Read(step.key, after.get(step.key, ())))
    return after, one._replace(steps=tuple(steps))


def fits(one: Transaction, seen: Transaction) -> bool:
    return one.returned is None or one.steps == seen.steps


def explained_by_brute_force(left: Sequence[Transaction], lists: Lists | None = None) -> bool:
    """Try every order that real time allows, and every choice of commands of unknown outcome."""
    if all(one.returned is None for one in left):
        return True
    first_return = min(one.returned for one in left if one.returned is not None)
    for position, one in enumerate(left):
        if one.invoked < first_return:
            after, seen = carry_out(lists or {}, one)
            if fits(one, seen) and explained_by_brute_force([*left[:position], *left[position + 1 :]], after):
                return True
    return False


# ------------------------------------------------------------------------------------------------ making histories


def make(rng: Random, count: int, unknown: float, keys: int = 3) -> list[Transaction]:
    """A strictly serializable history: commands with overlapping times that took effect somewhere in between."""
    spans: list[tuple[int, int]] = []
    opened: list[int] = []
    for tick in range(1, 2 * count + 1):
        left = count - len(spans) - len(opened)
        if left and (not opened or rng.random() < 0.6):
            opened.append(tick)
        else:
            spans.append((opened.pop(rng.randrange(len(opened))), tick))
    points = sorted((rng.uniform(invoked, returned), invoked, returned) for invoked, returned in spans)
    lists: Lists = {}
    history = []
    for number, (_, invoked, returned) in enumerate(points):
        one = Transaction(f"T{number}", invoked, returned, draw(rng, number, keys))
        after, seen = carry_out(lists, one)
        lost = rng.random() < unknown
        if not lost or rng.random() < 0.5:
            lists = after
        history.append(forgotten(one) if lost else seen)
    return history


def draw(rng: Random, number: int, keys: int) -> tuple[Append | Read, ...]:
    steps: list[Append | Read] = []
    for i in range(rng.randrange(1, 4)):
        key = b"xyz"[(at := rng.randrange(keys)) : at + 1]
        steps.append(Append(key, b"%d.%d" % (number, i)) if rng.random() < 0.5 else Read(key, None))
    return tuple(steps)


def forgotten(one: Transaction) -> Transaction:
    steps = tuple(Read(step.key, None) if isinstance(step, Read) else step for step in one.steps)
    return one._replace(returned=None, steps=steps)


def spoil(rng: Random, history: list[Transaction]) -> list[Transaction]:
    """Change what one read saw, or when one command took place."""
    at = rng.randrange(len(history))
    one, spoiled = history[at], list(history)
    reads = [i for i, step in enumerate(one.steps) if isinstance(step, Read) and step.elements is not None]
    if not reads or rng.random() < 0.3:
        beyond = 2 * len(history) + 1
        spoiled[at] = one._replace(invoked=beyond, returned=one.returned and beyond + 1)
        return spoiled
    place = rng.choice(reads)
    step = one.steps[place]
    assert isinstance(step, Read) and step.elements is not None
    elements = list(step.elements)
    if elements and rng.random() < 0.7:
        elements.pop()
    elif len(elements) > 1:
        elements[-2:] = elements[:-3:-1]
    else:
        appended = [s.element for other in history for s in other.steps if isinstance(s, Append) and s.key == step.key]
        elements += rng.sample(appended, min(1, len(appended)))
    changed = (*one.steps[:place], Read(step.key, tuple(elements)), *one.steps[place + 1 :])
    spoiled[at] = one._replace(steps=changed)
    return spoiled


# ------------------------------------------------------------------------------------------------------- the tests


def test_agrees_with_brute_force_on_tiny_histories() -> None:
    rng = Random(5)
    found: Counter[bool] = Counter()
    kinds: Counter[str] = Counter()
    for _ in range(3000):
        history = make(rng, rng.randrange(1, 6), unknown=0.2)
        for _ in range(rng.randrange(3)):
            history = spoil(rng, history)
        rng.shuffle(history)
        anomaly = find_anomaly(history)
        assert (anomaly is None) is explained_by_brute_force(history), (anomaly, history)
        found[anomaly is None] += 1
        kinds[anomaly.kind if anomaly else "none"] += 1
    assert min(found.values()) > 600, found
    assert len(kinds) > 8, kinds


def test_long_serializable_histories_pass() -> None:
    rng = Random(6)
    for _ in range(5):
        assert find_anomaly(make(rng, 400, unknown=0.05)) is None


def t(name: str, invoked: int, returned: int | None, *words: str) -> Transaction:
    """`x+1` appends 1 to x; `x=1,2` read 1 and 2 at x."""
    steps: list[Append | Read] = []
    for word in words:
        key, value = word[:1].encode(), word[2:].encode()
        steps.append(Append(key, value) if word[1] == "+" else Read(key, tuple(value.split(b",")) if value else ()))
    return Transaction(name, invoked, returned, tuple(steps))


@pytest.mark.parametrize(
    ("kind", "history"),
    [
        ("stale read against real time", [t("A", 1, 2, "x+1"), t("B", 3, 4, "x=")]),
        ("stale read against real time", [t("A", 1, 2, "x+1"), t("B", 3, 4, "x+2"), t("C", 5, 6, "x=1")]),
        ("write skew", [t("A", 1, 10, "x=", "y+1"), t("B", 2, 9, "y=", "x+2")]),
        ("write skew", [
            t("A", 1, 10, "x+1"), t("B", 2, 9, "y+2"), t("C", 3, 8, "x=1", "y="), t("D", 4, 7, "x=", "y=2"),
        ]),
        ("stale read", [t("A", 1, 10, "x+1", "y+2"), t("B", 2, 9, "x=1", "y=")]),
        ("stale read", [t("A", 1, None, "x+1", "y+2"), t("B", 2, 9, "x=1", "y=")]),
        ("circular reads", [t("A", 1, 10, "x+1", "y=2"), t("B", 2, 9, "x=1", "y+2")]),
        ("dirty order", [t("A", 1, 10, "x+1", "y+2"), t("B", 2, 9, "x+3", "y+4"), t("C", 3, 8, "x=1,3", "y=4,2")]),
        ("dirty order against real time", [t("A", 1, 2, "x+1"), t("B", 3, 4, "x+2"), t("C", 5, 6, "x=2,1")]),
        ("two orders", [t("A", 1, 9, "x+1"), t("B", 2, 8, "x+2"), t("C", 3, 7, "x=1,2"), t("D", 4, 6, "x=2,1")]),
        ("stale read", [t("A", 1, 9, "x+1", "x+2"), t("B", 2, 8, "x=1")]),
        ("steps out of order", [t("A", 1, 9, "x+1", "x+2"), t("B", 2, 8, "x=2,1")]),
        ("steps out of order", [t("A", 1, 9, "x+1", "x+2"), t("B", 2, 8, "x=2")]),
        ("element from nowhere", [t("A", 1, 2, "x=7")]),
        ("appended twice", [t("A", 1, 9, "x+1"), t("B", 2, 8, "x=1,1")]),
        ("own append lost", [t("A", 1, 2, "x+1", "x=")]),
        ("future read", [t("A", 1, 2, "x=1", "x+1")]),
        ("unrepeatable read", [t("A", 1, 9, "x+1"), t("B", 2, 8, "x=", "x=1")]),
        ("write skew", [t("A", 1, 9, "x=", "x+1"), t("B", 2, 8, "x=", "x+2")]),
    ],
)  # fmt: skip
def test_refuses_and_says_why(kind: str, history: list[Transaction]) -> None:
    anomaly = find_anomaly(history)
    assert anomaly is not None
    assert anomaly.kind == kind, anomaly.text
    assert any(one.name in anomaly.text for one in history)


def test_a_cycle_is_explained_by_its_commands_alone() -> None:
    bystanders = [t(f"S{i}", 100 + i, None, f"z+{i}") for i in range(20)]
    skew = [t("A", 1, 10, "x=", "y+1"), t("B", 2, 9, "y=", "x+2"), t("C", 11, 12, "x=2", "y=1")]
    anomaly = find_anomaly([*bystanders, *skew])
    assert anomaly is not None
    assert anomaly.text.splitlines() == [
        "2 commands that no order explains:",
        "  A read x without 2, which B appended",
        "  B read y without 1, which A appended",
        "A: x = [], y += 1  (1 .. 10)",
        "B: y = [], x += 2  (2 .. 9)",
    ]


@pytest.mark.parametrize(
    "history",
    [
        [],
        [t("A", 1, None, "x+1"), t("B", 2, 3, "x="), t("C", 4, 5, "x=1")],
        [t("A", 1, None, "x+1"), t("B", 2, 3, "x=")],
        [t("A", 1, 2, "x+1", "x=1", "x+2", "x=1,2")],
        [t("A", 1, 9, "x+1", "y+1"), t("B", 2, 8, "x=", "y=")],
        [t("A", 1, 9, "x=", "x+1"), t("B", 2, 8, "x=1", "x+2"), t("C", 10, 11, "x=1,2")],
    ],
)
def test_allows(history: list[Transaction]) -> None:
    assert find_anomaly(history) is None


def test_a_load_that_appends_an_element_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a second time"):
        find_anomaly([t("A", 1, 2, "x+1"), t("B", 3, 4, "x+1")])


def test_a_chain_of_thousands_is_no_recursion() -> None:
    lists: dict[bytes, tuple[bytes, ...]] = defaultdict(tuple)
    history = []
    for i in range(3000):
        key = b"%d" % (i // 10)
        history.append(Transaction(f"T{i}", 2 * i, 2 * i + 1, (Read(key, lists[key]), Append(key, b"%d" % i))))
        lists[key] += (b"%d" % i,)
    assert find_anomaly(history) is None
    late = Transaction("late", 10**6, 10**6 + 1, (Read(b"0", ()),))
    anomaly = find_anomaly([*history, late])
    assert anomaly is not None and anomaly.kind == "stale read against real time"
