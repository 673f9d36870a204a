"""The hunt: seeds in a sabotaged process, until one of them kills the mutant. Or a scenario file that tells of it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from epaxos.testing.mutants.base import Mutant
from epaxos.testing.reading import ScenarioError

_SABOTAGE: Final = Path(__file__).parents[1] / "sabotage.py"

HUNT_STRIDE: Final = 100_000
"""Hunts of one mutant look at seeds this far apart, so that none of them meets a seed of another."""

WALKS_A_SEED: Final = 100
"""A walk of the model costs less than a thirtieth of a seed of whole engines, and what is sought there is rarer."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """One hunt of one mutant."""

    mutant: Mutant
    seeds: int
    """How many seeds (or walks) were run, the killing one included."""
    killed_by: str | None
    """The violation, or None: it lives."""
    seed: int | None
    wall_s: float


def hunt(mutant: Mutant, *, first: int, seeds_max: int) -> Hunt:
    """Run seeds from `first` on in a sabotaged process, or `WALKS_A_SEED` times as many walks, until one of them kills
    the mutant."""
    begun = time.perf_counter()
    tries = seeds_max * WALKS_A_SEED if mutant.where == "walks" else seeds_max
    found = _sabotaged(mutant, {**_task(mutant), "seeds": [first, first + tries - 1]})
    seed = found["seed"]
    tried = tries if seed is None else seed - first + 1
    return Hunt(mutant, tried, found["violation"], seed, time.perf_counter() - begun)


def retold(found: Hunt) -> str:
    """The seed (or walk) that killed a mutant, as a scenario file of what the mutated code does.

    Raises ScenarioError, with the reason, for one that cannot be told.
    """
    answer = _sabotaged(found.mutant, {**_task(found.mutant), "retell": found.seed})
    if "why" in answer:
        raise ScenarioError(str(answer["why"]))
    return str(answer["told"])


def _task(mutant: Mutant) -> dict[str, object]:
    return {
        "edits": mutant.edits,
        "n": mutant.n,
        "where": mutant.where,
        "inside": mutant.inside,
        "protocol": mutant.protocol,
    }


def told_under(mutant: Mutant, scenario: Path) -> str:
    """What a scenario file tells otherwise in a sabotaged process, as a diff; empty when it does not notice."""
    return str(_sabotaged(mutant, {"edits": mutant.edits, "scenario": str(scenario)})["told"])


def _sabotaged(mutant: Mutant, task: dict[str, object]) -> dict[str, Any]:
    environment = {**os.environ, "EPAXOS_PURE": "1"} if mutant.pure else dict(os.environ)
    done = subprocess.run(
        [sys.executable, str(_SABOTAGE), json.dumps(task)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the sabotage by {mutant.name} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def hunts(
    mutants: tuple[Mutant, ...], *, times: int = 3, seeds_max: int = 5000, jobs: int = 2
) -> Iterator[tuple[Mutant, list[Hunt]]]:
    """Hunt each mutant `times` times, in `jobs` processes; gives the hunts of each, in the order of the registry."""
    pool = ThreadPoolExecutor(jobs)
    try:
        under_way = [
            (mutant, [pool.submit(hunt, mutant, first=i * HUNT_STRIDE, seeds_max=seeds_max) for i in range(times)])
            for mutant in mutants
        ]
        for mutant, futures in under_way:
            yield mutant, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)  # whoever looks no further waits for those under way only


def row(mutant: Mutant, found: list[Hunt]) -> tuple[str, str, str, str]:
    """(name, verdict, median seeds to kill, what killed it) for a table."""
    killed = [one for one in found if one.killed_by is not None]
    if len(killed) < len(found):
        return mutant.name, f"LIVES ({len(found) - len(killed)} of {len(found)})", f"> {found[0].seeds}", ""
    invariants = sorted({str(one.killed_by).partition(":")[0] for one in killed})
    return mutant.name, "dead", f"{statistics.median(one.seeds for one in killed):g}", ", ".join(invariants)
