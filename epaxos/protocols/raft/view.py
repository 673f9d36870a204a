"""The state of a Raft replica: its term, its role, and its log, one row an entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from epaxos.command import Batch
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message
from epaxos.protocols.interface import LogView, Protocol
from epaxos.protocols.raft.log import Log
from epaxos.protocols.raft.protocol import Raft
from epaxos.protocols.raft.state import Role, index_id, load_term
from epaxos.protocols.view import Action, Cell, Row, Words


def _raft(protocol: Protocol) -> Raft:
    assert isinstance(protocol, Raft)
    return protocol


_MESSAGES: Final = (
    *("RequestVote", "Vote", "AppendEntries", "AppendOK"),
    *("Forward", "ReadIndex", "ReadIndexOK", "TimeoutNow"),
)


class RaftView:
    """`epaxos.protocols.view.View` for Raft."""

    lanes: Final = False
    kinds: Final[Mapping[bytes, str]] = {b"l": "entries", b"t": "term and vote"}
    actions: Final[Mapping[str, Action]] = {}
    """None: an election begins with the timer of that name."""

    def rows(self, protocol: Protocol, words: Words) -> list[Row]:
        """The term and the role, how far the log is committed, and the log."""
        state = _raft(protocol).state
        role = state.role.value
        if state.role is Role.FOLLOWER:
            role += f" of {_somebody(state.leader, words)}"
        return [
            Row("term", f"{_term(state.term, state.vote, words)} {role}"),
            Row("commit", str(state.commit)),
            *_entries(state.log, words),
        ]

    def place(self, key: bytes) -> InstanceId | None:
        """Entries are records of their ids."""
        return index_id(int.from_bytes(key[1:], "big")) if key[:1] == b"l" else None

    def stored(self, log: LogView, n: int, words: Words) -> list[Row]:
        """The term, and the log."""
        return [Row("term", _term(*load_term(log), words)), *_entries(Log(log), words)]

    cells: Final = frozenset(Cell(role.value, message) for role in Role for message in _MESSAGES)

    def phase(self, protocol: Protocol, message: Message) -> str:
        """The role of the replica."""
        return _raft(protocol).state.role.value

    def carried(self, protocol: Protocol) -> Iterator[tuple[InstanceId, Batch]]:
        """Nothing: an index may hold one batch today and another one tomorrow."""
        return iter(())


def _term(term: int, vote: ReplicaId | None, words: Words) -> str:
    return f"{term} vote={_somebody(vote, words)}"


def _somebody(replica: ReplicaId | None, words: Words) -> str:
    return "nobody" if replica is None else words.replica(replica)


def _entries(log: Log, words: Words) -> list[Row]:
    found = [(index, log.entry(index)) for index in range(1, log.last + 1)]
    return [Row(f"log {index}", f"term={term} {words.payload(payload)}") for index, (term, payload) in found]
