"""A region matrix: the sites of a cluster and the round trips between them, read from a TOML file and checked.

The file is described in `docs/reference/topology.md`. Inside, times are integer microseconds.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Final

from epaxos.errors import ConfigError

MAX_SITES: Final = 64
"""Beyond this a matrix is more likely a mistake than a plan; a cluster itself has at most 13 replicas."""

MAX_RTT_MS: Final = 10_000
"""Beyond ten seconds a round trip is more likely a mistake of units than a link."""

MAX_FILE_BYTES: Final = 1 << 20

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A site is the name of a replica too, so what may not stand in `cluster.toml` may not stand here."""

_KEYS: Final = ("description", "source", "sites", "rtt_ms")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Sites and the round trips between them.

    `rtt_us[i][j]` is the round trip from `sites[i]` to `sites[j]` in microseconds: square, symmetric, never negative,
    zero on the diagonal. Raises ConfigError when it is anything else.
    """

    name: str
    sites: tuple[str, ...]
    rtt_us: tuple[tuple[int, ...], ...]
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        _check_sites(self.sites)
        _check_square(self.sites, self.rtt_us)
        _check_values(self.sites, self.rtt_us)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {site: at for at, site in enumerate(self.sites)}

    def index(self, site: str) -> int:
        """Where `site` stands in `sites`. Raises ConfigError, naming the nearest, when it is not there."""
        try:
            return self._position[site]
        except KeyError:
            raise ConfigError(
                f"matrix {self.name} has no site {site!r}{_nearest(site, self.sites)}; it has {', '.join(self.sites)}"
            ) from None

    def between_us(self, a: str, b: str) -> int:
        """The round trip between two sites, in microseconds."""
        return self.rtt_us[self.index(a)][self.index(b)]

    def one_way_us(self, a: str, b: str) -> int:
        """Half a round trip, in microseconds. An odd microsecond goes to the way from the earlier site to the later,
        so that there and back together make exactly the round trip."""
        i, j = self.index(a), self.index(b)
        return (self.rtt_us[i][j] + (i < j)) // 2

    def nearest(self, site: str) -> list[tuple[int, str]]:
        """The other sites as (round trip in microseconds, name), nearest first; equals in the matrix's order."""
        here = self.index(site)
        others = [(self.rtt_us[here][j], j) for j in range(len(self.sites)) if j != here]
        return [(rtt_us, self.sites[j]) for rtt_us, j in sorted(others)]

    def only(self, sites: Sequence[str]) -> Matrix:
        """The same matrix with these sites alone, in this order."""
        at = [self.index(site) for site in sites]
        return Matrix(
            name=self.name,
            sites=tuple(sites),
            rtt_us=tuple(tuple(self.rtt_us[i][j] for j in at) for i in at),
            description=self.description,
            source=self.source,
        )


def builtin_names() -> list[str]:
    """The names of the matrices that come with the package, sorted."""
    files = (resources.files("topology") / "matrices").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name_or_path: str) -> Matrix:
    """A built-in matrix by name, or anyone's by path (anything with a `/`, or that ends in `.toml`).

    Raises ConfigError when there is no such matrix or the file does not describe one; the message says what and where.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        return parse(data, name=path.stem, where=str(path))
    known = builtin_names()
    if name_or_path not in known:
        raise ConfigError(
            f"there is no matrix {name_or_path!r}{_nearest(name_or_path, known)}; there are {', '.join(known)}, "
            "and any file of yours given by its path (./mine.toml)"
        )
    data = (resources.files("topology") / "matrices" / f"{name_or_path}.toml").read_bytes()
    return parse(data, name=name_or_path, where=f"{name_or_path}.toml")


def parse(data: bytes, *, name: str, where: str) -> Matrix:
    """A matrix from the bytes of its file. `where` opens every message of the ConfigError this may raise."""
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"longer than {MAX_FILE_BYTES} bytes")
        table = tomllib.loads(data.decode("utf-8"))
        _check_keys(table)
        sites = tuple(_strings(table["sites"]))
        return Matrix(
            name=name,
            sites=sites,
            rtt_us=tuple(tuple(row) for row in _rows_us(sites, table["rtt_ms"])),
            description=_text(table, "description"),
            source=_text(table, "source"),
        )
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}") from error
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _nearest(word: str, known: Sequence[str]) -> str:
    """The words "did you mean" with the nearest known name, or nothing when none comes near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_keys(table: dict[str, object]) -> None:
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key!r}{_nearest(key, _KEYS)}; the keys are {', '.join(_KEYS)}")
    for key in ("sites", "rtt_ms"):
        if key not in table:
            raise ConfigError(f"key {key!r} is missing")


def _text(table: dict[str, object], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{key}: {value!r} is not a string")
    return value


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError("sites: a list of names is wanted")
    return value


def _rows_us(sites: Sequence[str], value: object) -> list[list[int]]:
    """Rows of milliseconds as written, checked to be numbers in range and rounded to microseconds."""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ConfigError("rtt_ms: a list of rows is wanted, one row a site")
    return [[_us(_place(sites, i, j), item) for j, item in enumerate(row)] for i, row in enumerate(value)]


def _us(place: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"rtt_ms: {place}: {value!r} is not a number of milliseconds")
    if value > MAX_RTT_MS:
        raise ConfigError(f"rtt_ms: {place}: {value} ms is more than the {MAX_RTT_MS} ms allowed")
    return round(value * 1000)


def _place(sites: Sequence[str], i: int, j: int) -> str:
    """What people call the cell in row i and column j, also when there are more of them than sites."""
    names = [sites[at] if at < len(sites) else f"#{at + 1}" for at in (i, j)]
    return f"row {names[0]}, column {names[1]}"


def _check_sites(sites: Sequence[str]) -> None:
    if not 1 <= len(sites) <= MAX_SITES:
        raise ConfigError(f"sites: 1 to {MAX_SITES} are wanted, not {len(sites)}")
    seen: set[str] = set()
    for site in sites:
        if not _NAME.fullmatch(site):
            raise ConfigError(f"sites: {site!r} is not a name: 1 to 64 letters, digits, '-' or '_'")
        if site in seen:
            raise ConfigError(f"sites: {site!r} is there twice")
        seen.add(site)


def _check_square(sites: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
    if len(rows) != len(sites):
        raise ConfigError(f"rtt_ms: {len(rows)} rows for {len(sites)} sites")
    for site, row in zip(sites, rows, strict=True):
        if len(row) != len(sites):
            raise ConfigError(f"rtt_ms: row {site} has {len(row)} values for {len(sites)} sites")


def _check_values(sites: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
    for i, row in enumerate(rows):
        for j, rtt_us in enumerate(row):
            if rtt_us < 0:
                raise ConfigError(f"rtt_ms: {_place(sites, i, j)}: {rtt_us / 1000:g} ms is negative")
            if rtt_us != rows[j][i]:
                raise ConfigError(
                    f"rtt_ms: not symmetric: {sites[i]} to {sites[j]} is {rtt_us / 1000:g} ms, "
                    f"{sites[j]} to {sites[i]} is {rows[j][i] / 1000:g} ms"
                )
        if row[i] != 0:
            raise ConfigError(f"rtt_ms: {_place(sites, i, i)}: a site is 0 ms from itself, not {row[i] / 1000:g} ms")
