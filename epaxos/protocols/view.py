"""How a protocol shows its state to people who follow it step by step: scenario files are written in these words.

The runner of scenarios knows no protocol. It asks the view that the registry names for rows of text before and after
each event, and prints those that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol as Interface

from epaxos.command import Batch, Payload
from epaxos.ids import InstanceId, ReplicaId, Vector
from epaxos.messages import Message
from epaxos.protocols.interface import LogView, Protocol


class Words(Interface):
    """What the reader calls things."""

    def replica(self, replica: ReplicaId) -> str:
        """A letter."""

    def id(self, id_: InstanceId) -> str:
        """The name the scenario gave it, or its lane's letter and its slot."""

    def vector(self, vector: Vector) -> str:
        """The ids that the vector names, in braces."""

    def payload(self, payload: Payload | None) -> str:
        """The commands, or NOP."""


class Row(NamedTuple):
    """One thing that a replica knows."""

    about: str
    """Unique among the rows of a replica."""
    text: str


class Action(NamedTuple):
    """Something that a rule of the protocol does sooner or later about an id, and a scenario when it chooses."""

    begin: Callable[[Protocol, InstanceId], None]
    """Raises ValueError when no rule would do it now."""
    hurry: Callable[[Protocol, InstanceId], None]
    """Whoever has not answered by now is not waited for: what a timer of the protocol would say, after a while."""


class Cell(NamedTuple):
    """A message that reaches a replica, and where that replica stands then."""

    phase: str
    message: str
    """The name of its class."""

    def __str__(self) -> str:
        return f"{self.phase} {self.message}"


class View(Interface):
    """What a protocol offers to scenarios, and to those who ask which of its transitions were ever tried."""

    @property
    def lanes(self) -> bool:
        """Does an id name its coordinator and one payload for ever? Otherwise it is a place in one sequence."""

    @property
    def kinds(self) -> Mapping[bytes, str]:
        """What its records are, by the first letter of their keys."""

    def place(self, key: bytes) -> InstanceId | None:
        """The id that the record under this key is about, if it is about one."""

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the verb that a scenario uses."""

    def rows(self, protocol: Protocol, words: Words) -> list[Row]:
        """The state of a replica, in a stable order."""

    def stored(self, log: LogView, n: int, words: Words) -> list[Row]:
        """What of it is on the disk of a replica, by the same names."""

    @property
    def cells(self) -> frozenset[Cell]:
        """Every cell that a hostile run can reach; many runs together ought to visit them all."""

    def phase(self, protocol: Protocol, message: Message) -> str:
        """Where a replica stands when this message reaches it, and before it acts on it."""

    def carried(self, protocol: Protocol) -> Iterator[tuple[InstanceId, Batch]]:
        """Which ids carry which batch, as far as this replica knows; nothing without `lanes`."""
