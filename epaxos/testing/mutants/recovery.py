"""Bugs of EPaxos that only show where several recoveries meet: hunted in the random walks of the model.

The letters are rows of the table of known bugs (protocol.md 3.6: B1 …) and scenarios (7.3: S1 …) that seeds of whole
engines hardly ever reach.
"""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

_EPAXOS: Final = "epaxos.protocols.epaxos."

RECOVERY: Final[tuple[Mutant, ...]] = (
    Mutant(
        name="restart-forgets-other-lanes",
        story="a restarted replica does not know how far the lanes of others go, so nobody hears what it has",
        edits=(
            (
                _EPAXOS + "state",
                "            self.highest[id_.lane] = max(self.highest[id_.lane], id_.slot)\n",
                "            if id_.lane == self.me:\n"
                "                self.highest[id_.lane] = max(self.highest[id_.lane], id_.slot)\n",
            ),
        ),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="joined-ballot-for-a-vote",
        story="one ballot variable: joining a ballot makes an old vote look newest (B1, S1)",
        edits=(
            (
                _EPAXOS + "accept",
                "    elif ballot > instance.bal:\n",
                "    elif ballot > instance.bal:\n        instance.abal = instance.bal\n",
            ),
        ),
        where="walks",
        n=3,
    ),
    Mutant(
        name="own-record-first",
        story="starting a recovery raises the ballot of one's own vote as well, and it outranks real ones (B12)",
        edits=(
            (
                _EPAXOS + "recover",
                "            instance.recovery = Recovery(",
                "            instance.abal = instance.bal\n            instance.recovery = Recovery(",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="oldest-vote",
        story="a recovery repeats the vote of the lowest ballot, not of the highest (R1)",
        edits=((_EPAXOS + "verdict", "max(voted, key=", "min(voted, key="),),
        where="walks",
    ),
    Mutant(
        name="validate-without-registering",
        story="Validate looks for competitors and does not make the candidate known (S8)",
        edits=((_EPAXOS + "validate", "    if instance.init_dep is None:\n", "    if False:\n"),),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="any-competitor-wins",
        story="a recovery gives up whenever anything stands against its candidate (V4 and W2 left out)",
        edits=((_EPAXOS + "verdict", "    if any(recovery.against.values()):  # V2", "    if True:  # V2"),),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="one-competitor-too-many",
        story="W3 is content with one replica less (S6)",
        edits=((_EPAXOS + "verdict", "k > state.n - state.quorums.f", "k >= state.n - state.quorums.f"),),
        where="walks",
    ),
    Mutant(
        name="whose-coordinator-is-away",
        story="a candidate is given up when a competitor's coordinator did not answer (B3; V3 without its count)",
        edits=((_EPAXOS + "verdict", "    if minimal and any(", "    if any("),),
        where="walks",
    ),
    Mutant(
        name="first-answer-wins",
        story="a recovery keeps the first pre-accepted dependencies it hears of, its own, though others differ (B8)",
        edits=(
            (_EPAXOS + "verdict", "if r.phase == Phase.PRE and r.dep == r.init_dep]", "if r.phase == Phase.PRE]"),
            (
                _EPAXOS + "verdict",
                "return payload, agree[0].init_dep, len(agree)",
                "return payload, agree[0].dep, len(agree)",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="defers-for-ever",
        story="two recoveries that meet wait for each other (B4; V3 and W3 left out)",
        edits=(
            (_EPAXOS + "verdict", "    if minimal and any(", "    if False and any("),
            (_EPAXOS + "verdict", "    return not covers(dep, id_) and k >", "    return False and k >"),
        ),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="late-preaccept-votes",
        story="a PreAccept that arrives after a ballot was joined is still answered (S28)",
        edits=(
            (
                _EPAXOS + "accept",
                "    elif instance.bal == 0 and instance.phase is Phase.INIT:",
                "    elif instance.phase is Phase.INIT:",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="ballot-used-twice",
        story="a recovery that starts over uses its ballot again (S30)",
        edits=((_EPAXOS + "recover", "next_ballot(above, state.me", "next_ballot(max(above - 1, 0), state.me"),),
        where="walks",
    ),
    Mutant(
        name="validate-casts-a-vote",
        story="a validated candidate is reported to later recoveries as a vote (B2, S14)",
        edits=(
            (
                _EPAXOS + "validate",
                "        instance.init_dep = init_dep\n",
                "        instance.init_dep = init_dep\n"
                "        if instance.phase is Phase.INIT:\n"
                "            instance.phase, instance.abal, instance.dep = Phase.ACC, instance.bal, dep\n",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="validate-overwrites-a-vote",
        story="a Validate that arrives after Accept puts its candidate in the place of the vote (B18, S37)",
        edits=(
            (
                _EPAXOS + "validate",
                "    if instance.init_dep is None:\n",
                "    if instance.phase is Phase.ACC:\n"
                "        instance.nop, instance.dep = False, dep\n"
                "        state.save(instance)\n"
                "    if instance.init_dep is None:\n",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="any-equal-answers",
        story="the fast path takes whatever a fast quorum's answers agree on, with any quorum (B5, S13)",
        edits=(
            (
                _EPAXOS + "lead",
                "        agree = sum(dep == instance.init_dep for dep in leading.acks.values())\n",
                "        replies = [dep for peer, dep in leading.acks.items() if peer != state.me]\n"
                "        leading.equal = max(replies, key=replies.count, default=instance.init_dep)\n"
                "        agree = 1 + replies.count(leading.equal)\n",
            ),
            (
                _EPAXOS + "lead",
                "    hurry: bool = False\n",
                "    hurry: bool = False\n    equal: Vector = ()\n",
            ),
            (
                _EPAXOS + "lead",
                "self.state.commit(instance, instance.batch, instance.init_dep, fast=True)",
                "self.state.commit(instance, instance.batch, instance.lead.equal, fast=True)",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="forgotten-decisions",
        story="an id leaves the conflict index when it is decided here (B13, S20)",
        edits=(
            (
                _EPAXOS + "state",
                "        self.decided.add(instance.id)\n        self.save",
                "        self.index = type(self.index)(self.n)\n"
                "        for i in self.live.values():\n"
                "            if i.init_dep is not None and i.batch and (i.nop or i.phase is not Phase.COM):\n"
                "                self.index.register(i.id, i.batch)\n"
                "        self.decided.add(instance.id)\n        self.save",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="own-dependencies-at-commit",
        story="a replica that learns a decision keeps the dependencies it had voted for (B17)",
        edits=(
            (
                _EPAXOS + "protocol",
                "self.state.commit(instance, payload, message.dep)",
                "self.state.commit(instance, payload, (not instance.nop and instance.dep) or message.dep)",
            ),
        ),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="answers-once",
        story="a Recover that arrives again, because its answer was lost, is not answered again (S44)",
        edits=((_EPAXOS + "accept", "    elif instance.abal != ballot:\n", "    elif False:\n"),),
        where="walks",
        quick=True,
    ),
    Mutant(
        name="a-later-dependency-counts",
        story="a dependency that was decided behind the command stands against it, as a greater number does (B6, S15)",
        edits=(
            (_EPAXOS + "validate", "range(first + 1, last", "range(1, last"),
            (
                _EPAXOS + "validate",
                "if vector is None or covers(vector, id_) or",
                "if vector is None or (covers(vector, id_) and other.phase is not Phase.COM) or",
            ),
        ),
        where="walks",
    ),
    Mutant(
        name="majority-fast-quorum",
        story="a fast quorum is a majority, also of seven (B7)",
        edits=(("epaxos.quorums", "fast=n - e,", "fast=n // 2 + 1,"),),
        where="walks",
        n=7,
    ),
    Mutant(
        name="hurried-fast-path",
        story="when T_fast has passed, a slow quorum that agrees is taken for a fast one",
        edits=(
            (
                _EPAXOS + "lead",
                "        if agree >= quorums.fast:",
                "        if agree >= (quorums.slow if leading.hurry else quorums.fast):",
            ),
        ),
        where="walks",
        n=7,
    ),
    Mutant(
        name="accepted-and-not-marked",
        story="a vote is stored without the phase that makes it one, so no recovery finds it (B11)",
        edits=((_EPAXOS + "vote", "    instance.phase = Phase.ACC\n    instance.abal", "    instance.abal"),),
        where="walks",
    ),
)
