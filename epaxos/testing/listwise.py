"""Histories of commands on keys to which they append: what the cycle checker is given of them.

The elements are `<…>`, one behind the other, and no two of a history are alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from epaxos.testing.cycles import Anomaly, Append, Read, Transaction, find_anomaly
from epaxos.testing.keyed import Observed
from epaxos.testing.record import Part


def judge_lists(history: Iterable[Observed]) -> Anomaly | None:
    """Is what the commands say of all lists together strictly serializable? None: it is."""
    observed = list(history)
    lists = {part.key for one in observed for part in one.parts if "append" in part.verb}
    transactions = []
    for one in observed:
        steps: list[Append | Read] = []
        for part, result in zip(one.parts, one.results, strict=True):
            if part.key in lists:
                steps += _steps(part, result)
        if steps:
            transactions.append(Transaction(one.name, one.invoked, one.returned, tuple(steps)))
    return find_anomaly(transactions)


def _steps(part: Part, reply: bytes | None) -> list[Append | Read]:
    steps: list[Append | Read] = []
    if "append" in part.verb:
        assert isinstance(part.argument, bytes)
        steps.append(Append(part.key, part.argument))
    if part.verb in ("get", "append_get"):
        steps.append(Read(part.key, None if reply is None else _elements(reply)))
    return steps


def _elements(reply: bytes) -> tuple[bytes, ...]:
    """The elements of a list that was read; what is none stands for itself, and nobody appended it."""
    value = b"" if reply == b"$-1\r\n" else reply
    if reply[:1] == b"$" and value:
        value = reply[reply.index(b"\r\n") + 2 : -2]
    return tuple(value.replace(b"><", b">\x00<").split(b"\x00")) if value else ()
