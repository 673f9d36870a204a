"""`epaxos sim`: seeds of the simulator, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.testing.seeds import SeedResult, Summary, run_seed, run_seeds, shrink


def many(seeds: Sequence[int], *, protocol: str, n: int, jobs: int, console: Console) -> int:
    """Run them all and sum up; every violation is shown when it is found."""
    summary = Summary()
    for result in run_seeds(seeds, protocol=protocol, n=n, jobs=jobs):
        summary.add(result)
        for violation in result.violations:
            console.say(f"seed {result.seed}: {violation}")
        console.progress(f"{summary.seeds} of {len(seeds)} seeds, {len(summary.violations)} violations")
    console.progress_done()
    console.result(asdict(summary), str(summary))
    return _verdict(bool(summary.violations))


def one(seed: int, *, protocol: str, n: int, trace: bool, shrunk: bool, console: Console) -> int:
    """Run one seed, showing what it drew; `shrunk` leaves out kinds of fault for as long as it still fails."""
    result = run_seed(seed, protocol=protocol, n=n, sink=console.say if trace else None)
    if result.violations and shrunk:
        left_out, result = shrink(seed, protocol=protocol, n=n)
        console.say(f"still fails without {', '.join(left_out) or 'anything left out'}")
    console.result(asdict(result), _described(result))
    return _verdict(bool(result.violations))


def _described(result: SeedResult) -> str:
    return "\n".join(
        [
            f"seed {result.seed}: {', '.join(result.faults)}",
            f"{result.commands} commands, {result.lives} lives, {result.steps} turns, {result.messages} messages, "
            f"{result.sim_us / 1e6:.1f} simulated seconds; trace {result.trace_hash}",
            *(result.violations or ("no violation",)),
        ]
    )


def _verdict(violated: bool) -> int:
    return EXIT_FAILED if violated else EXIT_DONE
