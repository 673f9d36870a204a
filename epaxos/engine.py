"""The whole replica as one pure object: events in, effects out. Read this second, after `protocols/interface.py`.

    shell / simulator --(Submit, Receive, Durable, …)--> Engine.turn --(Turn: write, sends, replies, wake)--> shell

What is shipped is what is simulated: admission and batching, the protocol, the durability gate, the executor, the
state machine and the replies are all behind `turn`, so the trio shell and the simulator drive the very same object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol as Interface

from epaxos.errors import Rejected, Unknown
from epaxos.ids import ReplicaId
from epaxos.messages import Message
from epaxos.protocols.interface import Durable, Note, Now, PeerDown, PeerUp, Receive, Rtt
from epaxos.storage.interface import WriteGroup


class Waiter(Interface):
    """Who waits for the outcome of a run. The engine calls it inside `turn`, once for every command, in pieces."""

    def reply(self, first: int, count: int, data: bytes) -> None:
        """Commands first … first+count-1 of the run were applied; `data` is their replies, concatenated."""

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """The outcome of these commands, when it is not a result."""


class Submit(NamedTuple):
    """Commands of one client: a run (see `command.py`) of `count` commands.

    Conflicting commands of one `stream` (a connection, a session) take effect in the order of their submission.
    """

    waiter: Waiter
    stream: int
    run: bytes
    count: int
    deadline_us: int
    """Monotonic. Afterwards the caller is told `Rejected("deadline")` when it was never proposed, else `Unknown`."""


class Cancel(NamedTuple):
    """Nobody waits any more. What is not yet proposed is dropped; the rest takes its course."""

    waiter: Waiter


Input = Submit | Cancel | Receive | Durable | PeerUp | PeerDown | Rtt


@dataclass(slots=True)
class Turn:
    """What the shell has to do after a turn, in any order: the gate has held back what must wait."""

    write: WriteGroup | None = None
    sends: list[tuple[tuple[ReplicaId, ...], Message]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)
    """(microseconds from submission to decision, commands), for own batches decided in this turn."""
    executions: list[tuple[int, int]] = field(default_factory=list)
    """(microseconds from submission to reply, commands), for own batches executed in this turn."""
    delivered: int = 0
    """The highest cursor of the log that is durable: what `Engine.entries` will give."""
    wake_us: int | None = None
    """Call `turn` again at this monotonic time at the latest, with no input if there is none."""


class Limits(NamedTuple):
    """The engine's bounds; `config.py` documents each, with both extremes."""

    window: int = 1024
    batch_commands: int = 4096
    batch_bytes: int = 1 << 20
    batch_inflight: int = 4
    batch_age_us: int = 1_000
    pending_commands: int = 1 << 16
    pending_bytes: int = 1 << 26
    lazy_us: int = 5_000
    blocked_us: int = 20_000


class LogEntry(NamedTuple):
    """One executed command, as the log iterator gives it."""

    cursor: int
    """Resume with `after=cursor`. A local number: replicas agree on the order of conflicting commands only."""
    op: int
    keys: tuple[bytes, ...]
    payload: bytes


class Engine:
    """One replica. `turn` is the only way in while it runs.

    Engine(me=…, n=…, incarnation=…, protocol=…, executor=…, machine=…, log=…, limits=Limits())
    """

    def replay(self) -> Iterator[int]:
        """Before the first turn: apply again what earlier lives executed. Yields progress in commands."""

    def turn(self, now: Now, inputs: Sequence[Input]) -> Turn:
        """Take what happened, in order; fire due timers; close batches. The first call starts the protocol."""

    def entries(self, after: int, limit: int) -> list[LogEntry]:
        """Executed commands behind cursor `after`, oldest first, from the durable log."""

    def status(self) -> dict[str, object]:
        """Counters and watermarks for people, JSON-able."""
