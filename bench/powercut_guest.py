"""The inside of a machine whose power is cut: five replicas on its disk, and clients that say every answer outside.

Run by the init script of `powercut`, as the only thing that the machine does. It says on its console, a line each:

    value SITE KEY NUMBER     what a counter is, read at every replica, when all of them serve
    loading                   all values are told, and the clients begin
    ack KEY NUMBER            an increment was answered with this number
    dead SITE                 a replica has ended by itself
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import lmdb
import trio

from bench.resp import ConnectionLost, ErrorReply, RespConnection
from epaxos.cli import run

SITES: Final = ("A", "B", "C", "D", "E")
SHARED: Final = "shared"
OWN_EACH: Final = 2
"""Clients at each site that increment a key of their own; one more increments a key that all share."""
PORT: Final = 7000
"""The network of the machine is its own."""
POLL_S: Final = 0.2
WORD: Final = "powercut"
"""What every line that is meant for the outside begins with."""


def keys() -> dict[str, list[str]]:
    """Site -> the keys that its clients increment."""
    return {site: [*(f"own:{site}:{client}" for client in range(OWN_EACH)), SHARED] for site in SITES}


def say(*words: object) -> None:
    """One line to the outside, at once."""
    os.write(1, f"{WORD} {' '.join(map(str, words))}\n".encode())


def main(disk: Path, logs: Path, *, synced: bool) -> None:
    """Start the replicas on `disk`, tell what they hold, and load them until the power goes."""
    config = disk / "cluster.toml"
    config.write_text(_config_text(), encoding="utf-8")
    children = {_fork(site, disk, logs, config, synced): site for site in SITES}
    trio.run(_drive, children)


def _config_text() -> str:
    lines = ['cluster = "powercut"']
    for at, site in enumerate(SITES):
        peer, client = PORT + 2 * at, PORT + 2 * at + 1
        lines += ["[[replica]]", f'name = "{site}"', f'peer = "127.0.0.1:{peer}"', f'client = "127.0.0.1:{client}"']
    return "\n".join(lines) + "\n"


def _fork(site: str, disk: Path, logs: Path, config: Path, synced: bool) -> int:
    """A replica as a process of its own, which has imported everything already; its process id."""
    child = os.fork()
    if not child:
        log = os.open(logs / f"{site}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if not synced:
            _forget_syncs()
        os._exit(run(["replica", site, "--config", str(config), "--data", str(disk / site)]))
    return child


def _forget_syncs() -> None:
    """The control: LMDB syncs nothing any more and says that it did. What is written is lost with the power."""
    opened = lmdb.Environment

    def unsynced(*args: Any, **options: Any) -> Any:
        return opened(*args, **options | {"sync": False, "metasync": False})

    vars(lmdb)["open"] = unsynced


# --------------------------------------------------------------------------------------------------------- the clients


async def _drive(children: dict[int, str]) -> None:
    async with trio.open_nursery() as nursery:
        for child, site in children.items():
            nursery.start_soon(_watch, child, site)
        for site in SITES:
            await _until_it_serves(site)
        every = [key for site in SITES for key in keys()[site]]
        for site in SITES:
            async with RespConnection(await _connect(site)) as connection:
                for key in dict.fromkeys(every):
                    say("value", site, key, int(await connection.call("GET", key) or 0))
        say("loading")
        for site in SITES:
            for key in keys()[site]:
                nursery.start_soon(_client, site, key)


async def _watch(child: int, site: str) -> None:
    """A replica that ends by itself is news."""
    await trio.lowlevel.wait_readable(os.pidfd_open(child))
    say("dead", site)


async def _connect(site: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", PORT + 2 * SITES.index(site) + 1)


async def _again(action: Callable[[], Awaitable[None]]) -> None:
    """Until it succeeds."""
    while True:
        try:
            await action()
        except (OSError, ConnectionLost, ErrorReply):
            await trio.sleep(POLL_S)
        else:
            return


async def _until_it_serves(site: str) -> None:
    async def ask() -> None:
        async with RespConnection(await _connect(site)) as connection:
            await connection.call("GET", SHARED)

    await _again(ask)


async def _client(site: str, key: str) -> None:
    """Increment for ever."""

    async def increment() -> None:
        async with RespConnection(await _connect(site)) as connection:
            while True:
                say("ack", key, await connection.call("INCR", key))

    await _again(increment)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), synced=sys.argv[3] == "synced")
