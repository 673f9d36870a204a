"""Commands on several lists are strictly serializable, by nothing but what clients saw."""

from __future__ import annotations

from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.invariants.history import observed
from epaxos.testing.listwise import judge_lists


class NoCycles(Invariant):
    """From the outside only: what was appended to which list, what reads saw, and when. The history of each key by
    itself says nothing of a command on several keys of which another one saw only a part."""

    name = "cycles"
    reason = "A command on several keys takes effect at one moment, for all of them, and between two others (4.3)."

    def finished(self, final: Final) -> None:
        anomaly = judge_lists(observed(self.record))
        if anomaly is not None:
            raise self.no(f"{anomaly.kind}: {anomaly.text}")
