"""The same commands in a process whose strings and bytes hash differently, for machines that iterate over sets.

Within one process the order of a set of strings is much the same each time, so little there shows who depends on it.
The other process imports the machine by its name.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Self

from epaxos.machines.interface import StateMachine

_NOT_FOUND: Final = 3


class Elsewhere:
    """A machine that other processes may be able to import."""

    HASH_SEEDS: ClassVar[tuple[int, ...]] = (1, 2)

    def __init__(self, module: str, name: str) -> None:
        """`module` is the name of a module, or the path of a program; `name` may have dots."""
        self._module = module
        self._name = name

    @classmethod
    def of(cls, make: Callable[[], StateMachine]) -> Self | None:
        """Where `make` can be found, or None when it cannot be imported by name."""
        module, name = getattr(make, "__module__", ""), getattr(make, "__qualname__", "<none>")
        if not module or "<" in name:
            return None
        if module == "__main__":
            path = getattr(sys.modules["__main__"], "__file__", None)
            return None if path is None else cls(str(Path(path).resolve()), name)
        return cls(module, name)

    def run(self, commands: list[bytes], hash_seed: int) -> tuple[list[bytes], tuple[bytes, ...]] | None:
        """Apply the commands to a new machine there: (replies, the state as it is saved); None if it is not found.

        Raises RuntimeError with what the other process said when it failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", __name__, self._module, self._name],
            input=json.dumps([command.hex() for command in commands]),
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == _NOT_FOUND:
            return None
        if done.returncode:
            raise RuntimeError(f"{self._name} of {self._module} cannot be run in another process:\n{done.stderr}")
        replies, chunks = json.loads(done.stdout.splitlines()[-1])
        return [bytes.fromhex(each) for each in replies], tuple(bytes.fromhex(each) for each in chunks)


def main(module: str, name: str) -> int:
    """What the other process does."""
    try:
        machine = _find(module, name.split("."))()
    except (ImportError, AttributeError, KeyError):
        return _NOT_FOUND
    replies = [machine.apply(bytes.fromhex(command)) for command in json.load(sys.stdin)]
    print(json.dumps([[reply.hex() for reply in replies], [chunk.hex() for chunk in machine.save()]]))
    return 0


def _find(module: str, names: list[str]) -> Any:
    found: Any = (
        SimpleNamespace(**runpy.run_path(module)) if module.endswith(".py") else importlib.import_module(module)
    )
    for name in names:
        found = getattr(found, name)
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
