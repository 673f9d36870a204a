"""When a recovery starts (protocol.md 3.1): by one replica first, and never in step with the others.

What a coordinator that is taken for dead left undecided is recovered at once, whether or not anybody waits for it:
nobody else will finish it. While its coordinator seems alive, an id that is needed (execution or a recovery waits for
it) is asked for several times first: asking is cheap, and a recovery may turn a slow command into a Nop. Replicas take
turns by a rank that a hash of the id and the attempt gives; the next one begins when the message of the one before it
would have arrived, and then backs off, with jitter. Gaps of which nothing is known come last: they hold up the
contiguous watermarks only; after seconds, and in ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from epaxos.ids import Ballot, InstanceId
from epaxos.protocols.epaxos.recover import Recoverer
from epaxos.protocols.epaxos.state import EPOCH, Instance, Phase, State
from epaxos.protocols.interface import SetTimer

TURN: Final = "turn"
"""The timer of this replica's turns to recover what coordinators left that are taken for dead."""
TURNS_APART: Final = 8
"""It rings at most so many times while one turn lasts."""
RANK_SLOTS: Final = 16
"""Consecutive slots of a lane that are the same replica's turn, so that one message names many."""
ASKS_IF_GONE: Final = 1
ASKS_IF_ALIVE: Final = 6
"""CommitQueries for a needed id before it is recovered, a round trip apart."""
GAP_ROUND_TRIPS: Final = 24
"""For how long a gap nobody waits for is left alone."""
GAP_IDS: Final = 64
"""Ids of a lane recovered as gaps at a time."""


class Trigger:
    """Decides who recovers what, and when."""

    def __init__(self, state: State, recoverer: Recoverer) -> None:
        self.state = state
        self.recoverer = recoverer
        self._due: dict[InstanceId, tuple[Ballot, int]] = {}
        """id -> the highest ballot known when this was worked out, and when it is this replica's turn to recover it."""
        self._stuck: list[tuple[int, int] | None] = [None] * state.n
        """Per lane, the decided watermark and since when it is known to stand there."""

    def needed(self, asked: Iterable[tuple[InstanceId, int]]) -> None:
        """(id, times asked) of what execution or a recovery waits for."""
        start = []
        for id_, times in asked:
            enough = ASKS_IF_GONE if id_.lane in self.state.gone else ASKS_IF_ALIVE
            if (times >= enough or self.state.eager) and self.is_idle(id_) and self._my_turn(id_):
                start.append(self.state.touch(id_))
        self.recoverer.start(start)

    def orphans(self) -> None:
        """What is known of the lanes of the gone and undecided; and when to look again."""
        state = self.state
        if not state.gone:
            return
        start, later = [], []
        for id_, instance in state.live.items():
            if id_.lane in state.gone and instance.batch is not None and self.is_idle(id_):
                if self._my_turn(id_):
                    start.append(instance)
                else:
                    later.append(self._due[id_][1])
        self.recoverer.start(start)
        if later:
            soonest_us = state.now.mono_us + self._turn_us() // TURNS_APART
            state.effects.append(SetTimer(timer=TURN, at_us=max(soonest_us, min(later))))

    def own(self, ids: Iterable[InstanceId]) -> None:
        """Own ids that this incarnation may not finish at ballot 0 and nobody seems to finish for it."""
        self.recoverer.start([self.state.live[i] for i in ids if self.is_idle(i) and self._my_turn(i)])

    def gaps(self) -> None:
        """Look whether a lane's watermark has stood still for long below something decided or heard of."""
        state, now_us = self.state, self.state.now.mono_us
        patience_us = GAP_ROUND_TRIPS * state.round_trip_us()
        for lane in range(state.n):
            low, since_us = self._stuck[lane] or (-1, now_us)
            if state.decided.low[lane] != low or state.highest[lane] == low:
                self._stuck[lane] = (state.decided.low[lane], now_us)
            elif lane != state.me and now_us - since_us > patience_us:
                self._recover_gaps(lane)

    def _recover_gaps(self, lane: int) -> None:
        ids = []
        for first, last in self.state.decided.gaps(lane, self.state.highest[lane], GAP_IDS):
            ids += [InstanceId(EPOCH, slot, lane) for slot in range(first, min(last, first + GAP_IDS - 1) + 1)]
        due = [i for i in ids[:GAP_IDS] if self.is_idle(i) and self._my_turn(i)]
        self.recoverer.start([self.state.touch(i) for i in due])

    def is_idle(self, id_: InstanceId) -> bool:
        """Undecided, and not being led by this replica at any ballot."""
        instance: Instance | None = self.state.get(id_)
        return instance is None or (instance.phase is not Phase.COM and not instance.led)

    def _my_turn(self, id_: InstanceId) -> bool:
        """As many turns after the first time as others come before it; then backing off, with jitter: two recoverers
        must not duel, and not in step. Whoever joins a ballot, or is refused because of one, begins to wait anew: he
        gives its leader the time to finish."""
        state = self.state
        instance = state.live.get(id_)
        ballot = max(0 if instance is None else instance.bal, self.recoverer.outbid.get(id_, 0))
        if id_ not in self._due or self._due[id_][0] != ballot:
            attempt = self.recoverer.attempts.get(id_, 0)
            wait_us = self._rank(id_, attempt) * self._turn_us()
            if attempt or ballot:
                back_off_us = self.recoverer.back_off_us(id_)
                wait_us += back_off_us + state.rng.randrange(0, back_off_us)
            self._due[id_] = ballot, state.now.mono_us + wait_us
        if state.now.mono_us < self._due[id_][1]:
            return False
        del self._due[id_]
        return True

    def _turn_us(self) -> int:
        """How long a replica waits for word from the one whose turn is before its own: beyond the longest way."""
        state = self.state
        return max(state.retry_us, max(state.rtt_us) * 5 // 8)

    def _rank(self, id_: InstanceId, attempt: int) -> int:
        """How many unsuspected replicas come before this one; own ids are this replica's business first."""
        state = self.state
        if id_.lane == state.me:
            return 0
        first = (id_.slot // RANK_SLOTS * 7 + id_.lane + attempt) % state.n
        order = [(first + i) % state.n for i in range(state.n)]
        before = order[: order.index(state.me)]
        return sum(peer not in state.suspected and peer != id_.lane for peer in before)

    def settled(self, id_: InstanceId) -> None:
        """A decision came."""
        self._due.pop(id_, None)
