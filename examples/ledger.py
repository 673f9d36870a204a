"""A replicated ledger. In three terminals: `python ledger.py CA alice 30`, the same for VA and IR."""

import json
import sys
from collections.abc import Iterable

import trio

import epaxos


class Ledger(epaxos.StateMachine):
    """A command is an account and an amount to add, or an account alone to read it."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    def apply(self, command: bytes) -> bytes:
        account, *amount = command.decode().split()
        if amount:
            self.balances[account] = self.balances.get(account, 0) + int(amount[0])
        return str(self.balances.get(account, 0)).encode()

    def save(self) -> Iterable[bytes]:
        return [json.dumps(self.balances, sort_keys=True).encode()]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.balances = json.loads(b"".join(chunks))


async def main(name: str, account: str, amount: str) -> None:
    config = epaxos.Config.load("cluster.toml")
    async with epaxos.open_replica(config, name, Ledger(), data=name) as replica:
        key, command = account.encode(), f"{account} {amount}".encode()
        after = await replica.propose(command, writes=[key])  # applied, in one order everywhere
        print(account, "has", after.decode(), flush=True)
        await trio.sleep_forever()  # this replica goes on voting and executing


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
