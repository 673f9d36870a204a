"""`epaxos sim`: seeds of the simulator, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from epaxos.console import EXIT_FAILED, Console
from epaxos.errors import ConfigError
from epaxos.testing.faults import KINDS
from epaxos.testing.reading import ScenarioError
from epaxos.testing.retelling import retold
from epaxos.testing.seeds import SEEDS_A_JOB, SeedResult, run_seed, run_seeds, setting, spare_collector
from epaxos.testing.shrinking import Shrunk, shrink
from epaxos.testing.summary import Summary

_AS_FILE: Final = "as a scenario file (see docs/how-to/write-a-scenario.md):"


def many(seeds: Sequence[int], *, protocol: str | None, n: int | None, jobs: int, console: Console) -> int:
    """Run them all and sum up; every violation is shown when it is found. Interrupted, it sums up what was run."""
    summary = Summary()
    jobs = max(1, min(jobs, len(seeds) // SEEDS_A_JOB))
    if jobs == 1:
        spare_collector()
    with console.until_interrupted():
        for result in run_seeds(seeds, protocol=protocol, n=n, jobs=jobs):
            summary.add(result)
            for violation in result.violations:
                console.say(f"seed {result.seed}: {violation}")
            console.progress(f"{summary.seeds} of {len(seeds)} seeds, {len(summary.violations)} violations")
    console.progress_done()
    console.result(summary.as_json(), str(summary))
    return _verdict(bool(summary.violations), console)


def one(
    seed: int,
    *,
    protocol: str | None,
    n: int | None,
    without: Sequence[str],
    commands: int | None,
    trace: bool,
    shrunk: bool,
    console: Console,
) -> int:
    """Run one seed, showing what it drew; `shrunk` makes a failing one as small as can be.

    Raises ConfigError for a kind of fault that there is not.
    """
    unknown = [kind for kind in without if kind not in KINDS]
    if unknown:
        raise ConfigError(f"no kind of fault {', '.join(unknown)}; there are {', '.join(KINDS)}")
    sink = console.say if trace else None
    chosen = setting(seed, protocol, n)
    result = run_seed(seed, protocol=chosen.protocol, n=chosen.n, without=without, commands=commands, sink=sink)
    if result.violations and shrunk:
        small = shrink(seed, protocol=chosen.protocol, n=chosen.n, progress=console.progress)
        console.progress_done()
        console.say(
            f"the smallest of {small.runs} runs: {small.commands} commands, {len(small.result.faults)} kinds of fault"
        )
        scenario = _retold(small, console)
        file = "" if scenario is None else f"\n{_AS_FILE}\n\n{scenario.rstrip()}"
        console.result({**_as_json(small.result), "scenario": scenario}, _described(small.result) + file)
        return EXIT_FAILED
    console.result(_as_json(result), _described(result))
    return _verdict(bool(result.violations), console)


def _as_json(result: SeedResult) -> dict[str, object]:
    return {**asdict(result), "cells": {str(cell): count for cell, count in sorted(result.cells.items())}}


def _retold(small: Shrunk, console: Console) -> str | None:
    try:
        scenario = retold(small, progress=console.progress)
    except ScenarioError as error:
        scenario = None
        console.say(f"there is no scenario file of it: {error}")
    console.progress_done()
    return scenario


def _described(result: SeedResult) -> str:
    return "\n".join(
        [
            f"seed {result.seed}, {result.protocol} n={result.n}: {', '.join(result.faults)}",
            f"{result.commands} commands, {result.lives} lives, {result.steps} protocol steps, "
            f"{result.messages} messages, {result.sim_us / 1e6:.1f} simulated seconds; trace {result.trace_hash}",
            *(result.violations or ("no violation",)),
        ]
    )


def _verdict(violated: bool, console: Console) -> int:
    return EXIT_FAILED if violated else console.exit_done
