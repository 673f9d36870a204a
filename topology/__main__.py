"""`python -m topology`: the matrices there are, what is in one, what it allows, and regions made after it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from epaxos.console import run_line
from epaxos.tables import Column, ms, render
from topology import bounds, builtin_names, load
from topology.lab.cli import COMMANDS
from topology.options import as_json, choose, sites_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from topology.matrix import Matrix


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def topology() -> None:
    """Region matrices, the latencies they allow, and labs: the regions of a matrix on this machine.

    A MATRIX is the name of a built-in one (see list) or the path of a file of yours.

    Example: python -m topology bounds gryff5 --sites CA,VA,IR
    """


@topology.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The matrices that come with the package.

    Example: python -m topology list
    """
    matrices = [load(name) for name in builtin_names()]
    if as_json:
        click.echo(json.dumps([_head_json(matrix) for matrix in matrices], indent=2))
        return
    rows = [[matrix.name, str(len(matrix.sites)), matrix.description] for matrix in matrices]
    click.echo(render([Column("matrix", right=False), Column("sites"), Column("what", right=False)], rows))


@topology.command()
@click.argument("matrix")
@sites_option
@as_json
def show(matrix: str, sites: str, as_json: bool) -> None:
    """The round trips of a MATRIX, in milliseconds.

    Example: python -m topology show ./mine.toml
    """
    chosen = choose(matrix, sites)
    if as_json:
        click.echo(json.dumps(_head_json(chosen) | {"rtt_us": [list(row) for row in chosen.rtt_us]}, indent=2))
        return
    _headline(chosen, "round trips, ms")
    rows = [[site, *map(ms, row)] for site, row in zip(chosen.sites, chosen.rtt_us, strict=True)]
    click.echo(render([Column("", right=False), *map(Column, chosen.sites)], rows))


@topology.command("bounds")
@click.argument("matrix")
@sites_option
@as_json
def bounds_(matrix: str, sites: str, as_json: bool) -> None:
    """What each protocol can do at best with a MATRIX, per site, in milliseconds.

    Example: python -m topology bounds gryff5
    """
    chosen = choose(matrix, sites)
    computed = _bounds(chosen)
    if as_json:
        placed = [{"leader": each.site, "mean_us": each.mean_us} for each in bounds.leaders(chosen)]
        columns = {title: _column_json(chosen, bound) for title, bound in computed.items()}
        click.echo(json.dumps(_head_json(chosen) | {"bounds": columns, "raft_leaders": placed}, indent=2))
        return
    _headline(chosen, "computed bounds, ms: client beside its replica, no processing")
    rows = [[site, *(ms(bound(site)) for bound in computed.values())] for site in chosen.sites]
    mean = ["mean", *(ms(bounds.mean_us(chosen, bound)) for bound in computed.values())]
    columns_ = [Column("site", right=False), *(Column(title.replace(" ", "\n")) for title in computed)]
    click.echo(render(columns_, rows, foot=[mean]))
    placed_ = ", ".join(f"{each.site} {ms(each.mean_us)}" for each in bounds.leaders(chosen))
    click.echo(f"\nRaft by leader, mean over sites: {placed_}")


def _bounds(matrix: Matrix) -> dict[str, Callable[[str], int]]:
    """Title -> bound of a site, in the order of the columns; Raft with its best and its worst leader only."""

    def raft(leader: str) -> Callable[[str], int]:
        return lambda site: bounds.raft_us(matrix, site, leader)

    columns: dict[str, Callable[[str], int]] = {
        "optimum": lambda site: bounds.optimum_us(matrix, site),
        "epaxos fast": lambda site: bounds.epaxos_fast_us(matrix, site),
        "epaxos slow": lambda site: bounds.epaxos_slow_us(matrix, site),
    }
    for placed in (bounds.best_leader(matrix), bounds.worst_leader(matrix)):
        columns[f"raft {placed.site}"] = raft(placed.site)
    return columns


def _column_json(matrix: Matrix, bound: Callable[[str], int]) -> dict[str, Any]:
    return {"sites_us": {site: bound(site) for site in matrix.sites}, "mean_us": bounds.mean_us(matrix, bound)}


def _head_json(matrix: Matrix) -> dict[str, Any]:
    return {
        "name": matrix.name,
        "description": matrix.description,
        "source": matrix.source,
        "sites": list(matrix.sites),
    }


def _headline(matrix: Matrix, what: str) -> None:
    click.echo(f"{matrix.name}: {what}")
    if matrix.description:
        click.echo(f"{matrix.description} ({matrix.source})" if matrix.source else matrix.description)
    click.echo()


for _command in COMMANDS:
    topology.add_command(_command)


if __name__ == "__main__":
    sys.exit(run_line(topology, "python -m topology"))
