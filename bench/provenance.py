"""Where figures come from: a number without its machine, its load and its commit is an anecdote."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from epaxos._version import VERSION

_PACKAGES: Final = ("trio", "cbor2", "lmdb", "hiredis")


def machine_words() -> str:
    """What the figures were taken on, and how busy it was with other things: that is where milliseconds go."""
    cpus = f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start"
    return f"{platform.system()} {platform.machine()}, {cpus}, Python {platform.python_version()}, epaxos {VERSION}"


def provenance() -> dict[str, Any]:
    """The same for programs, with the commit, the versions and the time."""
    from epaxos import accel

    return {
        "machine": machine_words(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "epaxos": VERSION,
        "twins": accel.summary(),
        "commit": _commit(),
        "packages": {name: _version_of(name) for name in _PACKAGES},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str | None:
    """The commit of the checkout that this runs from, with a + when it was changed; None outside of one."""
    here = Path(__file__).resolve().parent
    words = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
