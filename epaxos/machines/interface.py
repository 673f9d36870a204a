"""State machines: what a command does, once its place in the order is known.

`StateMachine` is what users write: three synchronous, deterministic methods on bytes. `BatchMachine` is what the
engine calls, once a batch; `OpaqueMachine` (in `machines/opaque.py`) puts the first behind the second, and the
key-value machine implements the second directly so that no Python object is made a command.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence

from epaxos.command import Batch


class StateMachine(abc.ABC):
    """Deterministic: the same commands in the same order give the same results and the same state, everywhere."""

    @abc.abstractmethod
    def apply(self, command: bytes) -> bytes:
        """Run one command. An exception stops the replica: it cannot apply less than the others."""

    @abc.abstractmethod
    def save(self) -> Iterable[bytes]:
        """The whole state in chunks, in a canonical form: equal states give equal chunks."""

    @abc.abstractmethod
    def load(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by what `save` gave."""


class BatchMachine(abc.ABC):
    """What the engine drives."""

    @abc.abstractmethod
    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        """Run every command of `batch` in order; return one buffer of replies per span.

        `spans` are numbers of consecutive commands that somebody here waits for; they add up to the commands of the
        batch, or are empty when nobody does (then the result is the empty list and no reply is built). A reply
        buffer is the concatenation of the replies of its commands.
        """

    @abc.abstractmethod
    def save(self) -> Iterable[bytes]:
        """As `StateMachine.save`."""

    @abc.abstractmethod
    def load(self, chunks: Iterable[bytes]) -> None:
        """As `StateMachine.load`."""
