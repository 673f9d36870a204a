"""What moved between two results of `compare`: `python -m bench diff OLD.json NEW.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.report import Result, read
from bench.tables import ABSENT, Column, ms, render

_FIGURES = ("p50", "p99")


def changes(old: Result, new: Result) -> list[dict[str, Any]]:
    """A row for each cell and site that both have: what it took before and after, and by which factor it moved."""
    before = {(cell["label"], cell["conflict"]): cell for cell in old["cells"]}
    rows = []
    for cell in new["cells"]:
        was = before.get((cell["label"], cell["conflict"]))
        if was is None:
            continue
        for site in (*cell["sites"], "all"):
            for figure in _FIGURES:
                old_us, new_us = _figure(was, site, figure), _figure(cell, site, figure)
                if old_us is not None and new_us is not None:
                    rows.append(
                        {
                            "conflict": cell["conflict"],
                            "label": cell["label"],
                            "site": site,
                            "figure": figure,
                            "old_us": old_us,
                            "new_us": new_us,
                            "change": new_us / old_us - 1,
                        }
                    )
    return rows


def _figure(cell: dict[str, Any], site: str, figure: str) -> int | None:
    if site == "all":
        found: int | None = cell["pooled_us"][figure]
        return found
    at_site = cell["sites"].get(site)
    return None if at_site is None else at_site["execute_us"][figure]


def as_table(rows: list[dict[str, Any]], least: float) -> str:
    """Those that moved by at least so much, the ones that moved most first."""
    moved = sorted((row for row in rows if abs(row["change"]) >= least), key=lambda row: -abs(row["change"]))
    cells = [
        [
            f"{100 * row['conflict']:g} %",
            row["label"],
            row["site"],
            row["figure"],
            ms(row["old_us"]),
            ms(row["new_us"]),
            f"{100 * row['change']:+.1f} %",
        ]
        for row in moved
    ]
    columns = [
        *(Column("conflict"), Column("protocol", right=False), Column("site", right=False)),
        *(Column("figure", right=False), Column("old, ms"), Column("new, ms"), Column("change")),
    ]
    counted = f"{len(moved)} of {len(rows)} figures moved by {100 * least:g} % or more"
    return f"{render(columns, cells)}\n{counted}" if moved else f"{ABSENT} {counted}"


@click.command()
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--least", default=5.0, show_default=True, help="Percent by which a figure has moved to be shown.")
@click.option("--json", "as_json", is_flag=True, help="Every figure, as one JSON array on stdout.")
def diff(old: Path, new: Path, least: float, as_json: bool) -> None:
    """Which latencies moved from one result of `compare` to another.

    \b
    Example: python -m bench diff before.json after.json --least 3
    """
    rows = changes(read(old), read(new))
    click.echo(json.dumps(rows) if as_json else as_table(rows, least / 100))
