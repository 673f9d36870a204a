"""Bugs in what every protocol runs on: the gate, the apply marks, admission and replies."""

from __future__ import annotations

from typing import Final

from epaxos.testing.mutants.base import Mutant

ENGINE: Final[tuple[Mutant, ...]] = (
    Mutant(
        name="half-a-component",
        story="the apply mark of a component is cut in the middle, and the rest runs alone after a restart (S39)",
        edits=(
            (
                "epaxos.applier",
                "        groups, self._unrecorded = self._unrecorded, []\n",
                "        groups, self._unrecorded = self._unrecorded, []\n"
                "        groups = [*groups[:-1], groups[-1][: (len(groups[-1]) + 1) // 2]]\n",
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="applied-again",
        story="after a restart what was applied from the apply marks is decided and applied a second time",
        edits=(("epaxos.engine", "            self.executor.restore(ids)\n", ""),),
        quick=True,
    ),
    Mutant(
        name="a-timeout-is-a-failure",
        story="a command that was proposed is reported as rejected when its deadline passes",
        edits=(
            (
                "epaxos.admission",
                'piece.fail(Unknown("proposed, and no result before the deadline"))',
                'piece.fail(Rejected("deadline"))',
            ),
        ),
        quick=True,
    ),
    Mutant(
        name="lazy-gate",
        story="the gate lets through what waits for a save of the same turn",
        edits=(("epaxos.gate", "        if after <= self._durable:", "        if after <= self._durable + 1:"),),
        quick=True,
    ),
    Mutant(
        name="no-order-on-a-connection",
        story="a pipelined command does not wait until its conflicting predecessor is decided (S43)",
        edits=(
            (
                "epaxos.admission",
                "        return any(conflicting(before.run, piece.run)"
                " for before in self._streams.get(piece.stream, ()))",
                "        return False",
            ),
        ),
    ),
)
