"""Make a failing seed smaller: fewer commands, fewer kinds of fault, for as long as it still fails in the same way.

A seed draws each source of chance from a fork of its own, so what is left out leaves the rest as it was. What comes out
is a run with less in it, which replays from its number and what was left out. `retelling` makes a story of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from epaxos.protocols.registry import Factory
from epaxos.testing.loop import KV, Play
from epaxos.testing.seeds import SeedResult, replay_with, run_seed

RUNS_MAX: Final = 200
"""A shrink gives up looking for something smaller after so many runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The smallest run that was found to fail as the whole seed does."""

    result: SeedResult
    without: tuple[str, ...]
    """Kinds of fault that were left out."""
    commands: int
    """So many of the clients' commands are left."""
    runs: int
    """How many it took."""
    replay: str
    """The command line that runs it."""


class _Shrink:
    """One shrink: the smallest failing run so far."""

    def __init__(self, seed: int, protocol: str | Factory, n: int, play: Play, progress: Callable[[str], None]) -> None:
        self.seed = seed
        self.play = play
        self.protocol = protocol
        self.n = n
        self.progress = progress
        self.runs = 0
        self.without: tuple[str, ...] = ()
        self.result = self._run(None, ())
        if not self.result.violations:
            raise ValueError(f"seed {seed} does not fail")
        self.commands = self.result.commands

    def _run(self, commands: int | None, without: tuple[str, ...]) -> SeedResult:
        self.runs += 1
        return run_seed(self.seed, protocol=self.protocol, n=self.n, play=self.play, commands=commands, without=without)

    def _fails(self, commands: int, without: tuple[str, ...]) -> bool:
        """Does it still fail, by the same invariant? Then it is the smallest so far."""
        if self.runs >= RUNS_MAX:
            return False
        tried = self._run(commands, without)
        if not tried.violations or _invariant(tried) != _invariant(self.result):
            return False
        self.commands, self.without, self.result = min(commands, tried.commands), without, tried
        self.progress(f"still fails with {self.commands} commands and {len(tried.faults)} kinds of fault")
        return True

    def fewer_commands(self) -> bool:
        """Try to leave out half of them, then less and less at a time."""
        before, step = self.commands, self.commands // 2
        while step:
            if not self._fails(self.commands - step, self.without):
                step //= 2
            step = min(step, self.commands - 1)
        return self.commands < before

    def fewer_faults(self) -> bool:
        """Try to leave out each kind."""
        before = self.without
        for kind in self.result.faults:
            self._fails(self.commands, (*self.without, kind))
        return self.without != before


def shrink(
    seed: int,
    *,
    protocol: str | Factory = "epaxos",
    n: int = 5,
    play: Play = KV,
    progress: Callable[[str], None] = lambda _: None,
) -> Shrunk:
    """Shrink a failing seed; `progress` hears of every smaller run. Raises ValueError for a seed that does not fail."""
    found = _Shrink(seed, protocol, n, play, progress)
    while found.fewer_commands() | found.fewer_faults():
        pass
    replay = replay_with(seed, protocol, n, without=found.without, commands=found.commands)
    return Shrunk(result=found.result, without=found.without, commands=found.commands, runs=found.runs, replay=replay)


def _invariant(result: SeedResult) -> str:
    return result.violations[0].partition(":")[0]
