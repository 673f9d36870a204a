"""The leader: appending, replicating in a pipeline, committing. Dissertation 3.5, 3.6.2 (old terms).

One AppendEntries carries one entry, so a batch is one message and throughput comes of the pipeline: entries leave as
they are appended, without waiting for answers, up to a window for each follower. A message that a link lost shows
when the next one, a heartbeat at the latest, is refused for the gap; the answer says where to go on.

AppendEntries leaves with `after=NOTHING`: the leader's disk works while the entry travels (10.2.1). The term that it
reveals was durable before anybody was asked for a vote. A follower's log may run ahead of the leader's, which is
harmless: the leader counts itself only when its disk answers. And one that loses its tail to a power cut loses its
office with it, since a replica leads a term only in the life that was elected: no other entry can come to stand under
the same index and term.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from epaxos.command import NOP, Batch, Payload
from epaxos.ids import BatchNumber, ReplicaId
from epaxos.messages import AppendEntries, AppendOK
from epaxos.protocols.interface import NOTHING, SetTimer
from epaxos.protocols.raft.log import Entry
from epaxos.protocols.raft.state import Role, State

SPREAD: Final = "spread"
FLIGHT_MAX: Final = 256
"""Entries on their way to one follower. Small: long links stand idle. Large: a lost one makes so many go twice."""
FLIGHT_BYTES_MAX: Final = 16 << 20
"""The same in bytes; one entry may always be on its way."""


class Progress:
    """What the leader knows of one follower."""

    __slots__ = ("match", "next", "probing", "flight", "flight_bytes", "heard_us", "round", "told")

    def __init__(self, next_: int, now_us: int) -> None:
        self.match = 0
        """Its log is durably the leader's up to here."""
        self.next = next_
        """The entry to send next."""
        self.probing = False
        """It refused: nothing but a question about `next - 1` is sent until it agrees."""
        self.flight: deque[tuple[int, int]] = deque()
        """(index, bytes) of the entries sent and not answered."""
        self.flight_bytes = 0
        self.heard_us = now_us
        self.round = 0
        """The latest round it answered: it still followed when that had begun."""
        self.told = 0
        """The commit index it was told, as far as its log goes."""

    def is_open(self) -> bool:
        """May one more entry be sent?"""
        return not self.probing and len(self.flight) < FLIGHT_MAX and self.flight_bytes < FLIGHT_BYTES_MAX

    def sent(self, index: int, size: int) -> None:
        """The entry `next` left."""
        self.next = index + 1
        self.flight.append((index, size))
        self.flight_bytes += size

    def acknowledged(self, index: int) -> None:
        """It holds everything up to `index`."""
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        while self.flight and self.flight[0][0] <= self.match:
            self.flight_bytes -= self.flight.popleft()[1]

    def rewind(self, next_: int) -> None:
        """Go back to `next_`, and find out first whether that is right."""
        self.next = next_
        self.probing = True
        self.flight.clear()
        self.flight_bytes = 0

    def state(self) -> tuple[object, ...]:
        """For digests."""
        fields = (self.match, self.next, self.probing, self.heard_us, self.round, self.told)
        return (*fields, list(self.flight))


class Lead:
    """Everything a replica does while it leads."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.progress: dict[ReplicaId, Progress] = {}
        self.round = 0
        """Rounds of this term. Each message names the latest, and its answer confirms that it had begun."""
        self.accepting = True
        """False while leadership is on its way to somebody else."""
        self._names: set[BatchNumber] = set()
        """The batches in the log that are not committed: one that comes again is not appended again."""

    def begin(self) -> None:
        """Elected. An entry of the new term comes first: it commits what earlier terms left (3.6.2)."""
        state = self.state
        state.role, state.leader = Role.LEADER, state.me
        state.note("leader", f"term {state.term}")
        self.progress = {peer: Progress(state.log.last + 1, state.now.mono_us) for peer in state.others}
        self.round = 1
        self.accepting = True
        entries = (state.log.entry(index).payload for index in range(state.commit + 1, state.log.last + 1))
        self._names = {payload.name for payload in entries if isinstance(payload, Batch)}
        self._append(NOP)

    # -- appending

    def append(self, batch: Batch) -> None:
        """Put a batch into the log, unless it is there already. Whoever asks again is answered by its execution."""
        if batch.name not in self._names and not self.state.once.knows(batch.name):
            self._names.add(batch.name)
            self._append(batch)

    def _append(self, payload: Payload) -> None:
        log = self.state.log
        self.state.append(Entry(self.state.term, payload), log.last)
        ready = tuple(peer for peer, p in self.progress.items() if p.next == log.last and p.is_open())
        self._send_entry(ready, log.last)

    def committed(self, name: BatchNumber) -> None:
        """`Once` knows the name from here on."""
        self._names.discard(name)

    # -- sending

    def _send_entry(self, peers: tuple[ReplicaId, ...], index: int) -> None:
        """The entry at `index`, to those for whom it is the next."""
        entry = self.state.log.entry(index)
        size = len(entry.payload.data) if isinstance(entry.payload, Batch) else 0
        for peer in peers:
            self.progress[peer].sent(index, size)
        self._send(peers, index - 1, entry, self.round)

    def _send(self, peers: tuple[ReplicaId, ...], prev: int, entry: Entry | None, round_: int) -> None:
        state = self.state
        for peer in peers:
            self.progress[peer].told = min(state.commit, prev + (entry is not None))
        message = AppendEntries(
            term=state.term,
            prev_index=prev,
            prev_term=state.log.term(prev),
            entry_term=0 if entry is None else entry.term,
            payload=None if entry is None else entry.payload,
            commit=state.commit,
            round=round_,
        )
        state.send(peers, message, NOTHING)

    def _pump(self, peer: ReplicaId) -> None:
        """Send what the follower lacks, as far as its window goes; old entries come from the disk."""
        progress = self.progress[peer]
        while progress.next <= self.state.log.last and progress.is_open():
            self._send_entry((peer,), progress.next)

    def beat(self) -> None:
        """Tell all followers who leads. Also finds gaps: who lacks the entry before the next one refuses."""
        self._tell(self.state.others, self.round)

    def link_up(self, peer: ReplicaId) -> None:
        """What was in flight to `peer` may be lost: a heartbeat finds out, now rather than later."""
        self._tell((peer,), self.round)

    def spread(self) -> None:
        """Tell the commit index to whoever has the entries and does not know. No answer is needed."""
        commit, behind = self.state.commit, []
        for peer, progress in self.progress.items():
            if not progress.probing and min(commit, progress.next - 1) > progress.told:
                behind.append(peer)
        self._tell(tuple(behind), 0)

    def _tell(self, peers: tuple[ReplicaId, ...], round_: int) -> None:
        by_next: dict[int, list[ReplicaId]] = {}
        for peer in peers:
            by_next.setdefault(self.progress[peer].next, []).append(peer)
        for next_, group in by_next.items():
            self._send(tuple(group), next_ - 1, None, round_)

    def open_round(self) -> int:
        """Begin a round: whoever answers it still followed at this moment or later."""
        self.round += 1
        self.beat()
        return self.round

    # -- answers

    def on_append_ok(self, peer: ReplicaId, message: AppendOK) -> None:
        """An answer of this term, good or bad."""
        progress = self.progress[peer]
        progress.heard_us = self.state.now.mono_us
        progress.round = max(progress.round, message.round)
        if message.ok:
            progress.acknowledged(message.index)
            if message.index >= progress.next - 1:
                progress.probing = False
        else:
            self._refused(peer, progress, message)
        self.advance()
        self._pump(peer)

    def _refused(self, peer: ReplicaId, progress: Progress, message: AppendOK) -> None:
        """Go back to where the two logs can agree. Refusals of what was in flight behind the first are old news."""
        log = self.state.log
        if log.holds(message.hint, message.hint_term):
            # The same index and term: so far the logs are equal, and the answer waited for the follower's disk.
            progress.acknowledged(message.hint)
        if message.index <= progress.match or (progress.probing and message.index != progress.next - 1):
            return
        agreeing = min(log.agreeing(message.hint, message.hint_term), message.index - 1)
        progress.rewind(max(agreeing, progress.match) + 1)
        self._tell((peer,), self.round)

    def advance(self) -> None:
        """Commit what a majority holds durably, if it is of this term.

        An entry of an older term may be on a majority and yet be replaced (Figure 3.7; Figure 8 of the paper): it is
        committed only by one of this term behind it.
        """
        state = self.state
        held = sorted((state.log.durable, *(p.match for p in self.progress.values())), reverse=True)
        index = held[state.majority - 1]
        if index > state.commit and state.log.term(index) == state.term:
            state.commit_upto(index)
            # At the end of this turn, for all commits of the turn at once.
            state.effects.append(SetTimer(timer=SPREAD, at_us=state.now.mono_us))

    # -- is it still the leader?

    def confirmed(self) -> int:
        """The latest round that a majority has answered; the leader itself is always of it."""
        return sorted((self.round, *(p.round for p in self.progress.values())), reverse=True)[self.state.majority - 1]

    def is_cut_off(self) -> bool:
        """CheckQuorum: has no majority been heard for an election timeout? Others may have elected somebody."""
        heard = (p.heard_us for p in self.progress.values())
        latest = sorted((self.state.now.mono_us, *heard), reverse=True)[self.state.majority - 1]
        return latest + self.state.election_us() <= self.state.now.mono_us

    def digest(self) -> tuple[object, ...]:
        """For digests."""
        progress = {peer: p.state() for peer, p in self.progress.items()}
        return (progress, self.round, self.accepting, sorted(self._names))
