"""Bugs in Raft: the classic ones of production, each of which somebody shipped."""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

_RAFT: Final = "epaxos.protocols.raft."


def _raft(name: str, story: str, *edits: tuple[str, str, str], quick: bool = False) -> Mutant:
    """A mutant of `protocols/raft`; edits name their module without the package."""
    inside = tuple((_RAFT + module, old, new) for module, old, new in edits)
    return Mutant(name=name, story=story, edits=inside, protocol="raft", quick=quick)


RAFT: Final[tuple[Mutant, ...]] = (
    _raft(
        "raft-vote-counted-twice",
        "a repeated vote counts again: links duplicate",
        ("elect", "        self._votes.add(voter)\n", "        self._votes.add(voter + 1000 * len(self._votes))\n"),
    ),
    _raft(
        "raft-vote-for-a-shorter-log",
        "a voter does not ask whether the candidate's log lacks something",
        ("elect", "(message.last_term, message.last_index) >= (log.last_term, log.last)", "True"),
    ),
    _raft(
        "raft-read-before-its-term",
        "a new leader answers reads at the commit index it came with",
        ("reads", "if self._waiting and self.state.settled and", "if self._waiting and"),
    ),
    _raft(
        "raft-commit-goes-back",
        "an AppendEntries that was overtaken takes the commit index back",
        ("state", "        self.commit = max(self.commit, index)\n", "        self.commit = index\n"),
    ),
    _raft(
        "raft-commit-unproved",
        "a follower commits as far as the leader has, whatever stands there in its own log",
        ("follow", "state.commit_upto(min(message.commit, index))", "state.commit_upto(min(message.commit, log.last))"),
    ),
    _raft(
        "raft-suffix-kept",
        "an entry that contradicts the leader's is kept, and acknowledged as if it were the leader's",
        ("follow", "if not log.holds(index, message.entry_term):", "if index > log.last:"),
    ),
    _raft(
        "raft-append-before-saving",
        "AppendOK leaves before the entry is durable",
        (
            "follow",
            "        state.send((peer,), _answer(state, message, ok=True, index=index))",
            "        state.send((peer,), _answer(state, message, ok=True, index=index), 0)",
        ),
    ),
    _raft(
        "raft-never-sent-again",
        "a follower that missed an entry waits for somebody to notice",
        ("follow", "        _refuse(state, peer, message)\n", "        pass\n"),
    ),
)
