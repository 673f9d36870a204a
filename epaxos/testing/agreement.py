"""Do the replicas of a cluster by hand agree? What was decided, in which order it ran, and what state that gave."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import combinations
from typing import TypeVar

from epaxos.command import HEADER, NOP, Batch
from epaxos.ids import InstanceId, ReplicaId, covers
from epaxos.machines.saved import load_records
from epaxos.machines.store import Value
from epaxos.packing import conflicting
from epaxos.protocols.interface import Order
from epaxos.testing.narrator import Narrator

_K = TypeVar("_K", bound=Hashable)


def report(told: Narrator) -> list[str]:
    """Decisions, orders and states, a line each, and at the end what is wrong with them, or `agreed`."""
    wrong = [*_two_decisions(told), *_unordered(told), *_two_orders(told)]
    return [*_decisions(told), *_orders(told), *_states(told), *(wrong or ["agreed"])]


def _decisions(told: Narrator) -> Iterator[str]:
    words, n = told.words, told.cluster.n
    for id_, values in sorted(told.cluster.decided.items()):
        for (payload, order), sites in values.items():
            where = f"at {words.replicas(sites)}"
            rest = set(range(n)) - {site for sites in values.values() for site in sites}
            unknown = f", not at {words.replicas(rest)}" if rest else ""
            yield f"{words.id(id_)} is {words.payload(payload)}{_order(told, order)} {where}{unknown}"


def _order(told: Narrator, order: Order) -> str:
    return "" if isinstance(order, int) else f" dep={told.words.vector(order)}"


def _grouped(told: Narrator, value: Callable[[ReplicaId], _K]) -> dict[_K, list[ReplicaId]]:
    """The replicas that are up, by a value."""
    found: dict[_K, list[ReplicaId]] = {}
    for i, site in enumerate(told.cluster.sites):
        if site.up:
            found.setdefault(value(i), []).append(i)
    return found


def _ran(told: Narrator, i: ReplicaId) -> tuple[InstanceId, ...]:
    return tuple(id_ for group in told.cluster.sites[i].groups for id_ in group)


def _orders(told: Narrator) -> Iterator[str]:
    for ids, sites in _grouped(told, lambda i: _ran(told, i)).items():
        yield f"order {' '.join(map(told.words.id, ids)) or '(nothing)'} at {told.words.replicas(sites)}"


def _shown(value: Value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _states(told: Narrator) -> Iterator[str]:
    def state(i: ReplicaId) -> str:
        values, _ = load_records(told.cluster.sites[i].machine.save())
        return " ".join(f"{key.decode()}={_shown(value)}" for key, value in sorted(values.items())) or "(empty)"

    for text, sites in _grouped(told, state).items():
        yield f"state {text} at {told.words.replicas(sites)}"


# ------------------------------------------------------------------------------------------------------ what is wrong


def _two_decisions(told: Narrator) -> Iterator[str]:
    for id_, values in sorted(told.cluster.decided.items()):
        if len(values) > 1:
            yield f"WRONG: {told.words.id(id_)} was decided in {len(values)} ways"


def _conflict(told: Narrator, a: InstanceId, b: InstanceId) -> bool:
    (x, _), (y, _) = next(iter(told.cluster.decided[a])), next(iter(told.cluster.decided[b]))
    if not isinstance(x, Batch) or not isinstance(y, Batch):
        return False
    return conflicting(x.data, y.data, HEADER.size, HEADER.size)


def _unordered(told: Narrator) -> Iterator[str]:
    """Of two decided ids that conflict, one is among the dependencies of the other."""
    decided = sorted(told.cluster.decided.items())
    for (a, a_values), (b, b_values) in combinations(decided, 2):
        for x, x_order in a_values:
            for y, y_order in b_values:
                if x is NOP or y is NOP or isinstance(x_order, int) or isinstance(y_order, int):
                    continue
                if not covers(x_order, b) and not covers(y_order, a) and _conflict(told, a, b):
                    yield f"WRONG: {told.words.id(a)} and {told.words.id(b)} conflict, and neither depends on the other"


def _two_orders(told: Narrator) -> Iterator[str]:
    """Conflicting ids run in one order everywhere."""
    places = {i: {id_: at for at, id_ in enumerate(_ran(told, i))} for i in range(told.cluster.n)}
    for a, b in combinations(sorted(told.cluster.decided), 2):
        orders = {at[a] < at[b] for at in places.values() if a in at and b in at}
        if len(orders) > 1 and _conflict(told, a, b):
            yield f"WRONG: {told.words.id(a)} and {told.words.id(b)} ran in both orders"
