"""`epaxos scenario`: does what scenario files tell still happen?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.testing.scenario import differences, rewritten


def check(paths: Sequence[Path], console: Console) -> int:
    """Compare each; the exit code says whether all are as they say. Raises ScenarioError for one without sense."""
    found = {str(path): differences(path) for path in paths}
    wrong = {path: diff for path, diff in found.items() if diff}
    text = "\n".join([*wrong.values(), f"{len(paths) - len(wrong)} of {len(paths)} scenarios are as they say"])
    console.result({"scenarios": len(paths), "differences": wrong}, text)
    return EXIT_FAILED if wrong else EXIT_DONE


def rewrite(paths: Sequence[Path], console: Console) -> int:
    """Put what really happens into the files."""
    changed = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        actual = rewritten(text, str(path))
        if actual != text:
            path.write_text(actual, encoding="utf-8")
            changed.append(str(path))
    lines = [f"rewrote {path}: read it before you believe it" for path in changed]
    console.result({"rewritten": changed}, "\n".join(lines) or "nothing to rewrite")
    return EXIT_DONE
