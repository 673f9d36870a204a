"""Which sessions have been idle for so long that this replica wants to end them.

Local and by the local clock, so it decides nothing: what it leads to is a Barrier that names sessions and the last
number seen of each, and every replica judges that alike (`execution/sessions.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from epaxos.ids import ReplicaId
from epaxos.session import SessionId

ENDS_MAX: Final = 256
"""Sessions that one Barrier ends."""
_EVICTED_AFTER: Final = 10
"""For want of room a session may go after so many times less than its idle time."""


class IdleSessions:
    """When this replica last executed something of each session."""

    def __init__(self, me: ReplicaId, idle_us: int) -> None:
        self._me = me
        self._idle_us = idle_us
        self.wake_us: int | None = None
        """When `due` has something to say, unless something happens before."""
        self._touched: tuple[OrderedDict[SessionId, int], ...] = (OrderedDict(), OrderedDict())
        """Of sessions opened here, and of the others, which are their own replica's business first; each with the one
        that was idle for longest in front."""

    def touch(self, sessions: Iterable[SessionId], now_us: int) -> None:
        """Something of these was executed, or they are asked to end: they count as idle from now on."""
        for session in sessions:
            queue = self._touched[session.origin != self._me]
            queue[session] = now_us
            queue.move_to_end(session)
        self.wake_us = self._soonest_us()

    def forget(self, sessions: Iterable[SessionId]) -> None:
        """These have ended."""
        for session in sessions:
            self._touched[session.origin != self._me].pop(session, None)
        self.wake_us = self._soonest_us()

    def due(self, now_us: int) -> list[SessionId]:
        """Those to end now, at most `ENDS_MAX`."""
        found: list[SessionId] = []
        if self.wake_us is None or self.wake_us > now_us:
            return found
        for patience, queue in enumerate(self._touched, 1):
            long_ago_us = now_us - patience * self._idle_us
            for session, at_us in queue.items():
                if at_us > long_ago_us:
                    break
                found.append(session)
        return found[:ENDS_MAX]

    def evictable(self, now_us: int) -> list[SessionId]:
        """The session that goes when there is no room for one more; none when all are in use. There is one at least."""
        at_us, oldest = min((at_us, session) for queue in self._touched for session, at_us in _front(queue))
        return [oldest] if now_us - at_us >= self._idle_us // _EVICTED_AFTER else []

    def _soonest_us(self) -> int | None:
        wakes = (at_us + n * self._idle_us for n, queue in enumerate(self._touched, 1) for _, at_us in _front(queue))
        return min(wakes, default=None)


def _front(queue: OrderedDict[SessionId, int]) -> list[tuple[SessionId, int]]:
    return [next(iter(queue.items()))] if queue else []
