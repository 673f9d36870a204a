"""A vote counter with a bug that no single process shows, and what finds it: `python votes.py`."""

import json
from collections.abc import Iterable
from random import Random

import epaxos
from epaxos.testing import MachineFault, check_machine, simulate


class Votes(epaxos.StateMachine):
    """`vote VOTER CHOICE`, `count CHOICE`. Who votes again changes his mind."""

    def __init__(self) -> None:
        self.choice_of: dict[str, str] = {}

    def apply(self, command: bytes) -> bytes:
        verb, name, *choice = command.decode().split()
        if verb == "vote":
            self.choice_of[name] = choice[0]
            return b"counted"
        return str(list(self.choice_of.values()).count(name)).encode()

    def save(self) -> Iterable[bytes]:
        return [json.dumps(self.choice_of, sort_keys=True).encode()]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.choice_of = json.loads(b"".join(chunks))


def commands(rng: Random) -> tuple[bytes, list[bytes], list[bytes]]:
    """One more command: (its bytes, the keys it reads, the keys it writes), as the program would propose it."""
    voter, choice = rng.choice(["ann", "bob", "cid", "dee"]), rng.choice(["tea", "coffee"])
    if rng.random() < 0.5:
        return f"count {choice}".encode(), [choice.encode()], []
    return f"vote {voter} {choice}".encode(), [], [voter.encode(), choice.encode()]


def corrected(rng: Random) -> tuple[bytes, list[bytes], list[bytes]]:
    """A vote takes another one back, for a choice that the command does not tell: it writes every choice there is."""
    command, reads, writes = commands(rng)
    return command, reads, [*writes, b"tea", b"coffee"] if writes else []


def only_known_choices(machine: epaxos.StateMachine) -> None:
    """Whatever the order of the commands, this holds after each of them."""
    assert isinstance(machine, Votes)
    assert set(machine.choice_of.values()) <= {"tea", "coffee"}


if __name__ == "__main__":
    try:
        check_machine(Votes, commands)
    except MachineFault as fault:
        print(fault, end="\n\n")
    print("corrected:", check_machine(Votes, corrected), end="\n\n")
    print(simulate(Votes, corrected, seeds=range(10), invariant=only_known_choices))
