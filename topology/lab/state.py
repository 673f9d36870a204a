"""What there is of a lab, in a file that is written before anything is made: whoever finds it can take the lab down."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from epaxos.errors import ConfigError
from topology.lab.links import Link
from topology.matrix import Matrix

DIRECTORY: Final = Path("/run/epaxos-lab")
_NAME: Final = re.compile(r"[a-z0-9]{1,20}")
PREFIX: Final = "epaxos-"


@dataclass(kw_only=True)
class State:
    """One lab."""

    name: str
    backend: str
    matrix: str
    sites: tuple[str, ...]
    lengths_us: dict[tuple[str, str], int]
    """(from, to) -> how long the way is by the matrix, one way."""
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    """(from, to) -> what happens on the way now."""
    revision: int = 0
    """How often the links have been changed."""

    def __post_init__(self) -> None:
        self.links = self.links or self.original()

    def original(self) -> dict[tuple[str, str], Link]:
        """Every link as the matrix says."""
        return {pair: Link(delay_us=us) for pair, us in self.lengths_us.items()}

    @property
    def path(self) -> Path:
        """Where it is written."""
        return DIRECTORY / f"{self.name}.json"

    @property
    def pid_path(self) -> Path:
        """Where the router of the tun back end writes its process id, and the revision that its links are at."""
        return DIRECTORY / f"{self.name}.pid"

    def namespace(self, site: str) -> str:
        """The network namespace of a site."""
        return f"{namespace_prefix(self.name)}{site}"

    def address(self, site: str) -> str:
        """The IPv4 address of a site, inside of the lab."""
        return f"10.77.0.{self.sites.index(site) + 1}"

    def write(self) -> None:
        """Write the file, at once and whole."""
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        values: dict[str, Any] = {
            "name": self.name,
            "backend": self.backend,
            "revision": self.revision,
            "matrix": self.matrix,
            "sites": list(self.sites),
            "links": [[a, b, self.lengths_us[a, b], link.to_json()] for (a, b), link in self.links.items()],
        }
        _replace(self.path, json.dumps(values))

    def write_router(self, pid: int) -> None:
        """The router of that process id has its links as this state says."""
        _replace(self.pid_path, f"{pid} {self.revision}")

    def router(self) -> tuple[int, int] | None:
        """The process id of the router and the revision that its links are at, as it has written them."""
        try:
            pid, revision = self.pid_path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        return int(pid), int(revision)

    def remove(self) -> None:
        """Forget the lab."""
        for half_written in DIRECTORY.glob(f".{self.name}.*"):
            half_written.unlink(missing_ok=True)
        self.pid_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    """Write a file at once and whole."""
    descriptor, temporary = tempfile.mkstemp(dir=DIRECTORY, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def lengths_us(matrix: Matrix) -> dict[tuple[str, str], int]:
    """Every direction of every pair, as long as the matrix says."""
    return {(a, b): matrix.one_way_us(a, b) for a in matrix.sites for b in matrix.sites if a != b}


def namespace_prefix(name: str) -> str:
    """What the names of a lab's namespaces begin with."""
    return f"{PREFIX}{name}-"


def check_name(name: str) -> None:
    """Raises ConfigError for a name that a lab cannot have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name for a lab: 1 to 20 letters from a to z, and digits")


def read(name: str) -> State | None:
    """The lab of that name, if there is one."""
    check_name(name)
    path = DIRECTORY / f"{name}.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return State(
        name=values["name"],
        backend=values["backend"],
        matrix=values["matrix"],
        revision=values["revision"],
        sites=tuple(values["sites"]),
        lengths_us={(a, b): us for a, b, us, _ in values["links"]},
        links={(a, b): Link.of_json(link) for a, b, _, link in values["links"]},
    )


def names() -> list[str]:
    """The labs there are."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json")) if DIRECTORY.is_dir() else []
