"""Are commands on several keys strictly serializable? The cycles of their dependencies, after Adya, and after Elle.

The values are lists to which commands append elements, no two of them alike, so that what a command reads of a key
tells the order of everything appended to it so far (Kingsbury and Alvaro, VLDB 2020). From that follow, for each key:

- ww: of two elements that stand side by side, the one in front was appended first;
- wr: who reads a list came after whoever appended its last element;
- rw: who reads a list came before whoever appended the next element.

Together with real time (who returned before another was invoked came first), a cycle is what no order explains. There
is none exactly if there is an order: elements that nobody read were appended after all those that somebody did, and a
command of unknown outcome of which nobody saw anything may be left out.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple


class Append(NamedTuple):
    """Put an element, which nothing else appends, at the end of the list at `key`."""

    key: bytes
    element: bytes


class Read(NamedTuple):
    """What the command saw at `key`; None when it had no answer."""

    key: bytes
    elements: tuple[bytes, ...] | None


class Transaction(NamedTuple):
    """A command that takes its steps at one moment. Times are of any unit; no two of a history are equal."""

    name: str
    invoked: int
    returned: int | None
    """None: the outcome is unknown, and what its reads saw with it."""
    steps: tuple[Append | Read, ...]


class Anomaly(NamedTuple):
    """Why a history cannot be."""

    kind: str
    """In a word or two: what kind of thing went wrong."""
    text: str
    """Which commands, which elements, for people."""


def find_anomaly(history: Sequence[Transaction]) -> Anomaly | None:
    """The first thing found that no order of the commands explains, or None when there is an order.

    Raises ValueError when an element is appended twice: then the load is wrong, and nothing can be told.
    """
    try:
        versions = _versions(history)
    except _Impossible as impossible:
        return impossible.anomaly
    edges = _dependencies(history, versions)
    graph = {at: list(followers) for at, followers in edges.items()}
    for first, second in _real_time(history, edges):
        graph.setdefault(first, []).append(second)
        graph.setdefault(second, [])
    component = _entangled(len(history), graph)
    return _explain(history, edges, graph, component) if component else None


# ------------------------------------------------------------------------------------------- the order of each list


class _Impossible(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.anomaly = Anomaly(kind, text)


class _Versions(NamedTuple):
    """What the reads of all commands say of the lists."""

    writer: dict[Append, int]
    """Who appended it: a position in the history."""
    order: dict[bytes, tuple[bytes, ...]]
    """The longest that anybody read of each key."""
    reads: dict[tuple[int, bytes], int]
    """(who, key) -> how many elements there were before its own."""


def _versions(history: Sequence[Transaction]) -> _Versions:
    writer: dict[Append, int] = {}
    for at, one in enumerate(history):
        for step in one.steps:
            if isinstance(step, Append):
                if step in writer:
                    raise ValueError(f"{one.name} appends {step.element!r} to {step.key!r} a second time")
                writer[step] = at
    reads: dict[tuple[int, bytes], int] = {}
    seen: dict[bytes, list[tuple[tuple[bytes, ...], Transaction]]] = defaultdict(list)
    for at, one in enumerate(history):
        for read, own in _answered(one):
            before = _before_own(one, read, own)
            if reads.setdefault((at, read.key), before) != before:
                raise _Impossible("unrepeatable read", f"{one.name} read {_list(read)} and something else before")
            assert read.elements is not None
            seen[read.key].append((read.elements, one))
            for element in read.elements:
                if Append(read.key, element) not in writer:
                    raise _Impossible("element from nowhere", f"{one.name} read {_list(read)}: {element!r} is nobody's")
    order = {key: _longest(key, lists) for key, lists in seen.items()}
    _check_own_orders(history, order)
    return _Versions(writer, order, reads)


def _answered(one: Transaction) -> Iterator[tuple[Read, list[bytes]]]:
    """The reads that have an answer, each with what the command itself had appended to that key by then."""
    own: dict[bytes, list[bytes]] = defaultdict(list)
    for step in one.steps:
        if isinstance(step, Append):
            own[step.key].append(step.element)
        elif step.elements is not None:
            yield step, own[step.key]


def _before_own(one: Transaction, read: Read, own: list[bytes]) -> int:
    """How many elements of what it read were there before its own."""
    assert read.elements is not None
    before = len(read.elements) - len(own)
    if list(read.elements[max(0, before) :]) != own:
        raise _Impossible("own append lost", f"{one.name} had appended {own!r}, and then read {_list(read)}")
    if len(set(read.elements)) != len(read.elements):
        raise _Impossible("appended twice", f"{one.name} read {_list(read)}: an element stands there twice")
    later = {step.element for step in one.steps if isinstance(step, Append) and step.key == read.key}
    if later.intersection(read.elements[:before]):
        raise _Impossible("future read", f"{one.name} read {_list(read)} before it appended that itself")
    return before


def _longest(key: bytes, lists: list[tuple[tuple[bytes, ...], Transaction]]) -> tuple[bytes, ...]:
    longest, by = max(lists, key=lambda each: len(each[0]))
    for elements, one in lists:
        if longest[: len(elements)] != elements:
            mine, other = _list(Read(key, elements)), _list(Read(key, longest))
            raise _Impossible("two orders", f"{one.name} read {mine}, but {by.name} read {other}")
    return longest


def _check_own_orders(history: Sequence[Transaction], order: dict[bytes, tuple[bytes, ...]]) -> None:
    """What one command appends to a list stands there in the order of its steps, and none of it is left out."""
    place = {Append(key, element): at for key, elements in order.items() for at, element in enumerate(elements)}
    for one in history:
        last: dict[bytes, float] = {}
        for step in one.steps:
            if isinstance(step, Append):
                at = place.get(step, math.inf)  # unread: behind everything that was read
                if at < last.get(step.key, -1):
                    seen = _list(Read(step.key, order[step.key]))
                    raise _Impossible(
                        "steps out of order", f"{one.name} is {_described(one)}, but somebody read {seen}"
                    )
                last[step.key] = at


# ----------------------------------------------------------------------------------------------------- who was first


class _Kind(enum.IntEnum):
    """The kinds of reasons; of several for one pair, the first is kept."""

    WW = 0
    WR = 1
    RW = 2
    TIME = 3


class _Edge(NamedTuple):
    """Why one command came before another."""

    kind: _Kind
    key: bytes = b""
    element: bytes = b""
    behind: bytes = b""


_Edges = dict[int, dict[int, _Edge]]


def _dependencies(history: Sequence[Transaction], versions: _Versions) -> _Edges:
    edges: _Edges = {at: {} for at in _happened(history, versions)}
    at_length: dict[bytes, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for (reader, key), count in versions.reads.items():
        at_length[key][count].append(reader)
    unread: dict[bytes, list[Append]] = defaultdict(list)
    for append, at in versions.writer.items():
        if at in edges and append.element not in versions.order.get(append.key, ()):
            unread[append.key].append(append)

    def add(first: int, second: int, edge: _Edge) -> None:
        known = edges[first].get(second, edge)
        if first != second and edge.kind <= known.kind:
            edges[first][second] = edge

    for key in {append.key for append in versions.writer}:
        elements = versions.order.get(key, ())
        writers = [versions.writer[Append(key, element)] for element in elements]
        for place, (element, writer) in enumerate(zip(elements, writers, strict=True)):
            for reader in at_length[key][place]:
                add(reader, writer, _Edge(_Kind.RW, key, element))
            if place:
                add(writers[place - 1], writer, _Edge(_Kind.WW, key, element, elements[place - 1]))
            for reader in at_length[key][place + 1]:
                add(writer, reader, _Edge(_Kind.WR, key, element))
        for append in unread[key]:
            second = versions.writer[append]
            if writers:
                add(writers[-1], second, _Edge(_Kind.WW, key, append.element, elements[-1]))
            for reader in at_length[key][len(elements)]:
                add(reader, second, _Edge(_Kind.RW, key, append.element))
    return edges


def _happened(history: Sequence[Transaction], versions: _Versions) -> Iterator[int]:
    """Who certainly took effect: who returned, and of whom somebody read an element."""
    noticed = {versions.writer[Append(key, each)] for key, elements in versions.order.items() for each in elements}
    return (at for at, one in enumerate(history) if one.returned is not None or at in noticed)


def _real_time(history: Sequence[Transaction], happened: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Edges through moments, which are numbered behind the commands: fewer than one for every pair."""
    moments: list[tuple[int, int, bool]] = []
    for at in happened:
        returned = history[at].returned
        moments.append((history[at].invoked, at, False))
        if returned is not None:
            moments.append((returned, at, True))
    moment = len(history)
    for _, at, returns in sorted(moments):
        if returns:
            yield at, moment + 1
            yield moment, moment + 1
            moment += 1
        else:
            yield moment, at


_Graph = dict[int, list[int]]
"""Who follows whom: commands, and moments, which are numbered from the number of commands on."""


def _entangled(count: int, graph: _Graph) -> list[int]:
    """The commands of one strongly connected component that has several, the smallest; none when there is no cycle.

    Tarjan's search, with a stack of its own. Moments by themselves are in no cycle.
    """
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in graph:
        if root in number:
            continue
        work = [(root, iter(graph[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for follower in rest:
                if follower not in number:
                    number[follower] = low[follower] = len(number)
                    stack.append(follower)
                    on_stack.add(follower)
                    work.append((follower, iter(graph[follower])))
                    break
                if follower in on_stack:
                    low[node] = min(low[node], number[follower])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = [stack.pop()]
                    while component[-1] != node:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    found.append(sorted(each for each in component if each < count))
    return min((each for each in found if len(each) > 1), key=len, default=[])


# ---------------------------------------------------------------------------------------------------- for people


_ROOTS_MAX: Final = 50
"""From so many commands of a component, a short cycle is looked for."""


def _explain(history: Sequence[Transaction], edges: _Edges, graph: _Graph, component: list[int]) -> Anomaly:
    cycles = (_shortest_through(root, graph, len(history)) for root in component[:_ROOTS_MAX])
    cycle = min(cycles, key=len)
    steps = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    why = [edges[first].get(second, _Edge(_Kind.TIME)) for first, second in steps]
    lines = [f"{len(cycle)} commands that no order explains:"]
    for (first, second), edge in zip(steps, why, strict=True):
        lines.append(f"  {_because(history[first].name, history[second].name, edge)}")
    lines += [f"{history[at].name}: {_described(history[at])}" for at in cycle]
    return Anomaly(_kind([edge.kind for edge in why]), "\n".join(lines))


def _shortest_through(root: int, graph: _Graph, count: int) -> list[int]:
    """The cycle of the fewest commands through `root`, which is in one. Moments cost nothing."""
    came: dict[int, int] = {}
    queue = deque([(root, root)])
    while True:
        node, before = queue.popleft()
        if node in came:
            continue
        if node != root:
            came[node] = before
        for follower in graph[node]:
            if follower == root:
                path = [node]
                while path[-1] != root:
                    path.append(came[path[-1]])
                return [each for each in reversed(path) if each < count]
            if follower not in came:
                (queue.append if follower < count else queue.appendleft)((follower, node))


def _kind(kinds: list[_Kind]) -> str:
    """Adya's names for cycles, in words."""
    skews = kinds.count(_Kind.RW)
    if skews > 1:
        name = "write skew"
    elif skews:
        name = "stale read"
    else:
        name = "circular reads" if _Kind.WR in kinds else "dirty order"
    return f"{name} against real time" if _Kind.TIME in kinds else name


def _because(first: str, second: str, edge: _Edge) -> str:
    key, element = _text(edge.key), _text(edge.element)
    if edge.kind is _Kind.TIME:
        return f"{first} returned before {second} was invoked"
    if edge.kind is _Kind.WW:
        return f"{first} appended {_text(edge.behind)} to {key}, and {second} {element} behind it"
    if edge.kind is _Kind.WR:
        return f"{first} appended {element} to {key}, and {second} read it"
    return f"{first} read {key} without {element}, which {second} appended"


def _described(one: Transaction) -> str:
    steps = [
        _list(step) if isinstance(step, Read) else f"{_text(step.key)} += {_text(step.element)}" for step in one.steps
    ]
    until = "unknown" if one.returned is None else str(one.returned)
    return f"{', '.join(steps)}  ({one.invoked} .. {until})"


def _list(read: Read) -> str:
    shown = "?" if read.elements is None else " ".join(map(_text, read.elements))
    return f"{_text(read.key)} = [{shown}]"


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
