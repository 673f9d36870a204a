"""Options that several commands of the bench have, in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from epaxos.config import PROTOCOLS

BACKENDS: Final = ("auto", "netem", "tun", "none", "virtual")

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON there as well."
)
PROTOCOL = click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default=PROTOCOLS[0], show_default=True, help="What to run."
)
MATRIX = click.option("--matrix", default="gryff5", show_default=True, help="A region matrix by name or path.")
BACKEND = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="How links get as long as the matrix says; virtual: whole engines in virtual time.",
)
