"""Long searches, interrupted: what was found until then is shown, and no process is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.field

WITHIN_S = 60.0


@pytest.mark.parametrize(
    ("words", "progress", "shown"),
    [
        (("sim", "--seeds", "1..100000", "--jobs", "2"), b" of 100000 seeds", "ms of computing a seed"),
        (("model", "--walks", "10000000", "--jobs", "2"), b" of 10000000 walks", "recoveries before the reckoning"),
        (("mutants", "--quick", "--times", "1"), b" mutants hunted", "dead"),
    ],
    ids=("sim", "model", "mutants"),
)
def test_an_interrupted_search_shows_what_it_found(words: tuple[str, ...], progress: bytes, shown: str) -> None:
    watching, watched = os.openpty()  # progress is shown to people only
    command = [sys.executable, "-m", "epaxos", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=watched, text=True, start_new_session=True
    ) as process:
        os.close(watched)
        try:
            _read_until(watching, progress)
            children = _children(process.pid)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            said = _read_until(watching, b"this is what was done until then")
            out, _ = process.communicate(timeout=WITHIN_S)
        finally:
            process.kill()
            os.close(watching)
    assert process.returncode == 130
    assert shown in out
    assert "Traceback" not in said
    for child in children:
        assert select.select([child], [], [], WITHIN_S)[0], "a process is left"
        os.close(child)


def _children(pid: int) -> list[int]:
    """A descriptor for each, which can be read when it has ended."""
    found = [each for file in Path(f"/proc/{pid}/task").glob("*/children") for each in file.read_text().split()]
    assert found
    return [os.pidfd_open(int(each)) for each in found]


def _read_until(terminal: int, text: bytes) -> str:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)
    return seen.decode()
