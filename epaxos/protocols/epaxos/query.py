"""Learning what was missed: CommitQuery and its answers (protocol.md 3.1, steps 1 and 5).

Two needs, one message. Execution waits for an id: ask its coordinator after a round trip, then everybody, in turn.
And a replica that was away, or lost a frame, has gaps nobody waits for: a slow sweep compares what it has decided with
the highest slot it has heard of, and now and then asks beyond that; `catchup` asks for the gaps, one after another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from epaxos.ids import MAX_SLOT, InstanceId, Lane, ReplicaId
from epaxos.messages import MAX_RANGES, CommitQuery, SlotRange
from epaxos.protocols.epaxos.catchup import ANSWER_BYTES_MAX, STEP_IDS, CatchUp, ranges
from epaxos.protocols.epaxos.state import EPOCH, RESEND_DOUBLINGS_MAX, Instance, Phase, State
from epaxos.protocols.interface import NOTHING

ANSWERS_MAX: Final = STEP_IDS
"""Commits sent for one query; what is beyond them is asked for again."""
ANSWERED_MAX: Final = 16_384
"""Answers that are remembered, so that they are not given again while they may be under way."""
ANSWER_AGAIN_US: Final = 1_000_000
"""After so long an answer is given again, then after twice as long, …; others are asked meanwhile."""
SWEEPS_TO_OPEN_END: Final = 8
"""Every so many sweeps the query has an open end, for slots of which nothing was ever heard. A lane whose first gap
stays what it was is asked about in ever fewer sweeps, down to these: what is not decided cannot be told."""


class Query:
    """What this replica asks, and how it answers."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.catching_up = CatchUp(state, self._ask_lane)
        self.sweeps = 0
        self._linked = False
        """Did a link come up since the last sweep?"""
        self._unsure = False
        """Has this replica a past, and nobody told it yet how far the others are?"""
        self._asked: dict[InstanceId, tuple[int, int]] = {}
        """id that is waited for -> (when it may be asked for again, times asked)"""
        self._settled = [0] * state.n
        """Per lane, the highest slot heard of one sweep ago: old enough that its Commit is not simply under way."""
        self._answered: dict[tuple[ReplicaId, InstanceId], tuple[int, int]] = {}
        """(whom, what it was told the decision of) -> (when last, how often before), the oldest first."""
        self._swept: list[tuple[int, int, int]] = [(0, 0, 0)] * state.n
        """Per lane: the decided watermark when it was asked about, sweeps since then, sweeps to let pass."""

    # -- asking

    def need(self, ids: Iterable[InstanceId]) -> list[tuple[InstanceId, int]]:
        """These are waited for: the first time let the Commit under way arrive, then ask. (id, times asked) of each."""
        state, due = self.state, []
        patience_us = state.round_trip_us()
        asked: dict[InstanceId, tuple[int, int]] = {}
        for id_ in ids:
            if self.catching_up.has_its_turn(id_):
                continue
            under_way_us = 0 if id_.lane in state.gone else patience_us
            at_us, times = self._asked.get(id_, (state.now.mono_us + under_way_us, 0))
            if state.now.mono_us >= at_us:
                due.append((id_, times))
                at_us, times = state.now.mono_us + patience_us, times + 1
            asked[id_] = (at_us, times)
        self._asked = asked
        by_peer: dict[ReplicaId, list[InstanceId]] = {}
        for id_, times in due:
            by_peer.setdefault(self._whom(id_.lane, times), []).append(id_)
        for peer, wanted in by_peer.items():
            self._ask(peer, ranges((id_.lane, id_.slot) for id_ in wanted))
        return [(id_, times) for id_, (_, times) in asked.items()]

    def _whom(self, lane: int, times: int) -> ReplicaId:
        """The coordinator first, then everybody in turn; those whose link is down only if there is nobody else."""
        state = self.state
        order = [p for p in (lane, *(p for p in state.others if p != lane)) if p != state.me]
        likely = [p for p in order if p not in state.suspected] or order
        return likely[times % len(likely)]

    def sweep(self, passed_over: int = 0) -> None:
        """Ask for the gaps below what was heard of one sweep ago; every few sweeps, beyond it, and somebody else. Those
        that were passed over count."""
        state = self.state
        if not state.others:
            return
        self.sweeps += passed_over + 1
        if self._linked:
            # What was missed is not under way.
            self._linked = False
            self._settled = list(state.highest)
        for lane in range(state.n):
            if self._is_worth_asking(lane) or self.catching_up.is_silent(lane):
                self.catching_up.begin(lane, self._settled[lane])
        turns, rest = divmod(self.sweeps, SWEEPS_TO_OPEN_END)
        if not rest:
            by_peer: dict[ReplicaId, list[Lane]] = {}
            for lane in state.others:
                by_peer.setdefault(self._whom(lane, turns), []).append(lane)
            for peer, lanes in by_peer.items():
                self._ask_beyond(peer, lanes, self._settled)
        self._settled = list(state.highest)

    def sweeps_before_open_end(self) -> int:
        """How many sweeps come before the next one that asks for what is beyond all that was heard of."""
        return -(self.sweeps + 1) % SWEEPS_TO_OPEN_END

    def _ask_lane(self, lane: int, vain: int, ranges: list[SlotRange]) -> ReplicaId:
        peer = self._whom(lane, vain)
        self._ask(peer, ranges)
        return peer

    def _is_worth_asking(self, lane: int) -> bool:
        """Is there a gap, and is it new, or has it been left alone long enough? Counts the sweeps."""
        low = self.state.decided.low[lane]
        if low >= self._settled[lane]:
            return False
        asked_low, passed, pause = self._swept[lane]
        if low != asked_low:
            passed = pause = 0
        if passed < pause:
            self._swept[lane] = (low, passed + 1, pause)
            return False
        self._swept[lane] = (low, 0, min(2 * pause + 1, SWEEPS_TO_OPEN_END - 1))
        return True

    def catch_up(self, peer: ReplicaId) -> None:
        """A link came up: this replica may have been away. Ask this peer how far everybody is, and what comes first;
        the own lane comes last, so that whoever was away himself learns how far it goes. What was told on the link
        before may be lost."""
        self._linked = True
        self._swept = [(0, 0, 0)] * self.state.n
        self._answered = {key: when for key, when in self._answered.items() if key[0] != peer}
        self._ask_beyond(peer, (*self.state.others, self.state.me), self.state.decided.low, fresh=True)
        self.catching_up.lost(peer)

    def link_down(self, peer: ReplicaId) -> None:
        """What `peer` was asked is asked of others."""
        self.catching_up.lost(peer)

    # -- how far behind

    def returned(self) -> None:
        """This replica may have been away. Nobody can answer it before there is a link to it, and the first question
        that comes on one tells whether it was."""
        self._unsure = bool(self.state.others)

    def reachable(self, peer: ReplicaId, ranges: Iterable[SlotRange]) -> None:
        """This is the first question on a new link from `peer`, which has all that comes before what it asks for. What
        it was asked earlier it has answered in vain."""
        state = self.state
        self._unsure = False
        self.catching_up.lost(peer)
        for lane, first, _ in ranges:
            state.highest[lane] = max(state.highest[lane], first - 1)
            self.catching_up.reach(lane, first - 1)

    def is_behind(self) -> bool:
        """May this replica lack much of what is old?"""
        return self._unsure or self.catching_up.is_behind()

    def _ask_beyond(self, peer: ReplicaId, lanes: Iterable[Lane], slots: list[int], *, fresh: bool = False) -> None:
        """For all that this peer knows of these lanes behind these slots."""
        self._ask(peer, [SlotRange(lane, slots[lane] + 1, MAX_SLOT) for lane in lanes], fresh=fresh)

    def _ask(self, peer: ReplicaId, ranges: list[SlotRange], *, fresh: bool = False) -> None:
        # A question reveals nothing that the disk would have to hold first.
        query = CommitQuery(epoch=EPOCH, ranges=tuple(ranges[:MAX_RANGES]), fresh=fresh)
        self.state.send((peer,), query, NOTHING)

    # -- answering

    def on_query(self, peer: ReplicaId, message: CommitQuery) -> None:
        """Commit for every decided slot of the ranges, up to a bound; silence for the others, and for what may be under
        way. For a range without an end the last one comes first: it says how far the lane goes."""
        state, sent, size = self.state, 0, 0
        for lane, first, last in message.ranges:
            if last == MAX_SLOT and state.highest[lane] > first:
                self._answer(peer, InstanceId(message.epoch, state.highest[lane], lane))
        for lane, first, last in message.ranges:
            for slot in range(first, min(last, state.highest[lane]) + 1):
                instance = self._answer(peer, InstanceId(message.epoch, slot, lane))
                if instance is None:
                    continue
                sent += 1
                size += 0 if instance.batch is None else len(instance.batch.data)
                if sent >= ANSWERS_MAX or size >= ANSWER_BYTES_MAX:
                    return

    def _answer(self, peer: ReplicaId, id_: InstanceId) -> Instance | None:
        """Tell it what is decided, unless it was told a short while ago: copies would gather behind the first one on a
        slow link. Gives what was told."""
        key, now_us = (peer, id_), self.state.now.mono_us
        known = self._answered.get(key)
        if known is not None and now_us - known[0] < ANSWER_AGAIN_US << min(known[1], RESEND_DOUBLINGS_MAX):
            return None
        instance = self.state.get(id_)
        if instance is None or instance.phase is not Phase.COM:
            return None
        self._answered.pop(key, None)
        self._answered[key] = now_us, 0 if known is None else known[1] + 1
        if len(self._answered) > ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]
        self.state.tell((peer,), instance)
        return instance
