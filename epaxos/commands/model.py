"""`epaxos model`: every state of small scopes, and random walks through larger ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.errors import ConfigError
from epaxos.tables import Column, render
from epaxos.testing.model.explore import Explorer, Found
from epaxos.testing.model.scope import SCOPES
from epaxos.testing.model.story import scenario
from epaxos.testing.model.walks import Summary, walk_many


def describe(console: Console) -> int:
    """What scopes there are."""
    rows = [[name, scope.story] for name, scope in SCOPES.items()]
    value = [{"scope": name, "story": story} for name, story in rows]
    console.result(value, render([Column("scope", right=False), Column("what is in it", right=False)], rows))
    return EXIT_DONE


def explore(names: Sequence[str], *, states_max: int | None, out: Path, console: Console) -> int:
    """Explore each scope. A violation is written as a scenario file. Raises ConfigError for a name there is not."""
    unknown = [name for name in names if name not in SCOPES]
    if unknown:
        raise ConfigError(f"no scope {', '.join(unknown)}; known: {', '.join(SCOPES)}")
    found = []
    for name in names:
        found.append(Explorer(SCOPES[name], states_max=states_max).run(console.progress))
        console.progress_done()
        if found[-1].violation is not None:
            _tell(found[-1], out / f"{name}.txt", console)
    titles = ["states", "depth", "real steps", "local states", "s"]
    columns = [Column("scope", right=False), Column("", right=False), *map(Column, titles)]
    console.result([_value(each) for each in found], render(columns, [_row(each) for each in found]))
    return EXIT_FAILED if any(each.violation for each in found) else EXIT_DONE


def _row(found: Found) -> list[str]:
    verdict = "VIOLATED" if found.violation else f"bounded by {found.bound}" if found.bound else "complete"
    numbers = [found.states, found.depth, found.real_steps, found.local_states]
    return [found.scope.name, verdict, *(f"{number:,}" for number in numbers), f"{found.wall_s:.1f}"]


def _value(found: Found) -> dict[str, Any]:
    return {
        "scope": found.scope.name,
        "complete": found.complete,
        "bound": found.bound or None,
        "states": found.states,
        "depth": found.depth,
        "real_steps": found.real_steps,
        "local_states": found.local_states,
        "wall_s": round(found.wall_s, 1),
        "violation": None if found.violation is None else str(found.violation),
    }


def _tell(found: Found, path: Path, console: Console) -> None:
    assert found.violation is not None
    where = f"epaxos model --scope {found.scope.name}"
    text = scenario(found.scope.n, found.way, found.violation, slow_disk=found.scope.slow_disk, where=where)
    path.write_text(text)
    console.say(f"{found.scope.name}: {found.violation}; the way there, {len(found.way)} events, is in {path}")


def walk(*, n: int, count: int, first: int, seed: int, jobs: int, out: Path, console: Console) -> int:
    """Random walks, until one breaks a law; its way is written as a scenario file. Interrupted, it sums up."""
    begun, total = time.perf_counter(), Summary(n)
    with console.until_interrupted():
        for summary in walk_many(n, seed, first, count, jobs):
            total.add(summary)
            total.wall_s = time.perf_counter() - begun
            console.progress(f"{total.walks} of {count} walks, {total.walks / total.wall_s:.0f} a second")
    console.progress_done()
    if total.violation is not None:
        where = f"epaxos model --walks 1 --replicas {n} --seed {seed} --first {total.number}"
        path = out / f"walk-{n}-{seed}-{total.number}.txt"
        path.write_text(scenario(n, total.way, total.violation, where=where))
        console.say(f"walk {total.number}: {total.violation}; the way there, {len(total.way)} events, is in {path}")
    value = {
        "replicas": n,
        "seed": seed,
        "walks": total.walks,
        "moves": total.moves,
        "recoveries": total.recoveries,
        "restarts": total.restarts,
        "values": total.decided["value"],
        "nops": total.decided["nop"],
        "wall_s": round(total.wall_s, 1),
        "violation": None if total.violation is None else str(total.violation),
    }
    console.result(value, _summed_up(total))
    return console.exit_done if total.violation is None else EXIT_FAILED


def _summed_up(total: Summary) -> str:
    values, nops = total.decided["value"], total.decided["nop"]
    return (
        f"{total.walks:,} walks of {total.n} replicas in {total.wall_s:.0f} s: {total.moves:,} events, "
        f"{total.recoveries:,} recoveries before the reckoning, {total.restarts:,} restarts; "
        f"{values + nops:,} ids decided, {100 * nops / max(1, values + nops):.0f} % as Nop; "
        f"{'no violation' if total.violation is None else total.violation}"
    )
