"""The key-value machine a second time, in the plainest way: the oracle that replies are compared with.

The state of a key is its value, or None. Nothing here is shared with `epaxos.machines.kv` but the replies of Redis
that both must give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from epaxos.testing.linearizability import Hints, Operation
from epaxos.testing.record import Form, Part

_OK = b"+OK\r\n"
_NIL = b"$-1\r\n"


def bulk(value: bytes | None) -> bytes:
    """A value as a reply."""
    return _NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def _integer(value: int) -> bytes:
    return b":%d\r\n" % value


def _array(replies: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(replies) + b"".join(replies)


def _value_of(reply: bytes) -> bytes:
    """The value in a reply that has one."""
    return reply[reply.index(b"\r\n") + 2 : -2]


class KvModel:
    """The `Model` of the key-value machine."""

    def step(self, state: Any, part: Part) -> tuple[bytes, Hashable]:
        """As `Model.step`."""
        verb, argument = part.verb, part.argument
        if verb == "get":
            return bulk(state), state
        if verb == "set":
            return _OK, argument
        if verb == "getset":
            return bulk(state), argument
        if verb == "setnx":
            return _integer(state is None), argument if state is None else state
        if verb == "del":
            return _integer(state is not None), None
        if verb == "exists":
            return _integer(state is not None), state
        if verb == "strlen":
            return _integer(len(state or b"")), state
        if verb in ("append", "append_get"):
            assert isinstance(argument, bytes)
            after = (state or b"") + argument
            return _integer(len(after)) if verb == "append" else bulk(after), after
        if verb == "incrby":
            assert isinstance(argument, int)
            total = int(state or b"0") + argument
            return _integer(total), b"%d" % total
        raise ValueError(f"the model has no {verb}")

    def compose(self, form: Form, replies: list[bytes]) -> bytes:
        """As `Model.compose`."""
        if form.verb == "mget":
            return _array(replies)
        if form.verb == "exec":
            pairs = zip(form.parts, replies, strict=True)
            lengths = [_integer(len(_value_of(reply))) for part, reply in pairs if part.verb == "append_get"]
            return _array([*lengths, _array(replies)])
        if form.verb == "mset":
            return _OK
        if form.verb in ("del", "exists"):
            return _integer(sum(int(reply[1:-2]) for reply in replies))
        (reply,) = replies
        return reply

    def project(self, form: Form, reply: bytes) -> list[bytes | None]:
        """As `Model.project`."""
        if form.verb == "mget":
            return list(self._elements(reply, len(form.parts)))
        if form.verb == "exec":
            appended = sum(part.verb == "append_get" for part in form.parts)
            return list(self._elements(self._elements(reply, appended + 1)[-1], len(form.parts)))
        if len(form.parts) == 1 or form.verb == "mset":
            return [reply for _ in form.parts]
        return [None for _ in form.parts]

    def _elements(self, array: bytes, count: int) -> list[bytes]:
        head, _, rest = array.partition(b"\r\n")
        if head != b"*%d" % count:
            raise ValueError(f"{array!r} is no array of {count} replies")
        return self.split(rest, count)

    def split(self, data: bytes, count: int) -> list[bytes]:
        """As `Model.split`: replies of Redis (RESP2)."""
        replies = []
        at = 0
        for _ in range(count):
            end = _end_of_reply(data, at)
            replies.append(data[at:end])
            at = end
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes behind {count} replies")
        return replies


def _end_of_reply(data: bytes, at: int) -> int:
    newline = data.find(b"\r\n", at)
    if newline < 0:
        raise ValueError(f"no reply at {at} of {data!r}")
    kind, head, end = data[at : at + 1], data[at + 1 : newline], newline + 2
    if kind in (b"+", b"-", b":"):
        return end
    if kind == b"$":
        return end if head == b"-1" else end + int(head) + 2
    if kind == b"*":
        for _ in range(int(head)):
            end = _end_of_reply(data, end)
        return end
    raise ValueError(f"{kind!r} begins no reply")


def hints(operations: Sequence[Operation]) -> Hints:
    """What shortens the search of the history of one key, whose values are unique."""
    verbs = {_part(op).verb for op in operations}
    if verbs <= {"get", "set", "getset"}:
        return Hints(viable=_always, needed=_needed(operations))
    return Hints(viable=_viable(operations))


def _needed(operations: Sequence[Operation]) -> dict[Hashable, int]:
    """For each value of a register: who read it. No value of a register comes back, since values are unique."""
    readers: dict[Hashable, int] = defaultdict(int)
    for position, op in enumerate(operations):
        if op.returned is not None and _part(op).verb in ("get", "getset"):
            readers[_value(op)] |= 1 << position
    return readers


def _viable(operations: Sequence[Operation]) -> Callable[[Any], bool]:
    """Which states of a key that is only appended to, or only incremented, can lead to what was read of it last.

    Commands of unknown outcome make the search exponential; on such keys the last read tells which of them were
    applied before it. It counts only if everything else that was answered had returned by then. Every state is
    viable on other keys.
    """
    verbs = {_part(op).verb for op in operations if not op.pure}
    settled = max((op.returned or 0 for op in operations if not op.pure), default=0)
    last = [op for op in operations if _part(op).verb == "get" and op.returned is not None and op.invoked > settled]
    if not verbs or not last:
        return _always
    values = [_value(op) or b"" for op in last]
    if verbs <= {"append", "append_get"}:
        return max(values, key=len).startswith
    if verbs == {"incrby"} and all(_powers_of_two(operations)):
        total = max(int(value) if value.isdigit() else 0 for value in values)
        return lambda state: int(state) & ~total == 0
    return _always


def unseen(operations: Sequence[Operation]) -> frozenset[int]:
    """The positions of operations that need no place: blind writes that nobody can have noticed.

    A SET of unknown outcome whose value no reply shows may be left out, unless some reply tells whether the key
    exists.
    """
    if any(_part(op).verb not in ("get", "getset", "set") for op in operations):
        return frozenset()
    seen = {op.result for op in operations if op.returned is not None}
    return frozenset(
        position
        for position, op in enumerate(operations)
        if op.returned is None and _part(op).verb == "set" and bulk(_argument(op)) not in seen
    )


def _always(state: Any) -> bool:
    return True


def _part(op: Operation) -> Part:
    assert isinstance(op.action, Part)
    return op.action


def _argument(op: Operation) -> bytes:
    argument = _part(op).argument
    assert isinstance(argument, bytes)
    return argument


def _value(op: Operation) -> bytes | None:
    """What was read. A reply that is no value stands for itself: no state is like it."""
    reply = op.result
    assert isinstance(reply, bytes)
    if reply == _NIL:
        return None
    return reply[reply.index(b"\r\n") + 2 : -2] if reply[:1] == b"$" else reply


def _powers_of_two(operations: Sequence[Operation]) -> list[bool]:
    amounts = [_part(op).argument for op in operations if not op.pure]
    found = [isinstance(amount, int) and amount > 0 and not amount & amount - 1 for amount in amounts]
    return [*found, len(set(amounts)) == len(amounts)]
