"""Sabotage on purpose: every mutant is a bug that somebody really made, and must die in the seeds.

A simulator that lets one live is not yet a simulator. `epaxos mutants` hunts them; each dies by what a run looks like
from outside (agreement, order, linearizability, durability, liveness, a replica that stops), never by an invariant of
the protocol's inside, which may stand right beside the sabotage. The few that show outside too rarely say so.

`epaxos.py` and `raft.py` hold the bugs of a protocol, `recovery.py` those that die in the walks of the model,
`engine.py` and `sessions.py` those of what all protocols run on.
"""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant
from epaxos.testing.mutants.engine import ENGINE
from epaxos.testing.mutants.epaxos import EPAXOS
from epaxos.testing.mutants.hunt import HUNT_STRIDE, Hunt, hunt, hunts, retold, row, told_under
from epaxos.testing.mutants.raft import RAFT
from epaxos.testing.mutants.recovery import RECOVERY
from epaxos.testing.mutants.sessions import SESSIONS

__all__ = ["MUTANTS", "Mutant", "Hunt", "HUNT_STRIDE", "hunt", "hunts", "retold", "row", "told_under"]

MUTANTS: Final[tuple[Mutant, ...]] = (*EPAXOS, *RECOVERY, *ENGINE, *SESSIONS, *RAFT)
