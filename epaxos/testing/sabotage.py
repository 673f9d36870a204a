"""Run seeds in a process in which some lines of the package say something else.

    python sabotage.py '{"edits": [[module, old, new], …], "seeds": [first, last], "n": 5, "where": "seeds",
                         "inside": false, "protocol": "epaxos"}'

Run as a script, so that the edits are in place before anything of `epaxos` is imported. The first violation, or the
end of the seeds, is printed as one line of JSON. `mutants/hunt.py` is the other end.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from epaxos.testing.loop import Play

Edit = tuple[str, str]


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the source with the edits made; each must fit exactly once, so that no mutant rots unseen."""

    def __init__(self, name: str, path: str, edits: list[Edit]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def path_stats(self, path: Any) -> Any:
        raise OSError("no cached bytecode for a sabotaged module")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]  # typeshed
        text = bytes(data).decode()
        for old, new in self._edits:
            if text.count(old) != 1:
                raise SystemExit(f"{self.name}: {text.count(old)} places for {old!r}; a mutant needs exactly one")
            text = text.replace(old, new)
        return compile(text, path, "exec", dont_inherit=True, optimize=_optimize)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edits: dict[str, list[Edit]]) -> None:
        self._edits = edits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._edits:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._edits[fullname])
        return spec


def main(argument: str) -> None:
    task = json.loads(argument)
    edits: dict[str, list[Edit]] = {}
    for module, old, new in task["edits"]:
        edits.setdefault(module, []).append((old, new))
    sys.meta_path.insert(0, _Finder(edits))
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if "scenario" in task:
        print(json.dumps({"told": _told(Path(task["scenario"]))}))
        return
    if "retell" in task:
        print(json.dumps(_retold(task)))
        return
    first, last = task["seeds"]
    seed, violation = _LOOK[task["where"]](task, first, last)
    print(json.dumps({"seed": seed, "violation": violation}))


Verdict = tuple[int | None, str | None]
"""(the seed that failed, its violation), or nothing of both"""


def _play(task: dict[str, Any]) -> Play:
    from epaxos.testing.invariants import ALL, OUTSIDE
    from epaxos.testing.loop import KV

    return KV._replace(invariants=ALL if task["inside"] else OUTSIDE)


def _seeds(task: dict[str, Any], first: int, last: int) -> Verdict:
    from epaxos.testing.seeds import run_seed, spare_collector

    spare_collector()
    play = _play(task)
    for seed in range(first, last + 1):
        result = run_seed(seed, protocol=task["protocol"], n=task["n"], play=play)
        if result.violations:
            return seed, result.violations[0]
    return None, None


def _walks(task: dict[str, Any], first: int, last: int) -> Verdict:
    from epaxos.testing.model.walks import Walker

    summary = Walker(task["n"], 0, inside=False).run(first, last - first + 1)
    return summary.number, None if summary.violation is None else str(summary.violation)


_LOOK: Final = {"seeds": _seeds, "walks": _walks}


def _retold(task: dict[str, Any]) -> dict[str, str]:
    from epaxos.testing.reading import ScenarioError

    try:
        return {"told": _RETELL[task["where"]](task, task["retell"])}
    except ScenarioError as error:
        return {"why": str(error)}


def _retold_seed(task: dict[str, Any], seed: int) -> str:
    from epaxos.testing.retelling import retold
    from epaxos.testing.shrinking import shrink

    play = _play(task)
    return retold(shrink(seed, protocol=task["protocol"], n=task["n"], play=play), play=play)


def _retold_walk(task: dict[str, Any], number: int) -> str:
    from epaxos.testing.model.story import scenario
    from epaxos.testing.model.walks import Walker

    found = Walker(task["n"], 0, inside=False).run(number, 1)
    assert found.violation is not None
    return scenario(task["n"], found.way, found.violation, where=f"walk {number} of {task['n']} replicas")


_RETELL: Final = {"seeds": _retold_seed, "walks": _retold_walk}


def _told(path: Path) -> str:
    from epaxos.testing.reading import ScenarioError
    from epaxos.testing.scenario import differences

    try:
        return differences(path)
    except ScenarioError as error:
        return str(error)


if __name__ == "__main__":
    main(sys.argv[1])
