"""Applying what is ordered: the machine, the apply marks, and the log that users iterate.

Groups (whole strongly connected components) are numbered as they execute here. One record a turn holds the ids of its
groups under the number of the last one; it is written lazily, after the decisions it rests on, so whatever prefix of
the log survives, the record only speaks of decisions that survived as well. After a restart the recorded groups are
applied again in the recorded order, and only then does the executor go on: never from inside a group (S39).

The session table has the first word on a batch that carries session entries, and the machine sees what it lets through.
What it does not is void: it has no effect, and no place in the log that users iterate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import cbor2

from epaxos.command import HEADER, SESSION_OPEN_OP, Batch, Command, Payload
from epaxos.errors import MachineError, StorageError
from epaxos.execution.interface import Group
from epaxos.execution.sessions import Outcome, Sessions
from epaxos.ids import InstanceId
from epaxos.log import LogEntry
from epaxos.machines.interface import BatchMachine
from epaxos.packing import count_commands, decode_run, without_engine_entries
from epaxos.protocols.interface import LogView, Order
from epaxos.session import Opening, SessionId, Stamp, ended_in, marks

APPLIED: Final = b"a"
"""Key: the letter and the number of the last group (u64, big-endian). Value: CBOR [version, [group, …], [void, …]], a
group being [[epoch, slot, lane], …], and a void command [number of its group, its place in the group]."""
APPLIED_END: Final = b"b"
VERSION: Final = 1

GROUP_BITS: Final = 32
"""A cursor is the group's number and, in the lower bits, the command's place in the group, from 1."""


class Applier:
    """The state machine, and what it has been given so far."""

    def __init__(
        self, *, machine: BatchMachine, log: LogView, recall: Callable[[InstanceId], tuple[Payload, Order] | None]
    ) -> None:
        self.payloads: dict[InstanceId, Payload] = {}
        """Decided, not yet executed."""
        self.commands = 0
        """Commands applied in this life, replay included."""
        self.delivered = 0
        """No durable entry of the log has a cursor above this."""
        self._machine = machine
        self._log = log
        self._recall = recall
        self.sessions = Sessions()
        self._groups = 0
        self._place = 0
        """Commands in front of the next batch, in the group that is being executed."""
        self._unrecorded: list[Group] = []
        self._voids: list[tuple[int, int]] = []

    @property
    def cursor(self) -> int:
        """Above the cursor of every command executed so far, and below that of every later one."""
        return (self._groups + 1 << GROUP_BITS) - 1

    # -- applying

    def take(self, group: Group) -> Iterator[Batch]:
        """The batches of a group to apply, in order; Nops have no effect."""
        self._groups += 1
        self._place = 0
        self._unrecorded.append(group)
        for id_ in group:
            payload = self.payloads.pop(id_)
            if isinstance(payload, Batch):
                yield payload

    def execute(self, batch: Batch) -> None:
        """Run a batch that nobody here waits for."""
        if batch.engine_entries:
            self.apply_judged(batch)
        else:
            self.apply(batch, ())

    def apply(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        """Run a batch without engine entries; a buffer of replies for each span of commands."""
        self._count(batch)
        return self._run(batch, spans)

    def apply_judged(self, batch: Batch) -> list[Outcome]:
        """Run a batch with engine entries; an outcome for each command."""
        first = self._place
        self._count(batch)
        if batch.is_barrier:
            self._voids.append((self._groups, first))
            self.sessions.end(ended_in(batch.barrier_payload))
            return [b""]
        found = marks(batch.data)
        judged = [self._judge(mark) for mark in found]
        takes_effect = [outcome is None for outcome in judged]
        self._voids += [(self._groups, first + at) for at, takes in enumerate(takes_effect) if not takes]
        replies: Iterator[bytes] = iter(())
        if any(takes_effect):
            run = without_engine_entries(batch.data, takes_effect, HEADER.size)
            replies = iter(self._run(Batch.of(batch.name, run), [1] * sum(takes_effect)))
        return list(self._outcomes(found, judged, replies))

    def _judge(self, mark: Stamp | Opening | None) -> Outcome | None:
        """None: the command takes effect. Otherwise its outcome."""
        if isinstance(mark, Opening):
            self.sessions.open(mark)
            return b""
        return None if mark is None else self.sessions.judge(mark)

    def _outcomes(
        self, found: list[Stamp | Opening | None], judged: list[Outcome | None], replies: Iterator[bytes]
    ) -> Iterator[Outcome]:
        """The outcomes in order; two copies of one command in one batch share the result of the first."""
        firsts: dict[tuple[SessionId, int], bytes] = {}
        for mark, outcome in zip(found, judged, strict=True):
            if outcome is None:
                reply = next(replies)
                if isinstance(mark, Stamp):
                    self.sessions.keep(mark, reply)
                    firsts[mark.session, mark.number] = reply
                yield reply
            elif isinstance(mark, Stamp):
                yield firsts.get((mark.session, mark.number), outcome)
            else:
                yield outcome

    def _run(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        try:
            return self._machine.apply_batch(batch, spans)
        except Exception as error:
            raise MachineError(f"the state machine raised on {batch!r}: {error!r}") from error

    def _count(self, batch: Batch) -> None:
        commands = count_commands(batch.data, HEADER.size)
        self.commands += commands
        self._place += commands

    def record(self) -> tuple[bytes, bytes] | None:
        """The apply mark of the groups executed since the last one, as a record."""
        if not self._unrecorded:
            return None
        groups, self._unrecorded = self._unrecorded, []
        voids, self._voids = self._voids, []
        return _key(self._groups), cbor2.dumps([VERSION, [[list(id_) for id_ in group] for group in groups], voids])

    # -- after a restart

    def replay(self) -> Iterator[tuple[list[InstanceId], int]]:
        """Apply the recorded groups again; yields (ids of a group, commands applied so far)."""
        for first, groups, _ in self._recorded(0):
            for number, group in enumerate(groups, first):
                self._groups, self._place = number, 0
                for id_ in group:
                    payload = self._payload(id_)
                    if isinstance(payload, Batch):
                        self.execute(payload)
                self._voids.clear()
                yield group, self.commands
        self.delivered = self.cursor if self._groups else 0

    def _recorded(self, group: int) -> Iterator[tuple[int, list[Group], set[tuple[int, int]]]]:
        """(number of the first group, groups, void commands) of every record that ends at or behind `group`."""
        for key, value in self._log.scan(_key(group), APPLIED_END):
            version, groups, voids = cbor2.loads(value)
            if version != VERSION:
                raise StorageError(f"apply mark of version {version}; this release reads {VERSION}")
            last = int.from_bytes(key[len(APPLIED) :], "big")
            decoded = [[InstanceId(*id_) for id_ in group] for group in groups]
            yield last - len(groups) + 1, decoded, {(number, place) for number, place in voids}

    def _payload(self, id_: InstanceId) -> Payload:
        recalled = self._recall(id_)
        if recalled is None:
            raise StorageError(f"instance {id_} was applied, and its decision is not in the log")
        return recalled[0]

    # -- the log that users iterate

    def entries(self, after: int, limit: int) -> list[LogEntry]:
        """Executed commands behind cursor `after`, at most `limit`, oldest first."""
        found: list[LogEntry] = []
        for first, groups, voids in self._recorded(after >> GROUP_BITS):
            for number, group in enumerate(groups, first):
                for place, command in enumerate(self._commands(group)):
                    entry = _entry(number, place, command)
                    if entry.cursor > after and (number, place) not in voids:
                        found.append(entry)
                    if len(found) == limit:
                        return found
        return found

    def _commands(self, group: Group) -> Iterator[Command]:
        for id_ in group:
            payload = self._payload(id_)
            if isinstance(payload, Batch):
                yield from decode_run(payload.data, HEADER.size)


def _entry(group: int, place: int, command: Command) -> LogEntry:
    keys = tuple(entry.key for entry in command if entry.op < SESSION_OPEN_OP)
    return LogEntry((group << GROUP_BITS) + place + 1, command[0].op, keys, command[0].payload)


def _key(group: int) -> bytes:
    return APPLIED + group.to_bytes(8, "big")
