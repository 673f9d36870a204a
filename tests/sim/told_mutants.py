"""Bugs that a scenario file was written about, as sabotages: the file and the mutant that it must tell of.

Those of the registry die in the seeds or in the walks as well. The others change what only a story shows.
"""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants import MUTANTS, Mutant

_EPAXOS: Final = "epaxos.protocols.epaxos."
_RAFT: Final = "epaxos.protocols.raft."

_KNOWN: Final = (
    ("epaxos/s01-newest-vote", "own-record-first"),
    ("epaxos/s01-newest-vote", "oldest-vote"),
    ("epaxos/s01b-newest-vote-of-three", "joined-ballot-for-a-vote"),
    ("epaxos/s02-fast-commit-survives", "candidate-thrown-away"),
    ("epaxos/s03-mutual-recovery", "defers-for-ever"),
    ("epaxos/s04-mutual-recovery-of-seven", "defers-for-ever"),
    ("epaxos/s05-more-evidence-wins", "defers-for-ever"),
    ("epaxos/s06-not-more-than-the-threshold", "one-competitor-too-many"),
    ("epaxos/s06-not-more-than-the-threshold", "whose-coordinator-is-away"),
    ("epaxos/s07-stale-quorum", "defers-for-ever"),
    ("epaxos/s08-validate-registers", "validate-without-registering"),
    ("epaxos/s09-joined-means-no-fast-path", "fast-after-joining"),
    ("epaxos/s11-the-competitor-yields", "any-competitor-wins"),
    ("epaxos/s12-forgotten-answer", "answer-before-saving"),
    ("epaxos/s13-two-different-answers", "any-equal-answers"),
    ("epaxos/s14-evidence-stays", "validate-casts-a-vote"),
    ("epaxos/s15-no-sequence-numbers", "a-later-dependency-counts"),
    ("epaxos/s17-fast-commit-on-disk-first", "forgotten-fast-commit"),
    ("epaxos/s18-never-again-at-ballot-0", "resume-ballot-0"),
    ("epaxos/s19-never-seen-slot", "gaps-do-not-matter"),
    ("epaxos/s20-executed-is-not-forgotten", "forgotten-decisions"),
    ("epaxos/s21-no-order-through-a-nop", "latest-only"),
    ("epaxos/s22-one-order-from-every-start", "order-of-the-walk"),
    ("epaxos/s23-window-bounds-a-cycle", "no-window"),
    ("epaxos/s25-a-floor-is-not-a-record", "a-floor-marks-as-executed"),
    ("epaxos/s25-a-floor-is-not-a-record", "max-only-table"),
    ("epaxos/s26-reads-of-two-keys", "reads-leave-no-trace"),
    ("epaxos/s27-duplicate-preaccept", "recomputed-answer"),
    ("epaxos/s28-late-preaccept", "late-preaccept-votes"),
    ("epaxos/s36-false-suspicion", "given-up-for-good"),
    ("epaxos/s36b-a-nop-past-its-deadline", "resubmission-after-deadline"),
    ("epaxos/s37-duplicate-validate", "validate-overwrites-a-vote"),
    ("epaxos/s38-send-after-logging", "send-before-logging"),
    ("epaxos/s42-straggler-after-the-end", "straggler-after-close"),
    ("epaxos/s43-pipelining-across-a-nop", "no-order-on-a-connection"),
    ("epaxos/s44-lost-answers", "answers-once"),
    ("raft/an-old-entry-is-not-counted", "raft-old-term-committed"),
    ("raft/a-read-at-a-deposed-leader", "raft-read-unconfirmed"),
    ("raft/a-returning-node-is-not-a-candidate", "raft-everybody-is-asked"),
    ("raft/figure-7a-an-entry-is-missing", "raft-never-sent-again"),
    ("raft/figure-7c-an-entry-too-many", "raft-suffix-kept"),
)
"""(file, mutant of the registry)"""

_NEW: Final = (
    (
        "epaxos/s08b-registered-on-disk-first",
        Mutant(
            name="validated-before-saving",
            story="ValidateOK leaves before the registration is durable, and its sender forgets the command (1.6)",
            edits=(
                (
                    _EPAXOS + "validate",
                    "            state.send((peer,), answer)\n",
                    "            state.send((peer,), answer, 0)\n",
                ),
            ),
        ),
    ),
    (
        "epaxos/s09b-refused-means-wait",
        Mutant(
            name="outbids-at-once",
            story="a coordinator that is refused takes a ballot of its own at its next tick (2.2)",
            edits=((_EPAXOS + "trigger", "self.recoverer.outbid.get(id_, 0))", "0)"),),
        ),
    ),
    (
        "epaxos/s36c-a-gap-is-as-old-as-it-was-seen",
        Mutant(
            name="a-gap-as-old-as-the-clock",
            story="what a replica sees missing at its first tick counts as missing since its clock began",
            edits=((_EPAXOS + "trigger", "self._stuck[lane] or (-1, now_us)", "self._stuck[lane] or (0, 0)"),),
        ),
    ),
    (
        "epaxos/s44b-a-link-that-comes-up-late",
        Mutant(
            name="answered-in-vain",
            story="what a peer answered before it had a link to answer on waits for a timeout",
            edits=((_EPAXOS + "protocol", "        if message.fresh:\n", "        if False:\n"),),
        ),
    ),
    (
        "epaxos/s44c-who-returns-is-told-first",
        Mutant(
            name="leads-as-if-never-away",
            story="a replica that returns leads commands before it can know how far behind it is",
            edits=((_EPAXOS + "query", "self._unsure = bool(self.state.others)", "self._unsure = False"),),
        ),
    ),
    (
        "epaxos/s44d-who-returns-with-an-empty-disk",
        Mutant(
            name="an-empty-disk-was-never-away",
            story="a replica that returns with nothing on its disk leads commands as if it started for the first time",
            edits=((_EPAXOS + "protocol", "if event.incarnation > 1:", "if any(state.highest):"),),
        ),
    ),
    (
        "epaxos/s44d-who-returns-with-an-empty-disk",
        Mutant(
            name="silent-about-its-own-lane",
            story="the first question on a link tells how far every lane goes but that of its sender",
            edits=((_EPAXOS + "query", "(*self.state.others, self.state.me)", "self.state.others"),),
        ),
    ),
    (
        "epaxos/s07b-a-wait-ends-by-itself",
        Mutant(
            name="waits-for-ever",
            story="a wait for competitors goes on although those whom it counts on may be gone (W5)",
            edits=((_EPAXOS + "recover", "                stale.append(instance)\n", "                pass\n"),),
        ),
    ),
    (
        "epaxos/s19b-slot-taken-by-a-recovery",
        Mutant(
            name="a-slot-that-is-spent",
            story="a coordinator uses a slot of its lane that others have recovered as a gap",
            edits=(
                (
                    _EPAXOS + "lead",
                    "            if id_ not in state.live and id_ not in state.executed:\n                return id_",
                    "            return id_",
                ),
            ),
        ),
    ),
    (
        "epaxos/s24-answer-after-execution",
        Mutant(
            name="answered-at-commit",
            story="writes that return nothing are answered when they are committed, not when they have run (S24)",
            edits=(
                (
                    "epaxos.engine",
                    "                self._measure(self._out.commits, outstanding)\n",
                    "                self._measure(self._out.commits, outstanding)\n"
                    "                from epaxos.machines.kv import SET_GET, Op\n"
                    "                from epaxos.packing import decode_run\n"
                    "                entries = [entry for command in decode_run(payload.run) for entry in command]\n"
                    "                if all(e.op in (Op.SET, Op.MSET) and not e.flags & SET_GET for e in entries):\n"
                    "                    for piece in outstanding.pieces:\n"
                    "                        waiter, piece.waiter = piece.waiter, None\n"
                    "                        if waiter is not None:\n"
                    "                            waiter.reply(piece.first, piece.count, b'+OK\\r\\n' * piece.count)\n",
                ),
            ),
        ),
    ),
    (
        "epaxos/s25b-a-session-in-order",
        Mutant(
            name="in-any-order",
            story="a FIFO session applies a number that comes in front of an earlier one",
            edits=(("epaxos.execution.sessions", "if session.fifo and stamp.number", "if False and stamp.number"),),
        ),
    ),
    *(
        (
            name,
            Mutant(
                name="commit-of-another-ballot",
                story="whoever leads a ballot pays no heed to a decision that was made at another one",
                edits=(
                    (
                        _EPAXOS + "accept",
                        "    if payload is None:\n        return None\n",
                        "    if payload is None or instance.recovery is not None:\n        return None\n",
                    ),
                ),
            ),
        )
        for name in ("epaxos/s10b-late-commit-of-the-coordinator", "epaxos/s29-stale-ballots")
    ),
    (
        "epaxos/s29-stale-ballots",
        Mutant(
            name="votes-of-any-ballot",
            story="a vote of an earlier ballot counts for the present one (S29)",
            edits=(
                (
                    _EPAXOS + "vote",
                    "    _count(instance, message.ballot, message.nop, message.dep, peer)\n",
                    "    _count(instance, max(message.ballot, instance.abal), message.nop, message.dep, peer)\n",
                ),
            ),
        ),
    ),
    (
        "epaxos/s29b-a-nop-vote-holds-no-payload",
        Mutant(
            name="every-voter-holds-it",
            story="a vote for a Nop is taken for a sign that its sender holds the command",
            edits=((_EPAXOS + "vote", "instance.lead is not None and not message.nop", "instance.lead is not None"),),
        ),
    ),
    (
        "epaxos/s30-restart-of-a-recoverer",
        Mutant(
            name="stale-answers-count",
            story="answers to an earlier ballot of one's own are counted for the present one (S29)",
            edits=(
                (
                    _EPAXOS + "recover",
                    "instance.recovery is not None and instance.recovery.ballot == message.ballot:\n"
                    "            if message.payload",
                    "instance.recovery is not None:\n            if message.payload",
                ),
            ),
        ),
    ),
    (
        "epaxos/s45-nop-is-not-forgotten",
        Mutant(
            name="forgotten-nop",
            story="an id that is known to be a Nop is left out of later answers (D3)",
            edits=(
                (
                    _EPAXOS + "state",
                    "        self.decided.add(instance.id)\n        self.save",
                    "        if instance.nop:\n"
                    "            self.index = type(self.index)(self.n)\n"
                    "            for i in self.live.values():\n"
                    "                if i.init_dep is not None and i.batch and not (i.nop and i.phase is Phase.COM):\n"
                    "                    self.index.register(i.id, i.batch)\n"
                    "        self.decided.add(instance.id)\n        self.save",
                ),
            ),
        ),
    ),
    (
        "epaxos/s10-late-answer-of-the-coordinator",
        Mutant(
            name="no-w4",
            story="late answers are thrown away",
            edits=((_EPAXOS + "verdict", "    return _from_late_answers(state, id_, recovery)", "    return None"),),
        ),
    ),
    (
        "epaxos/s31-reordering-in-a-lane",
        Mutant(
            name="no-lane-rule",
            story="an answer names later ids of the lane of what it answers",
            edits=((_EPAXOS + "deps", "self.conflicts(batch, id_.lane)", "self.conflicts(batch)"),),
            pure=True,
        ),
    ),
    (
        "epaxos/s39-groups-are-whole",
        Mutant(
            name="one-of-a-component",
            story="the apply mark of a component ends behind its first member",
            edits=(
                (
                    "epaxos.applier",
                    "        groups, self._unrecorded = self._unrecorded, []\n",
                    "        groups, self._unrecorded = [each[:1] for each in self._unrecorded], []\n",
                ),
            ),
        ),
    ),
    (
        "raft/a-transfer-waits-for-the-log",
        Mutant(
            name="raft-transfer-to-one-far-behind",
            story="a leader stops taking proposals for one who lacks any number of entries",
            edits=((_RAFT + "transfer", "if alive and progress.match >= self._ends[0]:", "if alive:"),),
            protocol="raft",
        ),
    ),
    (
        "raft/a-transfer-is-given-up",
        Mutant(
            name="raft-transfer-for-ever",
            story="a leader that has begun to hand over takes no proposals until the other leads, if ever",
            edits=((_RAFT + "transfer", "            if now_us >= self._until_us:\n", "            if False:\n"),),
            protocol="raft",
        ),
    ),
)

_REGISTRY: Final = {mutant.name: mutant for mutant in MUTANTS}
TOLD: Final[tuple[tuple[str, Mutant], ...]] = (
    *((name, _REGISTRY[mutant]) for name, mutant in _KNOWN),
    *_NEW,
)
