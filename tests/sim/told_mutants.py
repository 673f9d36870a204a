"""Bugs that a scenario file was written about, as sabotages: the file and the mutant that it must tell of.

Those of the registry die in the seeds as well. The others are too rare for a swarm, or change what only a story shows.
"""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants import MUTANTS, Mutant

_EPAXOS: Final = "epaxos.protocols.epaxos."


def _known(name: str) -> Mutant:
    (found,) = [mutant for mutant in MUTANTS if mutant.name == name]
    return found


def _new(name: str, story: str, *edits: tuple[str, str, str], pure: bool = False) -> Mutant:
    return Mutant(name=name, story=story, edits=edits, pure=pure)


ONE_BALLOT: Final = _new(
    "one-ballot-variable",
    "joining a ballot makes an old vote look like one of that ballot",
    (_EPAXOS + "state", "        instance.bal = ballot\n", "        instance.bal = instance.abal = ballot\n"),
)

TOLD: Final[tuple[tuple[str, Mutant], ...]] = (
    ("s01-newest-vote", ONE_BALLOT),
    ("s01b-newest-vote-of-three", ONE_BALLOT),
    ("s02-fast-commit-survives", _known("candidate-thrown-away")),
    (
        "s03-mutual-recovery",
        _new(
            "no-v3",
            "a recovery with the bare minimum of evidence waits for a competitor whose coordinator is gone",
            (
                _EPAXOS + "verdict",
                "    if minimal and any(other.lane not in recovery.quorum for other in recovery.against):  # V3",
                "    if False:  # V3",
            ),
        ),
    ),
    (
        "s06-not-more-than-the-threshold",
        _new(
            "threshold-minus-one",
            "W3 gives way to as much evidence as the threshold",
            (_EPAXOS + "verdict", "k > state.n - state.quorums.f", "k >= state.n - state.quorums.f"),
        ),
    ),
    (
        "s08-validate-registers",
        _new(
            "validate-without-registering",
            "Validate looks for competitors and leaves no trace",
            (_EPAXOS + "validate", "        state.index.register(instance.id, batch)\n", ""),
        ),
    ),
    ("s09-joined-means-no-fast-path", _known("fast-after-joining")),
    ("s12-forgotten-answer", _known("answer-before-saving")),
    ("s17-fast-commit-on-disk-first", _known("forgotten-fast-commit")),
    ("s18-never-again-at-ballot-0", _known("resume-ballot-0")),
    ("s19-never-seen-slot", _known("gaps-do-not-matter")),
    ("s22-one-order-from-every-start", _known("order-of-the-walk")),
    ("s27-duplicate-preaccept", _known("recomputed-answer")),
    (
        "s31-reordering-in-a-lane",
        _new(
            "no-lane-rule",
            "an answer names later ids of the lane of what it answers",
            (_EPAXOS + "deps", "self.conflicts(batch, id_.lane)", "self.conflicts(batch)"),
            pure=True,
        ),
    ),
    (
        "s37-duplicate-validate",
        _new(
            "validate-overwrites-votes",
            "a Validate writes the candidate over whatever was voted for (B18)",
            (
                _EPAXOS + "validate",
                "    if instance.init_dep is None:\n",
                "    instance.nop, instance.dep = False, dep\n    if instance.init_dep is None:\n",
            ),
        ),
    ),
    ("s38-send-after-logging", _known("send-before-logging")),
    (
        "s39-groups-are-whole",
        _new(
            "one-of-a-component",
            "the apply mark of a component ends behind its first member",
            (
                "epaxos.applier",
                "        groups, self._unrecorded = self._unrecorded, []\n",
                "        groups, self._unrecorded = [each[:1] for each in self._unrecorded], []\n",
            ),
        ),
    ),
    ("s43-pipelining-across-a-nop", _known("no-order-on-a-connection")),
    (
        "s45-nop-is-not-forgotten",
        _new(
            "forgotten-nop",
            "an answer leaves out the newest id of a lane when it is known to be a NOP",
            (
                _EPAXOS + "accept",
                "        instance.dep = instance.ack_dep = state.index.preaccept("
                "instance.id, message.payload, message.init_dep)\n",
                "        found = state.index.preaccept(instance.id, message.payload, message.init_dep)\n"
                "        known = [state.live.get(InstanceId(0, s, l)) or state.load(InstanceId(0, s, l))"
                " for l, s in enumerate(found)]\n"
                "        found = tuple(0 if i is not None and i.nop and i.phase is Phase.COM else s"
                " for s, i in zip(found, known))\n"
                "        instance.dep = instance.ack_dep = found\n",
            ),
        ),
    ),
)
