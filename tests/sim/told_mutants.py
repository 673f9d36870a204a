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


_ANSWER: Final = (
    "        instance.dep = instance.ack_dep = state.index.preaccept(instance.id, message.payload, message.init_dep)\n"
)
ONE_BALLOT: Final = _new(
    "one-ballot-variable",
    "joining a ballot makes an old vote look like one of that ballot",
    (_EPAXOS + "state", "        instance.bal = ballot\n", "        instance.bal = instance.abal = ballot\n"),
)

TOLD: Final[tuple[tuple[str, Mutant], ...]] = (
    ("epaxos/s01-newest-vote", ONE_BALLOT),
    ("epaxos/s01b-newest-vote-of-three", ONE_BALLOT),
    ("epaxos/s02-fast-commit-survives", _known("candidate-thrown-away")),
    (
        "epaxos/s03-mutual-recovery",
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
        "epaxos/s05-more-evidence-wins",
        _new(
            "no-w3",
            "a recovery waits for a competitor however much evidence it is told of",
            (_EPAXOS + "verdict", "    k, dep = fact\n", "    k, dep = 0, fact[1]\n"),
        ),
    ),
    (
        "epaxos/s06-not-more-than-the-threshold",
        _new(
            "threshold-minus-one",
            "W3 gives way to as much evidence as the threshold",
            (_EPAXOS + "verdict", "k > state.n - state.quorums.f", "k >= state.n - state.quorums.f"),
        ),
    ),
    (
        "epaxos/s08-validate-registers",
        _new(
            "validate-without-registering",
            "Validate looks for competitors and leaves no trace",
            (_EPAXOS + "validate", "        state.index.register(instance.id, batch)\n", ""),
        ),
    ),
    ("epaxos/s09-joined-means-no-fast-path", _known("fast-after-joining")),
    (
        "epaxos/s10-late-answer-of-the-coordinator",
        _new(
            "no-w4",
            "late answers are thrown away",
            (_EPAXOS + "verdict", "    return _from_late_answers(state, id_, recovery)", "    return None"),
        ),
    ),
    ("epaxos/s12-forgotten-answer", _known("answer-before-saving")),
    ("epaxos/s13-two-different-answers", _known("fast-whatever-they-say")),
    ("epaxos/s17-fast-commit-on-disk-first", _known("forgotten-fast-commit")),
    ("epaxos/s18-never-again-at-ballot-0", _known("resume-ballot-0")),
    ("epaxos/s19-never-seen-slot", _known("gaps-do-not-matter")),
    (
        "epaxos/s20-executed-is-not-forgotten",
        _new(
            "forgotten-executed",
            "an answer leaves out what was executed here",
            (
                _EPAXOS + "accept",
                _ANSWER,
                _ANSWER.replace("instance.dep = instance.ack_dep =", "found =")
                + "        every = zip(message.init_dep, found, state.executed.low)\n"
                "        found = tuple(init if slot <= low else slot for init, slot, low in every)\n"
                "        instance.dep = instance.ack_dep = found\n",
            ),
        ),
    ),
    ("epaxos/s22-one-order-from-every-start", _known("order-of-the-walk")),
    ("epaxos/s27-duplicate-preaccept", _known("recomputed-answer")),
    (
        "epaxos/s28-late-preaccept",
        _new(
            "preaccept-at-any-ballot",
            "a replica pre-accepts at ballot 0 after it has joined a higher one",
            (
                _EPAXOS + "accept",
                "    elif instance.bal == 0 and instance.phase is Phase.INIT:",
                "    elif not instance.phase:",
            ),
        ),
    ),
    (
        "epaxos/s31-reordering-in-a-lane",
        _new(
            "no-lane-rule",
            "an answer names later ids of the lane of what it answers",
            (_EPAXOS + "deps", "self.conflicts(batch, id_.lane)", "self.conflicts(batch)"),
            pure=True,
        ),
    ),
    (
        "epaxos/s37-duplicate-validate",
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
    ("epaxos/s38-send-after-logging", _known("send-before-logging")),
    (
        "epaxos/s39-groups-are-whole",
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
    ("epaxos/s43-pipelining-across-a-nop", _known("no-order-on-a-connection")),
    (
        "epaxos/s44-lost-answers",
        _new(
            "answered-once",
            "a Recover that was answered is not answered again",
            (_EPAXOS + "accept", "    elif instance.abal != ballot:", "    elif False:"),
        ),
    ),
    (
        "epaxos/s45-nop-is-not-forgotten",
        _new(
            "forgotten-nop",
            "an answer leaves out the newest id of a lane when it is known to be a NOP",
            (
                _EPAXOS + "accept",
                _ANSWER,
                _ANSWER.replace("instance.dep = instance.ack_dep =", "found =")
                + "        known = [state.get(InstanceId(0, slot, lane)) for lane, slot in enumerate(found)]\n"
                "        nops = [one is not None and one.nop and one.phase is Phase.COM for one in known]\n"
                "        found = tuple(0 if nop else slot for slot, nop in zip(found, nops))\n"
                "        instance.dep = instance.ack_dep = found\n",
            ),
        ),
    ),
    (
        "raft/an-old-entry-is-not-counted",
        _new(
            "old-entries-counted",
            "an entry of an earlier term is committed as soon as a majority has it",
            (
                "epaxos.protocols.raft.lead",
                "if index > state.commit and state.log.term(index) == state.term:",
                "if index > state.commit:",
            ),
        ),
    ),
)
