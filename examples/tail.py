"""Follow what a replica executes, and go on where an earlier run stopped: `python tail.py IR`."""

import sys

import trio
from ledger import Ledger

import epaxos


async def main(name: str) -> None:
    config = epaxos.Config.load("cluster.toml")
    seen = trio.Path(f"{name}.cursor")
    cursor = int(await seen.read_text()) if await seen.exists() else 0
    async with epaxos.open_replica(config, name, Ledger(), data=name) as replica:
        async for entry in replica.log(after=cursor):
            print(entry.cursor, entry.payload.decode(), flush=True)
            await seen.write_text(str(entry.cursor))  # done with it: do not show it again


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
