"""EXEC, WATCH and UNWATCH: several commands as one, if nothing that was watched has changed.

EXEC is one command of many entries, so one footprint and one place in the order: first an entry of its own, whose
payload says how the others belong together, then one entry for every watched key, then the entries of every queued
command. The key of the first entry is that of the second, so that it adds nothing to what the command touches.

A connection that watches a key leaves a mark on it, under a name that nobody else has (16 random bytes). Whatever
changes the key takes all its marks away. EXEC runs its commands when it finds its marks on every key that it watches,
and removes them in any case; so a command in between, from any site, is never overlooked, nor a value that was changed
and changed back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from epaxos import replies
from epaxos.command import READ, WHOLE, Command, Entry
from epaxos.machines.operations import MALFORMED, Call
from epaxos.machines.store import Store

WATCHER_BYTES: Final = 16
"""The length of the name of who watches."""

_COUNT: Final = struct.Struct("<I")
Run = Callable[[Command], bytes]


def exec_command(
    op: int, watch_op: int, watcher: bytes, watched: Sequence[bytes], queued: Sequence[Command]
) -> Command:
    """The one command that runs all of `queued` if `watcher` still watches all of `watched`; not both are empty."""
    entries = [Entry(watch_op, 0, key, b"") for key in watched]
    for command in queued:
        entries += command
    payload = watcher + b"".join(_COUNT.pack(count) for count in (len(watched), *map(len, queued)))
    first = entries[0]
    return (Entry(op, READ | first.flags & WHOLE, first.key, payload), *entries)


def execute(store: Store, command: Command, run: Run, refused: Sequence[int]) -> bytes:
    """EXEC: the replies of its commands, each run by `run`; nothing when what was watched has changed.

    An operation in `refused` does not stand inside another.
    """
    payload = command[0].payload
    if len(payload) < WATCHER_BYTES + _COUNT.size or (len(payload) - WATCHER_BYTES) % _COUNT.size:
        return MALFORMED
    counts = [int(count) for (count,) in _COUNT.iter_unpack(payload[WATCHER_BYTES:])]
    if sum(counts) != len(command) - 1 or not all(counts[1:]) or any(each.op in refused for each in command[1:]):
        return MALFORMED
    watched, rest = command[1 : 1 + counts[0]], command[1 + counts[0] :]
    kept = [store.unmark(key, payload[:WATCHER_BYTES]) for key in dict.fromkeys(entry.key for entry in watched)]
    if not all(kept):
        return replies.NIL_ARRAY
    answers, at = [], 0
    for count in counts[1:]:
        answers.append(run(rest[at : at + count]))
        at += count
    return replies.array(answers)


def watch(call: Call) -> bytes:
    """WATCH: leave marks."""
    for key in call.keys:
        call.store.mark(key, call.words[0])
    return replies.OK


def unwatch(call: Call) -> bytes:
    """UNWATCH: take them away."""
    for key in call.keys:
        call.store.unmark(key, call.words[0])
    return replies.OK


def say(call: Call) -> bytes:
    """The reply that the command brings along: of a queued command that needs no state."""
    return call.words[0]
