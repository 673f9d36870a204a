"""What is known of a run, while it runs and after it: what clients saw, and who executed what in which order.

Invariants read it; nothing here judges.
"""

from __future__ import annotations

import abc
import enum
import traceback
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol as Interface

from epaxos.command import BARRIER_OP, HEADER, READ, WHOLE, Batch, Command
from epaxos.ids import BatchNumber, ReplicaId
from epaxos.packing import decode_run
from epaxos.submission import DEFAULT_LIMITS


class Violation(Exception):
    """An invariant does not hold: `invariant` names it, `what` says where."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
        self.what = what


@contextmanager
def as_violation(where: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Whatever an engine raises is a violation as well, unless it only passes one on; `where` is added to it."""
    try:
        yield
    except Violation:
        raise
    except Exception as error:
        if isinstance(error.__cause__, Violation):
            raise error.__cause__ from None
        trace = "".join(traceback.format_exception(error))
        raise Violation("exception", f"{error!r}{where()}\n{trace}") from error


class Life(NamedTuple):
    """One life of one replica, from a start to the crash that ends it."""

    replica: ReplicaId
    number: int

    def __str__(self) -> str:
        return f"{self.replica}/{self.number}"


# ------------------------------------------------------------------------------------------------ what clients saw


class Outcome(enum.Enum):
    """What the client knows of its command."""

    OPEN = "open"
    DONE = "done"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Part(NamedTuple):
    """What a command does to one key: `verb` and `argument` mean what the model of the machine makes of them."""

    key: bytes
    verb: str
    argument: bytes | int | None = None


class Form(NamedTuple):
    """A command, as the workload made it. No two of a run have the same bytes: that is how it is found in a log."""

    command: Command
    verb: str
    parts: tuple[Part, ...]
    pure: bool
    """It only reads."""


class Model(Interface):
    """What the state machine ought to do, written a second time and in the plainest way."""

    def step(self, state: Hashable, part: Part) -> tuple[bytes, Hashable]:
        """(the reply to this part of a command, the state of its key afterwards). An absent key's state is None."""

    def compose(self, form: Form, replies: list[bytes]) -> bytes:
        """The reply to a command, from those to its parts."""

    def project(self, form: Form, reply: bytes) -> list[bytes | None]:
        """The replies to the parts of a command, as far as its reply tells; None where it does not."""

    def split(self, data: bytes, count: int) -> list[bytes]:
        """The replies to `count` commands that stand one behind the other. Raises ValueError when they do not."""


class OnePart(Model, abc.ABC):
    """A model whose commands have one part each, and whose replies cannot be told apart: they come one by one."""

    def compose(self, form: Form, replies: list[bytes]) -> bytes:
        (reply,) = replies
        return reply

    def project(self, form: Form, reply: bytes) -> list[bytes | None]:
        return [reply]

    def split(self, data: bytes, count: int) -> list[bytes]:
        if count != 1:
            raise ValueError(f"{count} replies that nothing tells apart")
        return [data]


@dataclass(slots=True, eq=False)
class Call:
    """One command of one client, with its fate. Times are ticks: one counter for the whole run, no two are equal."""

    number: int
    life: Life
    """Of the replica it was submitted to."""
    stream: int
    form: Form
    invoked: int
    returned: int | None = None
    """None unless `outcome` is DONE or REJECTED."""
    outcome: Outcome = Outcome.OPEN
    reply: bytes | None = None

    def __str__(self) -> str:
        parts = " ".join(f"{p.key.decode()}={p.argument!r}" for p in self.form.parts)
        return (
            f"call {self.number} ({self.form.verb} {parts}, stream {self.stream} at {self.life}, {self.outcome.value})"
        )


# ------------------------------------------------------------------------------------------- what replicas executed


class Touch(NamedTuple):
    """One key that a command touches. `key` is EVERYTHING when it touches the whole state."""

    key: bytes
    writes: bool


EVERYTHING: Final = b"\x00everything"


class Ref(NamedTuple):
    """The name of one command wherever it executes: its batch, and its place in it."""

    batch: BatchNumber
    place: int

    def __str__(self) -> str:
        return f"{self.batch.origin}/{self.batch.incarnation}/{self.batch.number}[{self.place}]"


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch, unpacked once for all who execute it."""

    batch: Batch
    refs: tuple[Ref, ...]
    commands: tuple[Command, ...]
    touches: tuple[tuple[Touch, ...], ...]
    """One a command; a key that is read and written counts as written."""


def touches(command: Command) -> tuple[Touch, ...]:
    """What a command touches, each key once."""
    found: dict[bytes, bool] = {}
    for entry in command:
        key = EVERYTHING if entry.flags & WHOLE else entry.key
        found[key] = found.get(key, False) or not entry.flags & READ
    return tuple(Touch(key, writes) for key, writes in found.items())


@dataclass(slots=True)
class Record:
    """Everything of one run."""

    model: Model
    universe: tuple[bytes, ...]
    """The keys that more than one command touches."""
    window: int = DEFAULT_LIMITS.window
    """How many own commands a coordinator may have in flight."""
    calls: list[Call] = field(default_factory=list)
    logs: dict[Life, list[Applied]] = field(default_factory=dict)
    """What each life executed, in order, with what it executed again at its start."""
    undecided: list[bytes] = field(default_factory=list)
    """Keys whose history was too entangled to be judged."""
    _unpacked: dict[tuple[BatchNumber, int], Applied] = field(default_factory=dict)
    """By name, and by whether it is the batch as it was ordered or as the machine saw it."""

    def unpack(self, batch: Batch) -> Applied:
        """The batch in its unpacked form. Raises Violation when its name was seen with other bytes."""
        known = self._unpacked.get((batch.name, batch.engine_entries))
        if known is None:
            commands = tuple(decode_run(batch.data, HEADER.size))
            refs = tuple(Ref(batch.name, place) for place in range(len(commands)))
            known = Applied(batch, refs, commands, tuple(map(touches, commands)))
            self._unpacked[batch.name, batch.engine_entries] = known
        elif known.batch.data != batch.data:
            raise Violation("agreement", f"{batch} and {known.batch} have the same name and different bytes")
        return known

    def expand(self, touches: tuple[Touch, ...]) -> Iterator[Touch]:
        """The same touches, with every key in the place of EVERYTHING."""
        for touch in touches:
            if touch.key == EVERYTHING:
                for key in self.universe:
                    yield Touch(key, touch.writes)
            else:
                yield touch

    def newest(self) -> dict[ReplicaId, list[Applied]]:
        """The log of the last life of each replica."""
        last: dict[ReplicaId, Life] = {}
        for life in self.logs:
            last[life.replica] = max(life, last.get(life.replica, life))
        return {replica: self.logs[life] for replica, life in sorted(last.items())}

    def by_command(self) -> dict[Command, Call]:
        """The calls, by their command."""
        return {call.form.command: call for call in self.calls}


def is_barrier(applied: Applied) -> bool:
    """A Barrier has no effect and no key."""
    return applied.commands[0][0].op == BARRIER_OP
