"""What several commands of `python -m topology` take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from topology.matrix import load

if TYPE_CHECKING:
    from topology.matrix import Matrix

as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, times in integer microseconds.")
sites_option: Final = click.option("--sites", default="", metavar="A,B,…", help="Only these sites, in this order.")


def choose(name_or_path: str, sites: str) -> Matrix:
    """The matrix, of these sites only when some are named. Raises ConfigError as `load` and `Matrix.only`."""
    matrix = load(name_or_path)
    return matrix.only([site.strip() for site in sites.split(",")]) if sites else matrix
