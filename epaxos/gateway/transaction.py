"""MULTI, EXEC and what belongs to them, between the parser of a connection and what is done with its items.

Commands behind MULTI are kept, and become one command of the state machine at EXEC (`machines/transactions.py`), so a
transaction is atomic across keys and sites. WATCH is a command as well: it marks the keys, and EXEC finds the marks or
does nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeGuard

from epaxos import replies
from epaxos.command import MAX_ENTRIES, READ, WHOLE, Command, Entry
from epaxos.errors import Rejected
from epaxos.gateway.commands import EXEC_MISCALLED, packed_bytes, too_large
from epaxos.gateway.items import Broken, Foreign, Item, Local, ParseLimits, Refused, Run, Step, Unheard
from epaxos.machines.kv import Op
from epaxos.machines.operations import pack_words
from epaxos.machines.transactions import WATCHER_BYTES, exec_command
from epaxos.packing import decode_run, encode_run

MAX_WATCHED: Final = 1024
"""The most keys that one connection watches."""
MAX_QUEUED: Final = MAX_ENTRIES - MAX_WATCHED - 1
"""The most keys of one transaction: with those that are watched it fits a run."""

_QUEUED: Final = Refused(replies.status(b"QUEUED"))
_OK: Final = Refused(replies.OK)
_NESTED: Final = Refused(replies.error(b"ERR MULTI calls can not be nested"))
_WATCH_INSIDE: Final = Refused(replies.error(b"ERR WATCH inside MULTI is not allowed"))
_ALONE_INSIDE: Final = Refused(replies.error(b"ERR Command not allowed inside a transaction"))
_EXEC_ALONE: Final = Refused(replies.error(b"ERR EXEC without MULTI"))
_DISCARD_ALONE: Final = Refused(replies.error(b"ERR DISCARD without MULTI"))
_ABORTED: Final = Refused(replies.error(b"EXECABORT Transaction discarded because of previous errors."))
_ALONE: Final = frozenset(
    {
        *(b"auth", b"hello", b"client setinfo", b"client setname", b"config resetstat"),
        *(b"epaxos call", b"epaxos resetstats", b"epaxos session"),
    }
)
"""What changes more than keys: it would do so even when EXEC does nothing."""
_NOBODY: Final = bytes(WATCHER_BYTES)


class Transactions:
    """The transactions of one connection, one after the other."""

    def __init__(self, secret: bytes, limits: ParseLimits, answer: Callable[[Local], bytes]) -> None:
        self._secret = secret
        self._limits = limits
        self._answer = answer
        self._queue: list[Command | Local | Refused] | None = None
        self._lost = False
        self._bytes = 0
        self._entries = 0
        self._watched: dict[bytes, None] = {}
        self._watcher = b""
        self._verbs: dict[bytes, Callable[[Local], list[Step]]] = {
            b"multi": self._multi,
            b"exec": self._exec,
            b"discard": self._discard,
            b"watch": self._watch,
            b"unwatch": self._unwatch,
            b"reset": lambda item: [*self.forget(), item],
        }

    def take(self, item: Item) -> Sequence[Step]:
        """What is to be done instead of `item`."""
        if isinstance(item, Local):
            name = item.args[0].lower()
            verb = self._verbs.get(name)
            if verb is not None and not (name == b"unwatch" and self._queue is not None):
                return verb(item)
            if self._queue is None or name == b"quit":
                return (item,)
            if name in _ALONE or b" ".join(word.lower() for word in item.args[:2]) in _ALONE:
                self._lost = True
                return (_ALONE_INSIDE,)
            return (self._keep(item),)
        if self._queue is None or isinstance(item, Broken | Foreign):
            return (item,)
        if isinstance(item, Run):
            return [self._keep(command) for command in decode_run(item.run)]
        if item is EXEC_MISCALLED:
            return [*self.forget(), item]
        if item.fatal:
            self._lost = True
            return (item,)
        return (self._keep(item),)

    def forget(self) -> list[Step]:
        """The connection begins anew, or ends: neither a transaction nor watched keys are left."""
        self._queue = None
        keys, watcher = list(self._watched), self._watcher
        self._watched.clear()
        if not keys:
            return []
        return [Unheard(encode_run(self._secret, [_marking(Op.UNWATCH, keys, watcher)]))]

    # -- the verbs

    def _multi(self, item: Local) -> list[Step]:
        if self._queue is not None:
            return [_NESTED]
        self._queue, self._lost, self._bytes, self._entries = [], False, 0, 0
        return [_OK]

    def _exec(self, item: Local) -> list[Step]:
        queue = self._queue
        if queue is None:
            return [_EXEC_ALONE]
        if self._lost:
            return [*self.forget(), _ABORTED]
        first = next((each[0] for each in queue if _is_command(each)), None)
        if not self._watched and first is None:
            self._queue = None
            return [Refused(replies.array(map(self._literal, queue)))]
        watched = list(self._watched)
        # A reply that is known already takes the key of something else in the transaction: it touches nothing more.
        if watched or first is None:
            place = Entry(Op.SAY, READ, watched[0], b"")
        else:
            place = Entry(Op.SAY, READ | first.flags & WHOLE, first.key, b"")
        commands = [
            each if _is_command(each) else (place._replace(payload=pack_words([self._literal(each)])),)
            for each in queue
        ]
        command = exec_command(Op.EXEC, Op.WATCH, self._watcher if watched else _NOBODY, watched, commands)
        if refused := too_large(command, self._limits):
            return [*self.forget(), refused]
        self._queue = None
        self._watched.clear()
        return [Run(encode_run(self._secret, [command]), 1)]

    def _discard(self, item: Local) -> list[Step]:
        return [_DISCARD_ALONE] if self._queue is None else [*self.forget(), _OK]

    def _watch(self, item: Local) -> list[Step]:
        if self._queue is not None:
            return [_WATCH_INSIDE]
        keys = [key for key in dict.fromkeys(item.args[1:]) if key not in self._watched]
        if not keys:
            return [_OK]
        if len(self._watched) + len(keys) > MAX_WATCHED:
            return [Refused(replies.failure(Rejected("too_large", f"{MAX_WATCHED} keys are watched at most")))]
        if not self._watched:
            self._watcher = secrets.token_bytes(WATCHER_BYTES)
        command = _marking(Op.WATCH, keys, self._watcher)
        if refused := too_large(command, self._limits):
            return [refused]
        self._watched |= dict.fromkeys(keys)
        return [Run(encode_run(self._secret, [command]), 1)]

    def _unwatch(self, item: Local) -> list[Step]:
        return [*self.forget(), _OK]

    # -- the queue

    def _keep(self, item: Command | Local | Refused) -> Step:
        """Queue it, unless the queue is as large as a transaction may be."""
        assert self._queue is not None
        self._bytes += len(item.reply) if isinstance(item, Refused) else _size(item)
        self._entries += 1 if isinstance(item, Local | Refused) else len(item)
        if self._bytes > self._limits.run_bytes or self._entries > MAX_QUEUED:
            self._lost = True
            self._queue.clear()
            detail = f"a transaction of more than {self._limits.run_bytes} bytes or {MAX_QUEUED} keys"
            return Refused(replies.failure(Rejected("too_large", detail)))
        self._queue.append(item)
        return _QUEUED

    def _literal(self, item: Command | Local | Refused) -> bytes:
        """The reply of what needs no state."""
        if isinstance(item, Refused):
            return item.reply
        assert isinstance(item, Local)
        return replies.OK if item.args[0].lower() == b"unwatch" else self._answer(item)


def _is_command(item: Command | Local | Refused) -> TypeGuard[Command]:
    return not isinstance(item, Local | Refused)


def _size(item: Command | Local) -> int:
    return sum(map(len, item.args)) if isinstance(item, Local) else packed_bytes(item)


def _marking(op: int, keys: Sequence[bytes], watcher: bytes) -> Command:
    """WATCH or UNWATCH."""
    return tuple(Entry(op, 0, key, b"" if i else pack_words([watcher])) for i, key in enumerate(keys))
