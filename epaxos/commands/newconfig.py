"""`epaxos config new`: a `cluster.toml` for replicas that are all on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from epaxos.config import Config


def text(names: Sequence[str], *, cluster: str, peers: int, clients: int) -> str:
    """The file, with a port for peers and one for clients each, counted from `peers` and `clients`.

    Raises ConfigError when there cannot be such a cluster: names or ports that are wrong, or too many.
    """
    head = (
        "# The same file on every machine. All replicas are on this one so far: give each its own address, and keep\n"
        "# their order. `epaxos config explain` tells of every other key.\n"
        f'cluster = "{cluster}"\n'
    )
    tables = [
        f'\n[[replica]]\nname = "{name}"\npeer = "127.0.0.1:{peers + at}"\nclient = "127.0.0.1:{clients + at}"\n'
        for at, name in enumerate(names)
    ]
    found = head + "".join(tables)
    Config.parse(found, source="the new file")
    return found
