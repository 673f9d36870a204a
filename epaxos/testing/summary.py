"""What many seeds amount to: how much was run, what struck, and which transitions nobody ever made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from epaxos.protocols.registry import VIEWS
from epaxos.protocols.view import Cell
from epaxos.testing import faults
from epaxos.testing.seeds import SeedResult
from epaxos.testing.workload import COMMANDS_MIN


@dataclass(slots=True)
class Summary:
    """The sum of the results that were `add`ed."""

    seeds: int = 0
    counted: int = 0
    """Seeds with at least 50 commands and three kinds of fault."""
    commands: int = 0
    turns: int = 0
    steps: int = 0
    messages: int = 0
    lives: int = 0
    recoveries: int = 0
    instances: int = 0
    nops: int = 0
    undecided: int = 0
    sim_us: int = 0
    cpu_s: float = 0.0
    settings: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    cells: dict[str, Counter[Cell]] = field(default_factory=dict)
    """By protocol."""
    violations: list[tuple[int, str]] = field(default_factory=list)
    """(seed, what)"""

    def add(self, result: SeedResult) -> None:
        """Count one more seed."""
        self.seeds += 1
        self.counted += result.counts
        self.commands += result.commands
        self.turns += result.turns
        self.steps += result.steps
        self.messages += result.messages
        self.lives += result.lives
        self.recoveries += result.recoveries
        self.instances += result.instances
        self.nops += result.nops
        self.undecided += result.undecided
        self.sim_us += result.sim_us
        self.cpu_s += result.cpu_s
        self.settings[f"{result.protocol} n={result.n}"] += 1
        self.struck.update(result.struck)
        if result.protocol in VIEWS:
            self.cells.setdefault(result.protocol, Counter()).update(result.cells)
        self.violations += [(result.seed, what) for what in result.violations]

    def never_visited(self) -> dict[str, list[str]]:
        """By protocol: the cells that a hostile run can reach and none of these did."""
        return {
            protocol: sorted(map(str, VIEWS[protocol].cells - visited.keys()))
            for protocol, visited in sorted(self.cells.items())
        }

    def as_json(self) -> dict[str, object]:
        """Everything, as plain values."""
        plain = (
            *("seeds", "counted", "commands", "turns", "steps", "messages", "lives", "recoveries", "instances"),
            *("nops", "undecided", "sim_us", "cpu_s", "violations"),
        )
        return {
            **{name: getattr(self, name) for name in plain},
            "settings": dict(sorted(self.settings.items())),
            "struck": dict(sorted(self.struck.items())),
            "cells": {
                protocol: {str(cell): count for cell, count in sorted(cells.items())}
                for protocol, cells in sorted(self.cells.items())
            },
            "never_visited": self.never_visited(),
        }

    def __str__(self) -> str:
        speed = self.sim_us / 1e6 / self.cpu_s if self.cpu_s else 0.0
        each = 1000 * self.cpu_s / self.seeds if self.seeds else 0.0
        lines = [
            f"{self.seeds} seeds ({_listed(self.settings)}), {self.counted} of them with {COMMANDS_MIN} commands and"
            f" {faults.KINDS_MIN} kinds of fault; {each:.0f} ms of computing a seed",
            f"{self.commands} commands, {self.steps} protocol steps in {self.turns} turns, {self.messages} messages,"
            f" {self.lives} lives, {self.recoveries} recoveries",
            f"{self.instances} instances decided, {100 * self.nops / max(1, self.instances):.1f} % of them Nop",
            f"{self.sim_us / 3.6e9:.2f} simulated hours, {speed:.0f} for each hour of computing",
            f"struck: {_listed(self.struck)}",
            *map(self._covered, sorted(self.cells)),
        ]
        if self.undecided:
            lines.append(f"{self.undecided} histories too entangled to be judged from outside")
        lines.append(f"{len(self.violations)} violations")
        return "\n".join(lines)

    def _covered(self, protocol: str) -> str:
        known, never = VIEWS[protocol].cells, self.never_visited()[protocol]
        text = f"{protocol}: {len(known) - len(never)} of {len(known)} (phase, message) visited"
        return text + (f"; never: {', '.join(never)}" if never else "")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
