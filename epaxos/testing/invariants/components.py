"""What is executed together is finite (protocol.md 1.7 and 4.4: what I19 is for)."""

from __future__ import annotations

from collections import Counter

from epaxos.execution.interface import Group
from epaxos.testing.invariants.base import Invariant
from epaxos.testing.record import Life


class Components(Invariant):
    """A strongly connected component holds at most `record.window` ids of one lane.

    When its coordinator sent the last of them, none of the others had run there, since whatever runs needs the whole
    component decided. A Nop depends on nothing, and so is alone.
    """

    name = "components"
    reason = "Otherwise a command may wait for ever for those that come after it."

    def executed(self, life: Life, group: Group) -> None:
        if len(group) > self.record.window:
            lane, size = Counter(id_.lane for id_ in group).most_common(1)[0]
            if size > self.record.window:
                raise self.no(f"{size} ids of lane {lane} are one component at {life}: {sorted(group)}")
