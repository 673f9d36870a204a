"""Catching up: what a replica missed while it was away, asked for in ranges and at a bounded rate (protocol.md 6.2).

Whoever answers reads old decisions from its disk, and has clients of its own to serve. So each lane is asked for from
its lowest gap upwards, `STEP_IDS` at a time and `STEP_US` apart, of its own coordinator first: the lanes of a returned
replica come from all peers at once, and none of them gives more than a small share of its time. Within that pace
nothing waits for a round trip, so long links do not slow it down; but no more is asked for ahead of what arrives than
came in the last two seconds, so that on a slow link little waits in the queues.

A link keeps the order of what goes over it, and breaks. So what an answer has overtaken does not come any more: whoever
was asked does not know it, or it was lost. And what was asked for on a link that broke is asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from epaxos.ids import InstanceId, Lane, ReplicaId
from epaxos.messages import SlotRange
from epaxos.protocols.epaxos.state import EPOCH, State
from epaxos.protocols.interface import SetTimer

CATCH_UP: Final = "catch up"
"""The timer of the next step."""
STEP_IDS: Final = 64
STEP_US: Final = 20_000
"""3 200 ids a second of each lane, at most."""
ANSWER_BYTES_MAX: Final = 256 << 10
"""An answer ends with the decision that makes it so long, so no more is asked for at a time than may fit."""
AHEAD_IDS: Final = 4_096
"""How far ahead of the lowest gap of a lane it is asked for, at most."""
UNDER_WAY_MIN: Final = 4 * STEP_IDS
"""Asked for and not yet there, of a lane, while little arrives: what is under way before the first answer can come."""
FLOWING_US: Final = 1_000_000
"""While the last answer is not longer ago (or two round trips), further ones are taken to be on their way behind it: a
piece of a slow link's queue takes so long."""
UNDER_WAY_S: Final = 2
"""While more arrives, as much as came in so long a time, in all lanes."""
BEHIND_IDS: Final = STEP_IDS
"""Who lacks more old decisions of others, and is being told them, is behind."""
RATE_US: Final = 1_000_000
"""The rate that people are shown is that of so long a time."""

Ask = Callable[[Lane, int, list[SlotRange]], ReplicaId]
"""(lane, how often in vain, ranges): ask somebody; tells whom."""


class CatchUp:
    """Where this replica stands in each lane."""

    def __init__(self, state: State, ask: Ask) -> None:
        self.state = state
        self._ask = ask
        self._goal = [0] * state.n
        """The slots up to here are old enough to be asked for."""
        self._asked = [0] * state.n
        """The slots up to here have been."""
        self._under_way = [deque[int]() for _ in range(state.n)]
        """Those of them whose answer can still come, ascending."""
        self._whom: list[ReplicaId | None] = [None] * state.n
        """Who was asked for them."""
        self._size_bytes = ANSWER_BYTES_MAX
        """Of the larger ones among the last decisions that came by a message."""
        self._answered_us: list[int | None] = [None] * state.n
        """When the last answer of each replica came."""
        self._since_us = [0] * state.n
        """When each lane was asked for from its lowest gap on."""
        self._began_at = [0] * state.n
        """The decided watermark when that was last begun."""
        self._vain = [0] * state.n
        """How often it was begun again since the watermark last moved."""
        self._stepping = False
        self._rate_us = 0
        self._count = 0
        self._per_s = 0

    def begin(self, lane: Lane, goal: int) -> None:
        """Ask for the gaps of `lane` up to `goal`; again from the lowest when no more answers can come, or none do."""
        low = self.state.decided.low[lane]
        self._goal[lane] = goal
        if not (self._under_way[lane] and self._flows(lane)):
            self._vain[lane] = self._vain[lane] + 1 if low == self._began_at[lane] else 0
            self._restart(lane)
        self._began_at[lane] = low
        if not self._stepping:
            self.step()

    def reach(self, lane: Lane, last: int) -> None:
        """Somebody has all decisions of `lane` up to `last`: go on to there."""
        if last > max(self._goal[lane], self.state.decided.low[lane]) and lane != self.state.me:
            self._goal[lane] = last
            self._since_us[lane] = self.state.now.mono_us
            if not self._stepping:
                self.step()

    def lost(self, peer: ReplicaId) -> None:
        """A link to or from `peer` is a new one, or gone: what it was asked and did not answer is lost."""
        for lane, whom in enumerate(self._whom):
            if whom == peer:
                self._restart(lane)
        if not self._stepping:
            self.step()

    def _restart(self, lane: Lane) -> None:
        self._asked[lane] = self.state.decided.low[lane]
        self._under_way[lane].clear()
        self._since_us[lane] = self.state.now.mono_us

    def step(self) -> None:
        """The next ids of every lane."""
        self._stepping = False
        self._measure()
        for lane, goal in enumerate(self._goal):
            slots = self._next(lane, goal)
            if slots:
                # The first time round the coordinator is asked.
                self._whom[lane] = self._ask(lane, max(0, self._vain[lane] - 1), ranges((lane, slot) for slot in slots))
        if any(asked < goal for asked, goal in zip(self._asked, self._goal, strict=True)):
            self._stepping = True
            self.state.effects.append(SetTimer(timer=CATCH_UP, at_us=self.state.now.mono_us + STEP_US))

    def _next(self, lane: Lane, goal: int) -> list[int]:
        """The next slots of a lane, from where it was asked up to, that are undecided and that this replica does not
        lead: to a leader the decision is told by whoever knows it and gets its next message."""
        decided, live = self.state.decided, self.state.live
        low, slots = decided.low[lane], list[int]()
        slot = max(self._asked[lane], low)
        end = min(goal, low + AHEAD_IDS)
        window = max(UNDER_WAY_MIN, UNDER_WAY_S * self._per_s // self.state.n)
        room = min(STEP_IDS, window - len(self._under_way[lane]), max(1, ANSWER_BYTES_MAX // (self._size_bytes + 1)))
        while slot < end and len(slots) < room:
            slot += 1
            id_ = InstanceId(EPOCH, slot, lane)
            if id_ not in decided and not (id_ in live and live[id_].led):
                slots.append(slot)
        self._asked[lane] = slot
        self._under_way[lane].extend(slots)
        return slots

    def has_its_turn(self, id_: InstanceId) -> bool:
        """Will it be asked for in this way, or has been, and answers are coming? Then nobody needs to ask for it in
        another, or to recover it."""
        lane, slot = id_.lane, id_.slot
        if slot <= self._asked[lane]:
            under_way = self._under_way[lane]
            return bool(under_way) and slot >= under_way[0] and self._flows(lane)
        return self._stepping and slot <= self._goal[lane]

    def _flows(self, lane: Lane) -> bool:
        """Do answers come from whoever was asked? What has not come yet waits behind what just has."""
        answered_us = self._last_us(lane)
        return answered_us is not None and self.state.now.mono_us - answered_us < self._patience_us()

    def is_silent(self, lane: Lane) -> bool:
        """Have answers been due for so long that none is on its way? The other end may have dropped them: a queue that
        was full."""
        return bool(self._under_way[lane]) and not self._expects(lane)

    def _expects(self, lane: Lane) -> bool:
        """Was it begun, or did an answer come, so short ago that there may be more?"""
        last_us = max(self._since_us[lane], self._last_us(lane) or 0)
        return self.state.now.mono_us - last_us < self._patience_us()

    def is_behind(self) -> bool:
        """Does this replica lack much of what is old, and is it being told? What is new is on its way to everybody."""
        lacks = self.state.decided.lacks
        told = (lane for lane in self.state.others if self._expects(lane))
        return sum(max(0, lacks(lane, self._goal[lane])) for lane in told) > BEHIND_IDS

    def _last_us(self, lane: Lane) -> int | None:
        whom = self._whom[lane]
        return None if whom is None else self._answered_us[whom]

    def _patience_us(self) -> int:
        return max(FLOWING_US, 2 * self.state.round_trip_us())

    def answered(self, peer: ReplicaId, id_: InstanceId) -> None:
        """A decision came by a message, known or not: somebody else may have been faster, and what was asked for still
        comes behind it."""
        lane, slot = id_.lane, id_.slot
        if slot <= self._asked[lane] and peer == self._whom[lane]:
            self._answered_us[peer] = self.state.now.mono_us
            under_way = self._under_way[lane]
            while under_way and under_way[0] <= slot:
                under_way.popleft()

    def learned(self, id_: InstanceId, size_bytes: int) -> None:
        """It was new, with a payload of so many bytes."""
        self._size_bytes = max(size_bytes, self._size_bytes * 7 // 8)
        if id_.slot <= self._asked[id_.lane]:
            self._count += 1
            self._measure()

    # -- for people

    def _measure(self) -> None:
        now_us = self.state.now.mono_us
        took_us = now_us - self._rate_us
        if took_us >= RATE_US:
            self._per_s = self._count * RATE_US // took_us
            self._rate_us, self._count = now_us, 0

    def status(self) -> dict[str, int]:
        """`missing`: ids that others have heard of and this replica cannot tell the decision of, those under way
        among them. `per_s`: how many it learns in this way."""
        state = self.state
        missing = sum(state.decided.lacks(lane, state.highest[lane]) for lane in range(state.n))
        self._measure()
        return {"missing": missing, "per_s": self._per_s}


def ranges(slots: Iterable[tuple[Lane, int]]) -> list[SlotRange]:
    """Consecutive slots of a lane as one range."""
    found: list[SlotRange] = []
    for lane, slot in sorted(slots):
        if found and found[-1].lane == lane and found[-1].last + 1 == slot:
            found[-1] = SlotRange(lane, found[-1].first, slot)
        else:
            found.append(SlotRange(lane, slot, slot))
    return found
