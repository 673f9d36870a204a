"""`epaxos plan`: which protocol, how many replicas and where, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from epaxos.console import Console
from epaxos.errors import ConfigError
from epaxos.tables import Column, ms, render
from topology import Matrix, load
from topology.planner import Choice, advice, plan

DEFAULT_SIZES: Final = (3, 5, 7, 9, 13)
COLUMNS_MAX: Final = 7
"""More client sites do not fit beside each other; `--json` has them all."""


def run(matrix_name: str, clients: str, sizes: str, *, conflict_percent: float, console: Console) -> None:
    """Plan and print. Raises ConfigError."""
    matrix = load(matrix_name)
    weights = _weights(matrix, clients)
    chosen = _sizes(sizes) if sizes else [size for size in DEFAULT_SIZES if size <= len(matrix.sites)]
    choices = plan(matrix, weights, sizes=chosen or [len(matrix.sites)], conflict=conflict_percent / 100)
    words = advice(choices)
    value = {
        "matrix": matrix.name,
        "clients": weights,
        "conflict": conflict_percent / 100,
        "choices": [asdict(choice) | {"worst_us": choice.worst_us, "survives": choice.survives} for choice in choices],
        "advice": words,
    }
    console.result(value, f"{_table(choices)}\n\n{_legend(conflict_percent)}\n\n{words}")


def _weights(matrix: Matrix, clients: str) -> dict[str, float]:
    """site -> weight, of `CA=3,VA`; all sites alike when nothing is said."""
    if not clients:
        return dict.fromkeys(matrix.sites, 1.0)
    weights: dict[str, float] = {}
    for word in clients.split(","):
        site, equals, weight = word.partition("=")
        try:
            weights[site.strip()] = float(weight) if equals else 1.0
        except ValueError:
            raise ConfigError(f"clients {word!r}: expected SITE or SITE=WEIGHT") from None
    return weights


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f"replicas {text!r}: expected numbers, such as 3,5") from None


def _table(choices: Sequence[Choice]) -> str:
    sites = list(choices[0].clients_us)
    sites = sites if len(sites) <= COLUMNS_MAX else []
    rows = [
        [
            choice.protocol,
            str(len(choice.replicas)),
            choice.leader or "",
            " ".join(choice.replicas),
            ms(choice.mean_us),
            ms(choice.worst_us),
            str(choice.survives),
            *(ms(choice.clients_us[site]) for site in sites),
        ]
        for choice in choices
    ]
    columns = [
        *(Column("protocol", right=False), Column("replicas"), Column("leader", right=False)),
        *(Column("at", right=False), Column("mean"), Column("worst"), Column("may be\ndown")),
        *(Column(f"clients\nat {site}") for site in sites),
    ]
    return render(columns, rows)


def _legend(conflict_percent: float) -> str:
    return (
        f"Milliseconds, computed; {conflict_percent:g} % of the commands conflict. Each row is the best placement of\n"
        "its protocol and number of replicas. Processing and queueing are left out: compare rows, and measure the one\n"
        "you take."
    )
