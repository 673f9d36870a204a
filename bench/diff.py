"""What moved between two results of the same kind: `python -m bench diff OLD.json NEW.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from bench.options import JSON
from bench.report import Result, read
from epaxos.amount import NOT_NEGATIVE
from epaxos.errors import ConfigError
from epaxos.tables import ABSENT, Column, render

_PERCENTILES: Final = ("p50", "p99")


class Key(NamedTuple):
    """Which figure of a result."""

    load: str
    """Which keys were written, who was dead, or how many clients there were."""
    label: str
    """The protocol, and where it was led from."""
    site: str
    figure: str


def changes(old: Result, new: Result) -> list[dict[str, Any]]:
    """A row for each figure that both have: what it was, what it is, by which share it moved.

    Raises ConfigError for results of different kinds.
    """
    if old["what"] != new["what"]:
        raise ConfigError(f"a result of {old['what']} and one of {new['what']} have no figure in common")
    figures = _FIGURES[new["what"]]
    before = dict(figures(old))
    return [
        key._asdict() | {"old": before[key], "new": now, "change": now / before[key] - 1 if before[key] else 0.0}
        for key, now in figures(new)
        if key in before
    ]


def _compared(result: Result) -> Iterator[tuple[Key, float]]:
    """Milliseconds of execution at every site, and of all sites together."""
    for cell in result["cells"]:
        where = {site: figures["execute_us"] for site, figures in cell["sites"].items()} | {"all": cell["pooled_us"]}
        for site, execute_us in where.items():
            for name in _PERCENTILES:
                if execute_us[name] is not None:
                    yield Key(cell["workload"], cell["label"], site, f"{name}, ms"), execute_us[name] / 1000


def _failed_over(result: Result) -> Iterator[tuple[Key, float]]:
    """Milliseconds without an answer, and of waiting, at every site that lived."""
    for timeline in result["timelines"]:
        for outage, gaps in zip(timeline["outages"], timeline["gaps"], strict=True):
            for gap in gaps:
                for name, us in (("gap", gap["down_us"]), ("wait", gap["wait_us"])):
                    if us is not None:
                        key = Key(
                            f"{outage['site']} dead", timeline["protocol"], gap["site"], f"{gap['kind']} {name}, ms"
                        )
                        yield key, us / 1000


def _saturated(result: Result) -> Iterator[tuple[Key, float]]:
    """Commands a second, milliseconds, and processor time."""
    for curve in result["curves"]:
        for step in curve["steps"]:
            found = {"commands/s": step["per_s"], "CPU us a command": step["cpu_us"]}
            for name in _PERCENTILES:
                us = step["took_us"][name]
                found[f"{name}, ms"] = None if us is None else us / 1000
            for figure, value in found.items():
                if value is not None:
                    yield Key(f"{step['clients']} clients", curve["protocol"], "all", figure), value


_FIGURES: Final[dict[str, Callable[[Result], Iterator[tuple[Key, float]]]]] = {
    "compare": _compared,
    "failover": _failed_over,
    "throughput": _saturated,
}


def as_table(rows: list[dict[str, Any]], least: float) -> str:
    """Those that moved by at least so much, the ones that moved most first."""
    moved = sorted((row for row in rows if abs(row["change"]) >= least), key=lambda row: -abs(row["change"]))
    cells = [
        [
            *(row[name] for name in Key._fields),
            f"{row['old']:,.1f}",
            f"{row['new']:,.1f}",
            f"{100 * row['change']:+.1f} %",
        ]
        for row in moved
    ]
    columns = [
        *(Column("load"), Column("protocol", right=False), Column("site", right=False)),
        *(Column("figure", right=False), Column("old"), Column("new"), Column("change")),
    ]
    counted = f"{len(moved)} of {len(rows)} figures moved by {100 * least:g} % or more"
    return f"{render(columns, cells)}\n{counted}" if moved else f"{ABSENT} {counted}"


@click.command()
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--least",
    type=NOT_NEGATIVE,
    default=5.0,
    show_default=True,
    help="Percent by which a figure has moved to be shown.",
)
@JSON
def diff(old: Path, new: Path, least: float, as_json: bool) -> None:
    """Which figures moved from one result of `compare`, `failover` or `throughput` to another.

    \b
    Example: python -m bench diff before.json after.json --least 3
    """
    rows = changes(read(old), read(new))
    click.echo(json.dumps(rows) if as_json else as_table(rows, least / 100))
