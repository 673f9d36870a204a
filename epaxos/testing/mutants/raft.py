"""Bugs in Raft: the classic ones of production, each of which somebody shipped."""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

_RAFT: Final = "epaxos.protocols.raft."


def _raft(
    name: str, story: str, *edits: tuple[str, str, str], n: int = 5, quick: bool = False, inside: bool = False
) -> Mutant:
    """A mutant of `protocols/raft`; edits name their module without the package."""
    whole = tuple((_RAFT + module, old, new) for module, old, new in edits)
    return Mutant(name=name, story=story, edits=whole, protocol="raft", n=n, quick=quick, inside=inside)


RAFT: Final[tuple[Mutant, ...]] = (
    _raft(
        "raft-vote-before-saving",
        "a vote leaves before it is durable, and the voter forgets in a crash whom it gave it",
        (
            "elect",
            "Vote(term=term, granted=granted, pre=message.pre))",
            "Vote(term=term, granted=granted, pre=message.pre), 0)",
        ),
        n=3,
        inside=True,
    ),
    _raft(
        "raft-votes-again",
        "a restarted replica remembers its term and not its vote, and votes again in the same term",
        ("state", "return term, None if vote < 0 else vote", "return term, None"),
        n=3,
        inside=True,
    ),
    _raft(
        "raft-vote-counted-twice",
        "a repeated vote counts again: links duplicate",
        ("elect", "        self._votes.add(voter)\n", "        self._votes.add(voter + 1000 * len(self._votes))\n"),
        quick=True,
    ),
    _raft(
        "raft-vote-for-a-shorter-log",
        "a voter does not ask whether the candidate's log lacks something",
        ("elect", "(message.last_term, message.last_index) >= (log.last_term, log.last)", "True"),
        quick=True,
    ),
    _raft(
        "raft-read-unconfirmed",
        "a leader that was deposed and does not know it answers reads, since nobody told it otherwise",
        ("reads", "confirmed = self.lead.confirmed()", "confirmed = self.lead.round"),
        ("reads", "            if self.state.majority == 1:\n", "            if True:\n"),
        ("protocol", "if self.lead.is_cut_off():", "if False:"),
        n=3,
    ),
    _raft(
        "raft-read-before-its-term",
        "a new leader answers reads at the commit index it came with",
        ("reads", "if self._waiting and self.state.settled and", "if self._waiting and"),
        n=3,
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
        quick=True,
    ),
    _raft(
        "raft-suffix-kept-on-disk",
        "a conflicting suffix is dropped from memory only, and is there again after a restart",
        ("state", "drops = tuple(entry_key(each) for each in dropped if each != index)", "drops = ()"),
    ),
    _raft(
        "raft-old-term-committed",
        "an entry of an earlier term is committed because a majority holds it (Figure 8)",
        ("lead", "if index > state.commit and state.log.term(index) == state.term:", "if index > state.commit:"),
        quick=True,
        inside=True,
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
        "raft-leader-counts-early",
        "the leader counts its own copy of an entry before its disk has it",
        ("lead", "held = sorted((state.log.durable, *", "held = sorted((state.log.last, *"),
        n=3,
    ),
    _raft(
        "raft-everybody-is-asked",
        "a replica that misses its leader begins a term without asking first, and nobody sticks to a living leader",
        ("elect", "        self._campaign(pre=True)\n", "        self._campaign(pre=False)\n"),
        ("elect", "if message.term > state.term and not message.transfer and self._leader_lives():", "if False:"),
        quick=True,
        inside=True,
    ),
    _raft(
        "raft-batch-twice",
        "a batch that was forwarded twice takes effect twice",
        (
            "once",
            "        if self.knows(name):\n            self.refused",
            "        if False:\n            self.refused",
        ),
        ("lead", "if batch.name not in self._names and not self.state.once.knows(batch.name):", "if True:"),
        quick=True,
    ),
    _raft(
        "raft-never-sent-again",
        "a follower that missed an entry waits for somebody to notice",
        ("follow", "        _refuse(state, peer, message)\n", "        pass\n"),
    ),
)
