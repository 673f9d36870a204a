"""The invariants of a run: one file an invariant, each with the reason why it must hold.

`Watch` feeds them while a run goes on (each hook is called only for the invariants that have it) and asks them at its
end. An invariant says No by raising `Violation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from epaxos.ids import ReplicaId
from epaxos.messages import Message
from epaxos.testing.invariants.agreement import Agreement
from epaxos.testing.invariants.answers import Answers
from epaxos.testing.invariants.ballots import OneVote
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.invariants.commitment import OwnTerm
from epaxos.testing.invariants.completeness import LeaderCompleteness
from epaxos.testing.invariants.components import Components
from epaxos.testing.invariants.convergence import Convergence
from epaxos.testing.invariants.cycles import NoCycles
from epaxos.testing.invariants.delivery import Delivery
from epaxos.testing.invariants.elections import Elections
from epaxos.testing.invariants.fresh import FreshReads
from epaxos.testing.invariants.history import HistoryLinearizable
from epaxos.testing.invariants.leaders import OneLeader
from epaxos.testing.invariants.matching import LogMatching
from epaxos.testing.invariants.once import AtMostOnce
from epaxos.testing.invariants.order import EqualOrder
from epaxos.testing.invariants.promises import Promises
from epaxos.testing.invariants.proposals import OneProposal
from epaxos.testing.invariants.registration import Registration
from epaxos.testing.invariants.serial import StrictlySerializable
from epaxos.testing.invariants.streams import StreamOrder
from epaxos.testing.invariants.visibility import Visibility
from epaxos.testing.invariants.window import Window
from epaxos.testing.record import Life, Record

ALL: tuple[type[Invariant], ...] = (
    Agreement,
    Registration,
    Window,
    Components,
    OneProposal,
    Promises,
    OneLeader,
    OneVote,
    Elections,
    LogMatching,
    LeaderCompleteness,
    OwnTerm,
    FreshReads,
    AtMostOnce,
    EqualOrder,
    Convergence,
    Delivery,
    Answers,
    Visibility,
    StreamOrder,
    StrictlySerializable,
    HistoryLinearizable,
    NoCycles,
)
"""In the order in which they judge a finished run: the first that says No names the violation."""

OUTSIDE: tuple[type[Invariant], ...] = tuple(kind for kind in ALL if not kind.inside)
"""Those that say what a run looks like from outside: mutants have to die by one of them."""

OF_ANY_MACHINE: tuple[type[Invariant], ...] = tuple(kind for kind in ALL if kind not in (HistoryLinearizable, NoCycles))
"""The two left out judge keys by themselves, of the key-value machine, and know nothing of transactions that watch."""

Hook = Callable[..., None]


class Watch:
    """The invariants of one run."""

    def __init__(self, record: Record, kinds: Sequence[type[Invariant]] = ALL) -> None:
        self._invariants = [kind(record) for kind in kinds]
        self.decided = self._hooks("decided")
        self.executed = self._hooks("executed")
        self.sent: list[Hook] = []
        """Of whoever wants to see every message, as no invariant does."""
        self._sent = {
            kind: [invariant.sent for invariant in self._invariants if kind in invariant.messages]
            for kind in {kind for invariant in self._invariants for kind in invariant.messages}
        }
        self.applied = self._hooks("applied")
        self.asked = self._hooks("asked")
        self.replied = self._hooks("replied")
        self.answered = self._hooks("answered")
        self.delivered = self._hooks("delivered")

    def _hooks(self, name: str) -> list[Hook]:
        base: Any = getattr(Invariant, name)
        return [getattr(one, name) for one in self._invariants if getattr(type(one), name) is not base]

    def sends(self, life: Life, peers: tuple[ReplicaId, ...], message: Message) -> None:
        """`message` leaves this replica for each of `peers`. Raises Violation."""
        for hook in self._sent.get(type(message), ()):
            hook(life, peers, message)
        for hook in self.sent:
            hook(life, peers, message)

    def finished(self, final: Final) -> None:
        """Judge the whole run. Raises Violation."""
        for invariant in self._invariants:
            invariant.finished(final)


__all__ = ["ALL", "OF_ANY_MACHINE", "OUTSIDE", "Final", "Invariant", "Watch"]
