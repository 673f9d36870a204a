"""Histories of commands on several keys, judged key by key.

Linearizability is local (Herlihy and Wing): a history is linearizable if and only if what it says of each key is. Of
a command on several keys, each key's history has its part; that the parts took effect together is for other checkers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from epaxos.testing.cycles import Anomaly
from epaxos.testing.kvmodel import KvModel, hints, unseen
from epaxos.testing.linearizability import Operation, Verdict, check
from epaxos.testing.record import Part

_MODEL = KvModel()


class Observed(NamedTuple):
    """One command as its client saw it. Times are of any unit; no two of a history are equal."""

    name: str
    invoked: int
    returned: int | None
    """None: the outcome is unknown."""
    parts: Sequence[Part]
    results: Sequence[bytes | None]
    """The reply to each part, as far as the reply tells."""
    pure: bool
    place: int | None = None
    """Where it stands in the order of execution, if somebody claims to know that: the order that is tried first."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the checker found."""

    keys: int
    broken: Mapping[bytes, Sequence[Operation]] = field(default_factory=dict)
    """Of each key whose history is not linearizable: its shortest beginning that is not, by the time of return."""
    undecided: Sequence[bytes] = ()
    """Keys whose history was too entangled to be judged."""
    anomaly: Anomaly | None = None
    """What commands on several keys say together that no order explains, where that was judged."""

    @property
    def sound(self) -> bool:
        """Nothing was found."""
        return not self.broken and self.anomaly is None


def judge(history: Iterable[Observed]) -> Judgement:
    """Is the history of every key linearizable? What was certainly not applied is no part of it."""
    histories: dict[bytes, list[Operation]] = defaultdict(list)
    for one in history:
        for part, result in zip(one.parts, one.results, strict=True):
            histories[part.key].append(Operation(one.invoked, one.returned, part, result, one.pure, one.place))
    verdicts = {key: judge_key(operations) for key, operations in histories.items()}
    return Judgement(
        keys=len(histories),
        broken={key: shortest(histories[key]) for key, verdict in verdicts.items() if verdict is Verdict.BROKEN},
        undecided=[key for key, verdict in verdicts.items() if verdict is Verdict.UNDECIDED],
    )


def judge_key(history: Sequence[Operation]) -> Verdict:
    """The history of one key, whose values are unique; the action of each operation is its `Part`."""
    unnoticed = unseen(history)
    useful = [op for position, op in enumerate(history) if position not in unnoticed]
    return check(useful, None, _step, hints(useful))


def shortest(history: Sequence[Operation]) -> list[Operation]:
    """The shortest beginning of a broken history that is broken: the last operation to return is the one too many.

    What is under way at the end of a beginning is of unknown outcome there, so a beginning of a linearizable history
    is linearizable, and the search may halve.
    """
    returns = sorted(op.returned for op in history if op.returned is not None)
    low, high = 0, len(returns) - 1
    while low < high:
        middle = (low + high) // 2
        if judge_key(_until(history, returns[middle])) is Verdict.BROKEN:
            high = middle
        else:
            low = middle + 1
    return sorted(_until(history, returns[low]), key=lambda op: op.invoked if op.returned is None else op.returned)


def _until(history: Sequence[Operation], end: int) -> list[Operation]:
    begun = [op for op in history if op.invoked < end]
    return [
        op if op.returned is None or op.returned <= end else op._replace(returned=None, result=None) for op in begun
    ]


def _step(state: Any, operation: Operation) -> tuple[bool, Hashable]:
    assert isinstance(operation.action, Part)
    reply, after = _MODEL.step(state, operation.action)
    return operation.result is None or operation.result == reply, after
