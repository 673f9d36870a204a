"""The follower's side of replication: accepting entries, dropping what contradicts them. Dissertation 3.5, 5.3."""

from __future__ import annotations

from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, AppendOK
from epaxos.protocols.raft.log import Entry
from epaxos.protocols.raft.state import State


def on_append(state: State, peer: ReplicaId, message: AppendEntries) -> None:
    """An entry or a heartbeat of the leader of this term.

    The answer waits for the disk (`after=NEWEST`), also that to a duplicate of an entry which is still being written.
    """
    log = state.log
    index = message.prev_index
    if not log.holds(index, message.prev_term):
        _refuse(state, peer, message)
        return
    if message.payload is not None:
        index += 1
        if not log.holds(index, message.entry_term):
            state.append(Entry(message.entry_term, message.payload), index - 1)
    # Only as far as this message has shown the logs to be equal: what stands behind that may be somebody else's.
    state.commit_upto(min(message.commit, index))
    if message.payload is not None or message.round:
        state.send((peer,), _answer(state, message, ok=True, index=index))


def refuse_term(state: State, peer: ReplicaId, message: AppendEntries) -> None:
    """Its term is over: the answer deposes it."""
    state.send((peer,), _answer(state, message, ok=False, index=message.prev_index))


def _refuse(state: State, peer: ReplicaId, message: AppendEntries) -> None:
    """No such entry here. Say how far the logs can agree at most, whole terms at a time (5.3, in both directions)."""
    hint = state.log.agreeing(message.prev_index, message.prev_term)
    hint_term = state.log.term(hint)
    state.send((peer,), _answer(state, message, ok=False, index=message.prev_index, hint=hint, hint_term=hint_term))


def _answer(
    state: State, message: AppendEntries, *, ok: bool, index: int, hint: int = 0, hint_term: int = 0
) -> AppendOK:
    return AppendOK(term=state.term, ok=ok, index=index, hint=hint, hint_term=hint_term, round=message.round)
