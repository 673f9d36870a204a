"""The tests of redis-py itself, from the source distribution of the release that is installed.

They are not in its wheel, nor in this repository: `python -m tests.field.redis_py` fetches them beside the packages of
this environment, as `.ci/run` does, and the tests run them from there. `redis_py.txt` says which of them apply.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import redis

FOLDER: Final = Path(sys.prefix) / "share" / f"redis-py-{redis.__version__}"
"""Where they are, when they were fetched."""

_LIST: Final = Path(__file__).with_suffix(".txt")
_FETCH_WITHIN_S: Final = 120


def fetch() -> None:
    """Download the distribution, unless it was, and keep its tests. Raises when pip fails."""
    if FOLDER.is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        words = ("download", "--quiet", "--no-deps", "--no-binary", "redis", f"redis=={redis.__version__}")
        subprocess.run([sys.executable, "-m", "pip", *words, "--dest", folder], check=True, timeout=_FETCH_WITHIN_S)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as members:
            members.extractall(folder, filter="data")
        shutil.move(Path(folder) / f"redis-{redis.__version__}", FOLDER)


def chosen() -> list[str]:
    """Those that apply and that this release has, as pytest calls them."""
    found: list[str] = []
    for head, names in _listed():
        source = (FOLDER / "tests" / head.partition("::")[0]).read_text(encoding="utf-8")
        defined = set(re.findall(r"def test_(\w+)\(", source))
        found += [f"tests/{head}::test_{name}" for name in names if name in defined]
    return found


def listed() -> int:
    """How many of them apply."""
    return sum(len(names) for _, names in _listed())


def _listed() -> Iterator[tuple[str, list[str]]]:
    """(file and class, names) of the list."""
    for paragraph in _LIST.read_text(encoding="utf-8").split("\n\n"):
        if not paragraph.startswith("#"):
            head, *names = paragraph.split()
            yield head, names


def command(port: int, dialect: int) -> list[str]:
    """What runs the chosen tests against a server, in `FOLDER`."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:trio", "-c", "/dev/null", "--rootdir", ".", "--tb", "short"]
    server = ["--redis-url", f"redis://127.0.0.1:{port}/0", "--protocol", str(dialect)]
    return [sys.executable, "-m", "pytest", *options, *server, *chosen()]


if __name__ == "__main__":
    fetch()
