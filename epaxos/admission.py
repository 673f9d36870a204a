"""Admission and batching: which waiting commands become which batch, and who waits for what.

Pure, and the same for every protocol. Four rules shape a batch:

- A batch closes as soon as few own batches are undecided, or its oldest command has waited `batch_age_us`; so a lone
  command never waits, and batches form by themselves because a turn takes time.
- A command one of whose keys has an unexecuted predecessor (it is *entangled*) never shares a batch with clean ones:
  otherwise 1 % of commands on one blocked key would hold nearly all the others.
- An entangled command waits while `entangled_window` own batches of entangled commands on one of its keys are
  unexecuted here (see `busy`).
- Conflicting commands of one stream take effect in their order: a command waits while an earlier conflicting one of
  its stream is in a batch that is still undecided, since that batch might be given up and proposed again later.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from epaxos.busy import NO_KEYS, BusyKeys, Keys, keys_of
from epaxos.command import MAX_ENTRIES, Batch, count_entries, is_barrier
from epaxos.errors import Rejected, Unknown
from epaxos.ids import BatchNumber
from epaxos.packing import barrier_run, conflicting, count_engine_entries, cut_run, merge_runs, read_mask
from epaxos.submission import Limits, Submit, Waiter

CLEAN: Final = 0
ENTANGLED: Final = 1
BARRIER: Final = 2
READS: Final = 3
STAYS: Final = -1
PARKED: Final = -2
"""As STAYS, until the window of its key has room."""


BARRIER_RUN: Final = barrier_run()


class Piece:
    """Consecutive commands of one submitted run: `first … first+count-1`, waiting or in a batch."""

    __slots__ = ("waiter", "stream", "run", "first", "count", "submitted_us", "deadline_us", "order", "batch")

    def __init__(
        self,
        waiter: Waiter,
        stream: int,
        run: bytes,
        first: int,
        count: int,
        submitted_us: int,
        deadline_us: int,
        order: int,
    ) -> None:
        self.waiter: Waiter | None = waiter
        self.stream = stream
        self.run = run
        self.first = first
        self.count = count
        self.submitted_us = submitted_us
        self.deadline_us = deadline_us
        self.order = order
        """Of its submission; pieces of one run share it."""
        self.batch: BatchNumber | None = None

    def cut(self, first: int, count: int) -> Piece:
        """Commands first … first+count-1 of this piece, as a piece of the same run."""
        assert self.waiter is not None
        run, first = cut_run(self.run, first, count), self.first + first
        return Piece(self.waiter, self.stream, run, first, count, self.submitted_us, self.deadline_us, self.order)

    @property
    def place(self) -> tuple[int, int]:
        """Its place among all that was submitted."""
        return self.order, self.first

    def fail(self, error: Rejected | Unknown) -> None:
        """Tell the waiter, once."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.fail(self.first, self.count, error)


@dataclass(slots=True, eq=False)
class Outstanding:
    """A batch of this replica that has not been answered."""

    batch: Batch
    pieces: list[Piece]
    kind: int
    busy: Keys
    """The keys in whose windows it counts."""
    decided: bool = False

    @property
    def read(self) -> bool:
        """Does it only read, of a protocol that answers reads apart?"""
        return self.kind == READS


@dataclass(slots=True)
class _Closing:
    """One pass over the queue: what goes into which batch, and what stays, in order."""

    taken: tuple[list[Piece], ...] = field(default_factory=lambda: ([], [], [], []))
    rest: deque[Piece] = field(default_factory=deque)
    ahead: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """stream -> (kind it went into, STAYS or PARKED; run) of its earlier pieces in this pass"""
    commands: int = 0
    entries: int = 0
    bytes: int = 0
    full: bool = False


class Admission:
    """The waiting commands of one replica, and its unanswered batches."""

    def __init__(
        self, *, me: int, incarnation: int, limits: Limits, entangled: Callable[[bytes], bytes], reads_apart: bool
    ) -> None:
        self.limits = limits
        self.credit = 0
        self.commands = 0
        """Commands waiting for a batch."""
        self.bytes = 0
        self.outstanding: dict[int, Outstanding] = {}
        """Batch number -> batch, from proposal to answer."""
        self.undecided = 0
        self._reads = 0
        """Unanswered batches that only read."""
        self._busy = BusyKeys(limits.entangled_window)
        self._parked: list[Piece] = []
        """Entangled commands for which the window of a key has no room. Nobody looks at them before one has."""
        self._freed = False
        """Has one, since they were looked at?"""
        self._me = me
        self._incarnation = incarnation
        self._number = 0
        self._entangled = entangled
        self._reads_apart = reads_apart
        self._queue: deque[Piece] = deque()
        self._streams: dict[int, dict[Piece, None]] = {}
        """stream -> its pieces in batches that are not decided, in order"""
        self._deadlines: list[tuple[int, int, Piece]] = []
        self._sequence = 0
        self._submitted = 0
        self._again_us: int | None = None
        """When to look at the queue again though nothing happens."""

    # -- in

    def submit(self, now_us: int, submit: Submit) -> None:
        """Queue a run, or refuse it: certainly not applied."""
        self._submitted += 1
        piece = Piece(
            submit.waiter, submit.stream, submit.run, 0, submit.count, now_us, submit.deadline_us, self._submitted
        )
        limits = self.limits
        if submit.count > limits.batch_commands or len(submit.run) > limits.batch_bytes:
            size = f"{submit.count} commands, {len(submit.run)} bytes"
            allowed = f"{limits.batch_commands} commands, {limits.batch_bytes} bytes"
            piece.fail(Rejected("too_large", f"{size} in one run; a batch holds {allowed}"))
        elif self._is_crowded(submit):
            piece.fail(Rejected("busy", f"{self.commands} commands are waiting for their turn"))
        else:
            self._queue.append(piece)
            self._watch(piece)
            self.commands += piece.count
            self.bytes += len(piece.run)

    def _is_crowded(self, submit: Submit) -> bool:
        commands, size = self.commands + submit.count, self.bytes + len(submit.run)
        return commands > self.limits.pending_commands or size > self.limits.pending_bytes

    def _watch(self, piece: Piece) -> None:
        self._sequence += 1
        heapq.heappush(self._deadlines, (piece.deadline_us, self._sequence, piece))

    def cancel(self, waiter: Waiter) -> None:
        """Drop what is not yet proposed; what is takes its course, unheard."""
        for piece in (*self._queue, *self._parked):
            if piece.waiter is waiter:
                piece.waiter = None
        for outstanding in self.outstanding.values():
            for piece in outstanding.pieces:
                if piece.waiter is waiter:
                    piece.waiter = None

    # -- batches

    def close(self, now_us: int) -> list[Outstanding]:
        """The batches to propose now, in order."""
        self._again_us = None
        if self._freed:
            self._freed = False
            self._queue = deque(sorted((*self._parked, *self._queue), key=lambda piece: piece.place))
            self._parked.clear()
        if not self._queue or not self._due(now_us):
            return []
        closing = _Closing()
        for piece in self._parked:
            closing.ahead.setdefault(piece.stream, []).append((PARKED, piece.run))
        while self._queue:
            piece = self._queue.popleft()
            if piece.waiter is None:
                self._leave(piece)
            elif closing.full:
                closing.rest.append(piece)
            else:
                for part, kind in self._parts(piece):
                    self._place(now_us, closing, part, kind)
        self._queue = closing.rest
        return [self._seal(pieces, kind) for kind, pieces in enumerate(closing.taken) if pieces]

    def _due(self, now_us: int) -> bool:
        if self.credit <= 0 and not self._takes_reads():
            return False
        return self.undecided < self.limits.batch_inflight or self._is_old(now_us, self._queue[0])

    def _takes_reads(self) -> bool:
        """May one more batch of reads go? They need no credit, and while nobody leads none of them is answered: as many
        as the window has at most, so that what comes then waits, and in the end is refused."""
        return self._reads_apart and self._reads < self.limits.window

    def _is_old(self, now_us: int, piece: Piece) -> bool:
        """Has it waited for `batch_age_us`? If not, see to it that the queue is looked at again when it has."""
        old_us = piece.submitted_us + self.limits.batch_age_us
        if old_us > now_us:
            self._again_us = old_us if self._again_us is None else min(self._again_us, old_us)
        return old_us <= now_us

    def _parts(self, piece: Piece) -> Iterator[tuple[Piece, int]]:
        """Cut a piece where its commands change kind; the common piece is clean and stays whole."""
        if is_barrier(piece.run):
            yield piece, BARRIER
            return
        kinds = self._entangled(piece.run)
        if self._reads_apart:
            reads = read_mask(piece.run)
            kinds = bytes(READS if read else kind for kind, read in zip(kinds, reads, strict=True))
        if kinds == kinds[:1] * len(kinds):
            yield piece, kinds[0]
            return
        self._leave(piece)
        first = 0
        for at in range(1, len(kinds) + 1):
            if at == len(kinds) or kinds[at] != kinds[first]:
                part = piece.cut(first, at - first)
                self._watch(part)
                self.commands += part.count
                self.bytes += len(part.run)
                yield part, kinds[first]
                first = at
        piece.waiter = None

    def _place(self, now_us: int, closing: _Closing, piece: Piece, kind: int) -> None:
        ahead = closing.ahead.setdefault(piece.stream, [])
        if kind == ENTANGLED and not self._busy.has_room(piece.run):
            place = PARKED
        elif kind == ENTANGLED and not self._is_old(now_us, piece):
            place = STAYS  # it may be clean in a moment, and a batch of its own is dear
        elif not self._has_room(closing, kind) or self._must_wait(piece, kind, ahead):
            place = STAYS
        elif self._is_full(closing, piece):
            place = STAYS
            closing.full = True
            self._again_us = now_us
        else:
            place = kind
        ahead.append((place, piece.run))
        if place == STAYS:
            closing.rest.append(piece)
        elif place == PARKED:
            self._parked.append(piece)
        else:
            closing.taken[kind].append(piece)
            closing.commands += piece.count
            closing.entries += count_entries(piece.run)
            closing.bytes += len(piece.run)

    def _has_room(self, closing: _Closing, kind: int) -> bool:
        """Does the batch of this kind take more, or does the window take one more batch? A Barrier stands alone."""
        if closing.taken[kind]:
            return kind != BARRIER
        if kind == BARRIER and not self._busy.has_room(BARRIER_RUN):
            return False
        return self._takes_reads() if kind == READS else self.credit > sum(map(bool, closing.taken[:READS]))

    def _is_full(self, closing: _Closing, piece: Piece) -> bool:
        if closing.entries + count_entries(piece.run) > MAX_ENTRIES:
            return True
        commands, size = closing.commands + piece.count, closing.bytes + len(piece.run)
        return commands > self.limits.batch_commands or size > self.limits.batch_bytes

    def _must_wait(self, piece: Piece, kind: int, ahead: list[tuple[int, bytes]]) -> bool:
        """Is an earlier conflicting command of this stream left behind, in another batch of this pass, or in a batch
        that is still undecided?"""
        if any(other != kind and conflicting(run, piece.run) for other, run in ahead):
            return True
        return any(conflicting(before.run, piece.run) for before in self._streams.get(piece.stream, ()))

    def _seal(self, pieces: list[Piece], kind: int) -> Outstanding:
        self._number += 1
        name = BatchNumber(self._me, self._incarnation, self._number)
        run = pieces[0].run if len(pieces) == 1 else merge_runs([piece.run for piece in pieces])
        batch = Batch.of(name, run, count_engine_entries(run))
        busy = keys_of(run) if kind in (ENTANGLED, BARRIER) else NO_KEYS
        self._busy.enter(busy)
        outstanding = Outstanding(batch, pieces, kind, busy)
        for piece in pieces:
            self._leave(piece)
            piece.batch = name
            self._streams.setdefault(piece.stream, {})[piece] = None
        self.outstanding[name.number] = outstanding
        self.undecided += 1
        if kind == READS:
            self._reads += 1
        else:
            self.credit -= 1
        return outstanding

    def _leave(self, piece: Piece) -> None:
        self.commands -= piece.count
        self.bytes -= len(piece.run)

    # -- outcomes

    def decided(self, name: BatchNumber) -> Outstanding | None:
        """The batch of that name is decided, if it is one of ours: its streams may go on."""
        outstanding = self._mine(name)
        if outstanding is None or outstanding.decided:
            return None
        outstanding.decided = True
        self.undecided -= 1
        for piece in outstanding.pieces:
            before = self._streams[piece.stream]
            del before[piece]
            if not before:
                del self._streams[piece.stream]
            piece.run = b""
        return outstanding

    def answered(self, name: BatchNumber) -> Outstanding | None:
        """The batch of that name was executed or settled, if it is one of ours: it is forgotten here."""
        outstanding = self._mine(name)
        if outstanding is not None:
            self.decided(name)
            del self.outstanding[name.number]
            self._reads -= outstanding.read
            self._freed = self._busy.leave(outstanding.busy) or self._freed
        return outstanding

    def _mine(self, name: BatchNumber) -> Outstanding | None:
        if name.origin != self._me or name.incarnation != self._incarnation:
            return None
        return self.outstanding.get(name.number)

    # -- time

    def expire(self, now_us: int) -> None:
        """Past its deadline a waiting command is certainly not applied, and a proposed one unknown."""
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now_us or deadlines[0][2].waiter is None):
            _, _, piece = heapq.heappop(deadlines)
            if piece.batch is None:
                piece.fail(Rejected("deadline", "no batch took it in time"))
            else:
                piece.fail(Unknown("proposed, and no result before the deadline"))

    def wake_us(self) -> int | None:
        """When something here needs a turn without an input."""
        if not self._deadlines:
            return self._again_us
        deadline_us = self._deadlines[0][0]
        return deadline_us if self._again_us is None else min(deadline_us, self._again_us)

    def shut(self) -> None:
        """No more turns will come: everybody waiting learns what is known."""
        for piece in (*self._queue, *self._parked):
            piece.fail(Rejected("closed", "the replica is shutting down"))
        for outstanding in self.outstanding.values():
            for piece in outstanding.pieces:
                piece.fail(Unknown("proposed, and the replica is shutting down"))
