"""A configuration store that tells of changes. In three terminals:

python settings.py CA set colour blue
python settings.py VA get colour
python settings.py IR watch              # and again after it was stopped: it goes on where it was
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import trio

import epaxos


class Settings(epaxos.StateMachine):
    """`set KEY VALUE` answers with the value before, `get KEY` with the value."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, command: bytes) -> bytes:
        verb, key, *value = command.decode().split(" ", 2)
        before = self.values.get(key, "")
        if verb == "set":
            self.values[key] = value[0]
        return before.encode()

    def save(self) -> Iterable[bytes]:
        return [json.dumps(self.values, sort_keys=True).encode()]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.values = json.loads(b"".join(chunks))


class Position:
    """How far the log of this replica was followed, in a file that is old or new, and never half of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cursor = int(path.read_text()) if path.exists() else 0

    def keep(self, cursor: int) -> None:
        """Everything up to `cursor` is done with."""
        beside = self._path.with_suffix(".new")
        beside.write_text(str(cursor))
        beside.replace(self._path)
        self.cursor = cursor


async def watch(replica: epaxos.Replica, position: Position) -> None:
    """Tell of every change, in the order in which they took effect. The last one may be told again after a crash."""
    async for entry in replica.log(after=position.cursor):
        verb, key, *value = entry.payload.decode().split(" ", 2)
        if verb == "set":
            print(key, "is now", *value, flush=True)
        position.keep(entry.cursor)


async def main(name: str, verb: str, *words: str) -> None:
    config = epaxos.Config.load("cluster.toml")
    async with epaxos.open_replica(config, name, Settings(), data=name) as replica:
        if verb == "watch":
            await watch(replica, Position(Path(f"{name}.position")))
        key, command = words[0].encode(), " ".join((verb, *words)).encode()
        if verb == "set":
            print("it was", (await replica.propose(command, writes=[key])).decode() or "not set", flush=True)
        else:
            print(words[0], "is", (await replica.read(command, reads=[key])).decode() or "not set", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
