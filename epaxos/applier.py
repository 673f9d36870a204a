"""Applying what is ordered: the machine, the apply marks, and the log that users iterate.

Groups (whole strongly connected components) are numbered as they execute here. One record a turn holds the ids of its
groups under the number of the last one; it is written lazily, after the decisions it rests on, so whatever prefix of
the log survives, the record only speaks of decisions that survived as well. After a restart the recorded groups are
applied again in the recorded order, and only then does the executor go on: never from inside a group (S39).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import cbor2

from epaxos.command import HEADER, Batch, Payload
from epaxos.errors import MachineError, StorageError
from epaxos.execution.interface import Group
from epaxos.ids import InstanceId
from epaxos.log import LogEntry
from epaxos.machines.interface import BatchMachine
from epaxos.packing import count_commands, decode_run
from epaxos.protocols.interface import LogView, Order

APPLIED: Final = b"a"
"""Key: the letter and the number of the last group (u64, big-endian). Value: CBOR [version, [group, …]], a group being
[[epoch, slot, lane], …]."""
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
        self._groups = 0
        self._unrecorded: list[Group] = []

    @property
    def cursor(self) -> int:
        """Above the cursor of every command executed so far, and below that of every later one."""
        return (self._groups + 1 << GROUP_BITS) - 1

    # -- applying

    def take(self, group: Group) -> Iterator[Batch]:
        """The batches of a group to apply, in order; Nops have no effect."""
        self._groups += 1
        self._unrecorded.append(group)
        for id_ in group:
            payload = self.payloads.pop(id_)
            if isinstance(payload, Batch):
                yield payload

    def apply(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        """Run a batch; a Barrier has no effect and an empty reply."""
        self.commands += count_commands(batch.data, HEADER.size)
        if batch.is_barrier:
            return [b"" for _ in spans]
        try:
            return self._machine.apply_batch(batch, spans)
        except Exception as error:
            raise MachineError(f"the state machine raised on {batch!r}: {error!r}") from error

    def record(self) -> tuple[bytes, bytes] | None:
        """The apply mark of the groups executed since the last one, as a record."""
        if not self._unrecorded:
            return None
        groups, self._unrecorded = self._unrecorded, []
        return _key(self._groups), cbor2.dumps([VERSION, [[list(id_) for id_ in group] for group in groups]])

    # -- after a restart

    def replay(self) -> Iterator[tuple[list[InstanceId], int]]:
        """Apply the recorded groups again; yields (ids of a group, commands applied so far)."""
        for first, groups in self._recorded(0):
            for number, group in enumerate(groups, first):
                for id_ in group:
                    payload = self._payload(id_)
                    if isinstance(payload, Batch):
                        self.apply(payload, ())
                self._groups = number
                yield group, self.commands
        self.delivered = self.cursor if self._groups else 0

    def _recorded(self, group: int) -> Iterator[tuple[int, list[Group]]]:
        """(number of the first group, groups) of every record that ends at or behind `group`."""
        for key, value in self._log.scan(_key(group), APPLIED_END):
            version, groups = cbor2.loads(value)
            if version != VERSION:
                raise StorageError(f"apply mark of version {version}; this release reads {VERSION}")
            last = int.from_bytes(key[len(APPLIED) :], "big")
            yield last - len(groups) + 1, [[InstanceId(*id_) for id_ in group] for group in groups]

    def _payload(self, id_: InstanceId) -> Payload:
        recalled = self._recall(id_)
        if recalled is None:
            raise StorageError(f"instance {id_} was applied, and its decision is not in the log")
        return recalled[0]

    # -- the log that users iterate

    def entries(self, after: int, limit: int) -> list[LogEntry]:
        """Executed commands behind cursor `after`, at most `limit`, oldest first."""
        found: list[LogEntry] = []
        for first, groups in self._recorded(after >> GROUP_BITS):
            for number, group in enumerate(groups, first):
                for entry in self._entries(number, group):
                    if entry.cursor > after:
                        found.append(entry)
                    if len(found) == limit:
                        return found
        return found

    def _entries(self, number: int, group: Group) -> Iterator[LogEntry]:
        place = 0
        for id_ in group:
            payload = self._payload(id_)
            if not isinstance(payload, Batch):
                continue
            for command in decode_run(payload.data, HEADER.size):
                place += 1
                keys = tuple(entry.key for entry in command)
                yield LogEntry((number << GROUP_BITS) + place, command[0].op, keys, command[0].payload)


def _key(group: int) -> bytes:
    return APPLIED + group.to_bytes(8, "big")
