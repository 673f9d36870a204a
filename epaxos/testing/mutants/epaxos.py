"""Bugs in EPaxos: its rules, and the order of execution that follows its dependencies."""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

_EPAXOS: Final = "epaxos.protocols.epaxos."

EPAXOS: Final[tuple[Mutant, ...]] = (
    Mutant(
        name="answer-before-saving",
        story="PreAcceptOK leaves before its record is durable; the voter forgets (S12; the original code's issue 28)",
        edits=(
            (
                _EPAXOS + "accept",
                "        state.save(instance)\n"
                "        state.send((peer,), PreAcceptOK(id=instance.id, dep=instance.ack_dep))",
                "        state.save(instance)\n"
                "        state.send((peer,), PreAcceptOK(id=instance.id, dep=instance.ack_dep), 0)",
            ),
        ),
        n=3,
        quick=True,
    ),
    Mutant(
        name="send-before-logging",
        story="PreAccept leaves before the coordinator's own record is durable, and is forgotten in a crash (S38)",
        edits=(
            (
                _EPAXOS + "lead",
                "state.send(state.others, self._preaccept(instance))",
                "state.send(state.others, self._preaccept(instance), 0)",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="resume-ballot-0",
        story="a restarted coordinator starts again at ballot 0, though it may have proposed there before (S18)",
        edits=(
            (
                _EPAXOS + "protocol",
                "        self.recovery.start(unfinished)\n",
                "        from epaxos.protocols.epaxos.lead import Leading\n"
                "        for i in unfinished:\n"
                "            i.phase = Phase.PRE\n"
                "            i.lead = Leading(deadline_us=0, sent_us=0)\n"
                "            i.lead.acks[state.me] = i.ack_dep\n"
                "            self.lead._deadlines[i.batch.name] = 0\n",
            ),
        ),
        quick=True,
        n=3,
    ),
    Mutant(
        name="reuse-a-slot",
        story="after a restart the lane goes on behind the last executed slot, not behind the last one submitted",
        edits=(
            (
                _EPAXOS + "lead",
                "self.next_slot = self.state.highest[self.state.me] + 1",
                "self.next_slot = self.state.executed.low[self.state.me] + 1",
            ),
            (
                _EPAXOS + "lead",
                "            if id_ not in state.live and id_ not in state.executed:\n                return id_",
                "            if id_ not in state.executed:\n"
                "                state.live.pop(id_, None)\n"
                "                self.open.pop(id_, None)\n"
                "                return id_",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="no-window",
        story="a coordinator submits while any number of its own commands is not executed (4.4, I19)",
        edits=((_EPAXOS + "lead", "max(0, self.state.window - len(self._unexecuted))", "1 << 20"),),
        quick=True,
    ),
    Mutant(
        name="forgotten-fast-commit",
        story="a fast commit is told before it is durable at its coordinator (the bold row of 1.6; S17)",
        edits=(
            (_EPAXOS + "state", "self.save(instance, urgent=fast)", "self.save(instance, urgent=False)"),
            (_EPAXOS + "state", "after=NEWEST if fast else NOTHING", "after=NOTHING"),
        ),
        quick=True,
    ),
    Mutant(
        name="forgotten-promise",
        story="RecoverOK leaves before the joined ballot is durable, and the restarted replica votes below it",
        edits=(
            (
                _EPAXOS + "accept",
                "        state.save(instance)\n        state.send((peer,), evidence(state, instance))\n    elif",
                "        state.send((peer,), evidence(state, instance), 0)\n    elif",
            ),
        ),
        n=3,
    ),
    Mutant(
        name="forgotten-vote",
        story="AcceptOK leaves before the vote is durable",
        edits=(
            (
                _EPAXOS + "vote",
                "        _vote(state, instance, message.ballot, message.payload, message.dep)\n"
                "        state.send(state.others, _vote_message(instance))",
                "        _vote(state, instance, message.ballot, message.payload, message.dep)\n"
                "        state.send(state.others, _vote_message(instance), 0)",
            ),
        ),
        n=3,
    ),
    Mutant(
        name="own-vote-at-once",
        story="a replica counts its own vote before its disk knows of it (1.6)",
        edits=(
            (
                _EPAXOS + "vote",
                "    mark = state.save(instance)\n",
                "    mark = state.save(instance)\n    _count(instance, ballot, instance.nop, dep, state.me)\n",
            ),
        ),
        n=3,
    ),
    Mutant(
        name="small-slow-quorum",
        story="the slow path is content with one vote less than a majority",
        edits=(("epaxos.quorums", "slow=n - f,", "slow=n - f - 1,"),),
        quick=True,
    ),
    Mutant(
        name="small-fast-quorum",
        story="the fast path is content with one agreeing reply less",
        edits=(("epaxos.quorums", "fast=n - e,", "fast=n - e - 1,"),),
    ),
    Mutant(
        name="fast-whatever-they-say",
        story="the fast path takes any fast quorum of replies for agreement",
        edits=(
            (
                _EPAXOS + "lead",
                "agree = sum(dep == instance.init_dep for dep in leading.acks.values())",
                "agree = acks",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="forgotten-conflicts",
        story="the conflict index is not rebuilt from the log after a restart",
        edits=(
            (
                _EPAXOS + "state",
                "                self.index.register(id_, instance.batch)",
                "                pass",
            ),
        ),
    ),
    Mutant(
        name="reads-leave-no-trace",
        story="reads are not registered, so a later write does not know of an earlier read",
        edits=(
            (
                _EPAXOS + "deps",
                "            mode = flags & READ\n",
                "            mode = flags & READ\n            if mode:\n                continue\n",
            ),
        ),
        pure=True,
    ),
    Mutant(
        name="order-of-the-walk",
        story="ids of a component run in the order in which the walk met them, which depends on where it began (S22)",
        edits=(
            (
                "epaxos.execution.graph",
                "groups.append(sorted(member.id for member in component))",
                "groups.append([member.id for member in component])",
            ),
        ),
        pure=True,
    ),
    Mutant(
        name="gaps-do-not-matter",
        story="execution does not wait for ids under a dependency vector of which nothing is known (S19)",
        edits=(
            (
                "epaxos.execution.graph",
                "            if slot > known:\n                return lane\n        return None",
                "            if slot > known:\n                return None\n        return None",
            ),
        ),
        pure=True,
    ),
    Mutant(
        name="own-lane-unordered",
        story="the initial dependencies leave out the coordinator's own earlier instances (2.6)",
        edits=(
            (
                _EPAXOS + "lead",
                "state.index.lead(id_, batch)",
                "state.index.preaccept(id_, batch, state.zero)",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="votes-are-not-evidence",
        story="a recoverer proposes without looking at the votes (R2 before R1)",
        edits=((_EPAXOS + "verdict", "    if voted:  # R1", "    if False:  # R1"),),
        quick=True,
    ),
    Mutant(
        name="never-asks",
        story="a replica that missed decisions waits for somebody to tell it",
        edits=(
            (_EPAXOS + "protocol", "            self.query.sweep(self._passed_over)\n", ""),
            (_EPAXOS + "protocol", "            self.trigger.gaps()\n", ""),
            (_EPAXOS + "protocol", "        self.query.catch_up(event.peer)\n", ""),
            (_EPAXOS + "protocol", "Blocked: EPaxos._on_blocked,", "Blocked: lambda self, e: None,"),
        ),
    ),
    Mutant(
        name="recomputed-answer",
        story="a retransmitted PreAccept overwrites the stored answer with what conflicts now (S27)",
        edits=(
            (
                _EPAXOS + "accept",
                "        state.send((peer,), PreAcceptOK(id=instance.id, dep=instance.ack_dep))\n    elif instance.bal",
                "        fresh = state.index.preaccept(instance.id, message.payload, message.init_dep)\n"
                "        instance.ack_dep = instance.dep = fresh\n"
                "        state.save(instance)\n"
                "        state.send((peer,), PreAcceptOK(id=instance.id, dep=fresh))\n    elif instance.bal",
            ),
        ),
    ),
    Mutant(
        name="no-validation",
        story="a recovery's candidate is proposed without asking what stands against it",
        edits=((_EPAXOS + "verdict", "    if not recovery.against:  # V1", "    if True:  # V1"),),
    ),
    Mutant(
        name="candidate-thrown-away",
        story="a recovery that finds no vote gives the command up, though it may have been decided fast (R3 left out)",
        edits=(
            (
                _EPAXOS + "verdict",
                "    if not agree or len(agree) < len(replies) - state.quorums.e:",
                "    if agree or not agree:",
            ),
        ),
    ),
    Mutant(
        name="fast-after-joining",
        story="a coordinator that has joined a higher ballot still commits on the fast path (I11, S9)",
        edits=(
            (
                _EPAXOS + "lead",
                "if instance.phase is not Phase.PRE or not leading.lead0 or instance.bal or",
                "if instance.phase is not Phase.PRE or",
            ),
        ),
        n=3,
    ),
    Mutant(
        name="latest-only",
        story="a dependency is the latest conflicting id alone, not all up to it, and may become a Nop (S21)",
        edits=(
            (
                _EPAXOS + "deps",
                "            slots[mode][lane] = max(slots[mode][lane], slot)\n",
                "            slots[mode][:] = [0] * self._n\n            slots[mode][lane] = slot\n",
            ),
        ),
        pure=True,
    ),
    Mutant(
        name="one-ballot-a-record",
        story="the disk holds the ballot of the vote where the joined one belongs (B11)",
        edits=(
            (
                _EPAXOS + "state",
                "return int(self.phase), self.bal, self.abal,",
                "return int(self.phase), self.abal, self.abal,",
            ),
        ),
        inside=True,
    ),
    Mutant(
        name="given-up-for-good",
        story="a command that became a Nop is not proposed again (3.4, S36)",
        edits=(
            (_EPAXOS + "lead", "            self._again.append((instance.batch, deadline_us))", "            pass"),
        ),
    ),
)
