"""Histories of real clients: what was asked of a running cluster when, what came of it, and whether that can be.

    history, load = History(), Load(Random(7), readers=3)
    await history.call("client 1 at CA", load.next(), kv.execute)  # by any number of clients at once, again and again
    for action in load.survey():
        await history.call("reader at CA", action, kv.execute)     # at each replica, at the end
    judgement = history.judge()
    assert judgement.sound, history.explain(judgement)

The recorder knows nothing of connections: `execute` is `epaxos.Client.execute` or anything that sends the words of a
command and returns the reply. The load keeps what the checker needs: unique values, and keys that are given up for
fresh ones before their history becomes too long to be judged.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Final, NamedTuple

from epaxos.client import ResponseError
from epaxos.errors import Rejected, Unknown
from epaxos.testing.forks import chance, pick
from epaxos.testing.keyed import Judgement, Observed, judge
from epaxos.testing.kvmodel import bulk
from epaxos.testing.linearizability import Operation
from epaxos.testing.listwise import judge_lists
from epaxos.testing.record import Outcome, Part

KEY_OPERATIONS_MAX: Final = 200
"""On one key, all together; beyond that, its history may be too long to be judged."""
KEY_INCREMENTS_MAX: Final = 60
"""On one counter: its increments are different powers of two, so that its value tells which of them it counted."""
OPERATIONS_MAX: Final = 2_000_000
"""Of one history, which is kept in memory."""

Reply = bytes | int | None | list["Reply"]
Execute = Callable[..., Awaitable[Reply]]
"""Sends the words of one command (bytes) and returns the reply.

It raises Rejected or ResponseError when the command was certainly not applied. Anything else that it raises means
that nobody knows.
"""


class Action(NamedTuple):
    """A command in the words of Redis, and what it does to each of its keys."""

    words: tuple[bytes, ...]
    parts: tuple[Part, ...]
    pure: bool
    """It only reads."""

    @property
    def verb(self) -> str:
        """The command's name, in small letters."""
        return self.words[0].decode().lower()


@dataclass(slots=True, eq=False)
class Entry:
    """One command of one client, with its fate. Times in nanoseconds of the monotonic clock; no two are equal."""

    client: str
    action: Action
    invoked_ns: int
    returned_ns: int | None = None
    """None as long as it is under way; of an unknown outcome, the moment at which the client stopped waiting."""
    outcome: Outcome = Outcome.OPEN
    reply: Reply = None

    def done(self, reply: Reply) -> None:
        """The reply is here."""
        self.outcome, self.reply = Outcome.DONE, reply

    def rejected(self) -> None:
        """It was certainly not applied."""
        self.outcome = Outcome.REJECTED


class History:
    """The commands of all clients of one process, in the order in which they were issued.

    `clock_ns` never runs backwards. The clients are tasks of one thread: nothing here is locked.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.entries: list[Entry] = []
        self._clock_ns = clock_ns
        self._last_ns = 0

    @contextmanager
    def recording(self, client: str, action: Action) -> Iterator[Entry]:
        """The block sends the command and says what came of it: `entry.done(reply)` or `entry.rejected()`.

        A block that says neither, or is left by an exception other than Rejected and ResponseError, leaves the outcome
        unknown; the exception goes on. Raises ValueError when the history is full.
        """
        if len(self.entries) == OPERATIONS_MAX:
            raise ValueError(f"a history holds {OPERATIONS_MAX} operations")
        entry = Entry(client, action, self._tick())
        self.entries.append(entry)
        try:
            yield entry
        except (Rejected, ResponseError):
            entry.rejected()
            raise
        except BaseException:
            entry.outcome = Outcome.UNKNOWN  # whatever it said before
            raise
        finally:
            if entry.outcome is Outcome.OPEN:
                entry.outcome = Outcome.UNKNOWN
            entry.returned_ns = self._tick()

    async def call(self, client: str, action: Action, execute: Execute) -> Outcome:
        """Send one command and record what came of it.

        Errors that are answers (Rejected, ResponseError, Unknown) are in the outcome; any other error of `execute`,
        such as a lost connection, is recorded as unknown and raised.
        """
        try:
            with self.recording(client, action) as entry:
                entry.done(await execute(*action.words))
        except (Rejected, ResponseError, Unknown):
            pass
        return entry.outcome

    def counts(self) -> dict[Outcome, int]:
        """How many commands had which outcome."""
        return {outcome: sum(entry.outcome is outcome for entry in self.entries) for outcome in Outcome}

    def observed(self) -> Iterator[Observed]:
        """The history as checkers take it: without what was certainly not applied."""
        for entry in self.entries:
            if entry.outcome is not Outcome.REJECTED:
                done = entry.outcome is Outcome.DONE
                results = _results(entry.action, entry.reply) if done else [None] * len(entry.action.parts)
                returned = entry.returned_ns if done else None
                yield Observed(
                    self._name(entry), entry.invoked_ns, returned, entry.action.parts, results, entry.action.pure
                )

    def judge(self) -> Judgement:
        """Is the history of every key linearizable, and that of all lists together strictly serializable?"""
        observed = list(self.observed())
        return replace(judge(observed), anomaly=judge_lists(observed))

    def explain(self, judgement: Judgement, last: int = 12) -> str:
        """For people: the last operations on each broken key, up to the first whose result cannot be."""
        clients = {entry.invoked_ns: entry.client for entry in self.entries}
        paragraphs = []
        for key, operations in judgement.broken.items():
            lines = [f"the history of {key.decode(errors='replace')} is not linearizable; its last operations:"]
            zero_ns = min(op.invoked for op in operations)
            lines += [_line(op, clients[op.invoked], zero_ns) for op in operations[-last:]]
            paragraphs.append("\n".join(lines))
        if judgement.anomaly is not None:
            paragraphs.append(f"{judgement.anomaly.kind}: {judgement.anomaly.text}")
        return "\n".join(paragraphs) or f"{judgement.keys} keys are linearizable"

    def _name(self, entry: Entry) -> str:
        since_ms = (entry.invoked_ns - self.entries[0].invoked_ns) / 1e6
        return f"{entry.action.verb} of {entry.client} at {since_ms:.3f} ms"

    def _tick(self) -> int:
        self._last_ns = max(self._last_ns + 1, self._clock_ns())
        return self._last_ns


def _line(op: Operation, client: str, zero_ns: int) -> str:
    assert isinstance(op.action, Part)
    until = "unknown" if op.returned is None else f"{(op.returned - zero_ns) / 1e6:.3f}"
    argument = "" if op.action.argument is None else f" {op.action.argument!r}"
    came = "" if op.result is None else f" -> {op.result!r}"
    return f"  {(op.invoked - zero_ns) / 1e6:.3f} .. {until} ms  {client}: {op.action.verb}{argument}{came}"


def _results(action: Action, reply: Reply) -> list[bytes | None]:
    """What the reply tells of each part, in the form in which the model gives it."""
    if action.verb == "mget":
        if not isinstance(reply, list) or len(reply) != len(action.parts):
            return [b"no answer: %r" % (reply,)] * len(action.parts)  # equal to no reply of the model
        return [_wire(action.verb, each) for each in reply]
    return [_wire(action.verb, reply)] * len(action.parts)


def _wire(verb: str, reply: Reply) -> bytes:
    if verb in ("set", "mset") and reply == b"OK":
        return b"+OK\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return bulk(reply) if reply is None or isinstance(reply, bytes) else b"no answer: %r" % (reply,)


# ------------------------------------------------------------------------------------------------------------ a load


class Load:
    """Makes commands on a few keys that everybody shares: SET of unique values, GET, APPEND, INCRBY, and some on
    several keys at once (MSET, MGET).

    `readers` is how often `survey` will be carried out; that many operations of each key are kept for it. Several loads
    on one cluster need a `prefix` each.
    """

    def __init__(self, rng: Random, *, readers: int, keys: int = 3, prefix: str = "") -> None:
        self._rng = rng
        self._most = KEY_OPERATIONS_MAX - readers
        if self._most < 1:
            raise ValueError(f"{readers} readers leave no operations for the load: a key has {KEY_OPERATIONS_MAX}")
        self._prefix = prefix.encode()
        self._values = 0
        self._generation: dict[str, int] = {}
        self._used: dict[bytes, int] = {}
        self._increments: dict[bytes, int] = {}
        self._registers = [f"r{i}" for i in range(keys)]
        self._counters = [f"c{i}" for i in range(keys)]
        self._lists = [f"l{i}" for i in range(keys)]

    def next(self) -> Action:
        """One more command."""
        verb = pick(self._rng, ("set", "set", "get", "get", "get", "append", "incrby", "mset", "mget"))
        if verb == "set":
            key, value = self._key(pick(self._rng, self._registers)), self._value()
            return Action((b"SET", key, value), (Part(key, "set", value),), pure=False)
        if verb == "append":
            key, value = self._key(pick(self._rng, self._lists)), self._value()
            return Action((b"APPEND", key, value), (Part(key, "append", value),), pure=False)
        if verb == "incrby":
            return self._incrby()
        if verb == "mset":
            pairs = [(self._key(name), self._value()) for name in self._some(self._registers)]
            words = [word for pair in pairs for word in pair]
            return Action((b"MSET", *words), tuple(Part(key, "set", value) for key, value in pairs), pure=False)
        names = [*self._registers, *self._counters, *self._lists]
        if verb == "mget":
            # Reads of several lists tell most about the order of everything.
            return read([self._key(name) for name in self._some(self._lists if chance(self._rng, 0.5) else names)])
        return read([self._key(pick(self._rng, names))])

    def survey(self) -> list[Action]:
        """One read of every key that was used, and that nobody else should write any more."""
        return [read([key]) for key in self._used]

    def _some(self, names: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(pick(self._rng, names) for _ in range(3 if chance(self._rng, 0.3) else 2)))

    def _incrby(self) -> Action:
        key = self._key(pick(self._rng, self._counters))
        done = self._increments.get(key, 0)
        self._increments[key] = done + 1
        if done + 1 == KEY_INCREMENTS_MAX:
            self._used[key] = self._most
        return Action((b"INCRBY", key, b"%d" % (1 << done)), (Part(key, "incrby", 1 << done),), pure=False)

    def _key(self, name: str) -> bytes:
        """The key that stands for that name at present, used once more."""
        generation = self._generation.get(name, 0)
        key = b"%b%b.%d" % (self._prefix, name.encode(), generation)
        if self._used.get(key, 0) >= self._most:
            self._generation[name] = generation + 1
            return self._key(name)
        self._used[key] = self._used.get(key, 0) + 1
        return key

    def _value(self) -> bytes:
        self._values += 1
        return b"<%b%d>" % (self._prefix, self._values)


def read(keys: Sequence[bytes]) -> Action:
    """Read these keys at one moment."""
    verb = b"GET" if len(keys) == 1 else b"MGET"
    return Action((verb, *keys), tuple(Part(key, "get") for key in keys), pure=True)
