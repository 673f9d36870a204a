"""`epaxos mutants`: is the simulator able to find the bugs it is meant to find?"""

from __future__ import annotations

from collections.abc import Sequence

from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.errors import ConfigError
from epaxos.tables import Column, render
from epaxos.testing.mutants import MUTANTS, Hunt, Mutant, hunt, hunts, retold, row
from epaxos.testing.reading import ScenarioError


def chosen(names: Sequence[str], *, quick: bool, protocol: str | None = None) -> tuple[Mutant, ...]:
    """The mutants of these names, or all; with `quick` only those that are hunted for every change, with `protocol`
    only those that are hunted in runs of that protocol.

    Raises ConfigError for a name that there is not.
    """
    known = [mutant.name for mutant in MUTANTS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"no mutant {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(
        each
        for each in MUTANTS
        if (not names or each.name in names)
        and (each.quick or not quick)
        and (protocol is None or each.protocol == protocol)
    )


def tell(mutants: tuple[Mutant, ...], *, seeds_max: int, console: Console) -> int:
    """Hunt a mutant once, and tell what killed it in as few steps as can be. Raises ConfigError unless it is one."""
    if len(mutants) != 1:
        raise ConfigError(f"--tell is about one mutant, and {len(mutants)} are meant: give its name")
    (mutant,) = mutants
    console.progress(f"hunting {mutant.name}")
    found = hunt(mutant, first=0, seeds_max=seeds_max)
    value = {"mutant": mutant.name, "story": mutant.story, "seeds": found.seeds, "killed_by": found.killed_by}
    if found.killed_by is None:
        scenario, text = None, f"{mutant.name} lives through {found.seeds} seeds or walks"
    else:
        console.progress(f"{mutant.name} died in {found.seeds} seeds or walks; leaving out what it does not take")
        scenario, text = _retold(found)
    console.progress_done()
    console.result({**value, "scenario": scenario}, text)
    return EXIT_FAILED if found.killed_by is None else EXIT_DONE


def _retold(found: Hunt) -> tuple[str | None, str]:
    try:
        scenario = retold(found)
    except ScenarioError as error:
        return None, f"{found.killed_by}\nthere is no scenario file of it: {error}"
    return scenario, scenario.rstrip("\n")


def show(mutants: tuple[Mutant, ...], *, times: int, seeds_max: int, jobs: int, console: Console) -> int:
    """Hunt each of them; the exit code says whether all are dead. Interrupted, it shows those that were hunted."""
    found: list[tuple[Mutant, list[Hunt]]] = []
    with console.until_interrupted():
        for mutant, of_it in hunts(mutants, times=times, seeds_max=seeds_max, jobs=jobs):
            found.append((mutant, of_it))
            console.progress(f"{len(found)} of {len(mutants)} mutants hunted")
    console.progress_done()
    columns = [
        Column("mutant", right=False),
        Column("verdict", right=False),
        Column("seeds\nor walks"),
        Column("killed by", right=False),
    ]
    value = [
        {
            "mutant": mutant.name,
            "story": mutant.story,
            "where": mutant.where,
            "seeds": [hunt.seeds for hunt in of_it],
            "killed_by": [hunt.killed_by for hunt in of_it],
        }
        for mutant, of_it in found
    ]
    console.result(value, render(columns, [list(row(*each)) for each in found]))
    lives = any(hunt.killed_by is None for _, of_it in found for hunt in of_it)
    return EXIT_FAILED if lives else console.exit_done
