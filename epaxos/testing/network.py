"""The simulated network: what becomes of a message between leaving one replica and reaching another.

It knows nothing of replicas or of time passing: it is asked when a message that is sent now will arrive, if at all,
and which links are up. Delays are one-way and may differ by direction. Unless the seed reorders, a link is a
stream: what is sent later does not arrive earlier.
"""

from __future__ import annotations

from random import Random
from typing import Final

from epaxos.ids import ReplicaId
from epaxos.testing.faults import REORDERING, Swarm
from epaxos.testing.forks import chance

_CALM_JITTER: Final = 0.1


class Network:
    """The links between `n` replicas. `swarm` says how bad they are, until `heal`."""

    def __init__(self, n: int, swarm: Swarm, rng: Random) -> None:
        self._n = n
        self._swarm = swarm
        self._rng = rng
        self._reorders = REORDERING in swarm.kinds
        self._jitter = swarm.jitter
        self._loss = swarm.loss
        self._duplication = swarm.duplication
        self._drift = swarm.drift
        self._delay_us = [list(row) for row in swarm.delay_us]
        self._last = [[0] * n for _ in range(n)]
        self._cuts = [[0] * n for _ in range(n)]
        self._clogged = [[0] * n for _ in range(n)]

    # ------------------------------------------------------------------------------------------------- messages

    def arrivals(self, source: ReplicaId, target: ReplicaId, now_us: int) -> list[int]:
        """When a message sent now arrives: once, twice, or never."""
        if self._cuts[source][target] or chance(self._rng, self._loss):
            return []
        usual_us = delay_us = self._delay_us[source][target]
        if self._drift:
            delay_us += int(delay_us * self._drift[source][target] * now_us / self._swarm.fault_us)
        at = max(now_us + self._jittered(delay_us), self._clogged[source][target])
        if not self._reorders:
            last = self._last[source]
            at = last[target] = max(at, last[target])
        if self._duplication and chance(self._rng, self._duplication):
            return [at, at + self._jittered(usual_us)]
        return [at]

    def _jittered(self, delay_us: int) -> int:
        # A long tail: a few messages are much later than the rest, which is what reorders and what times out.
        draw = self._rng.random()
        return delay_us + int(delay_us * self._jitter * draw * draw * (8 if draw > 0.97 else 1))

    def rtt_us(self, a: ReplicaId, b: ReplicaId) -> int:
        """What a measurement of the round trip between two replicas would give."""
        return self._delay_us[a][b] + self._delay_us[b][a]

    # --------------------------------------------------------------------------------------------------- faults

    def cut(self, source: ReplicaId, target: ReplicaId) -> None:
        """Let nothing through in this direction until `mend` was called as often as `cut`."""
        self._cuts[source][target] += 1

    def mend(self, source: ReplicaId, target: ReplicaId) -> None:
        """Undo one `cut`."""
        self._cuts[source][target] = max(0, self._cuts[source][target] - 1)

    def is_cut(self, source: ReplicaId, target: ReplicaId) -> bool:
        """Does nothing get through in this direction?"""
        return self._cuts[source][target] > 0

    def clog(self, source: ReplicaId, target: ReplicaId, until_us: int) -> None:
        """Hold back what is sent in this direction until then."""
        self._clogged[source][target] = max(self._clogged[source][target], until_us)

    def heal(self) -> None:
        """From now on nothing is lost or duplicated, and delays are bounded: short, or as they were without jitter."""
        self._loss = self._duplication = 0.0
        self._jitter = min(self._jitter, _CALM_JITTER)
        self._drift = ()
        for row in range(self._n):
            for column in range(self._n):
                self._cuts[row][column] = self._clogged[row][column] = self._last[row][column] = 0
                self._delay_us[row][column] = min(self._delay_us[row][column], self._swarm.calm_us)
