"""`simulate`: a sound machine comes through, and what is wrong with others is found and can be replayed."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from epaxos import StateMachine
from epaxos.testing import MachineFault, simulate, simulation


class Registers(StateMachine):
    """`set KEY VALUE`, `swap KEY KEY`, `get KEY`."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, command: bytes) -> bytes:
        verb, key, *rest = command.split()
        if verb == b"set":
            self.values[key] = rest[0]
        elif verb == b"swap":
            self.values[key], self.values[rest[0]] = self.values.get(rest[0], b"-"), self.values.get(key, b"-")
        return self.values.get(key, b"-")

    def save(self) -> Iterable[bytes]:
        return [b"%b=%b " % pair for pair in sorted(self.values.items())]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.values = dict(chunk.rstrip().split(b"=") for chunk in chunks)  # type: ignore[misc]


def commands(rng: Random) -> tuple[bytes, list[bytes], list[bytes]]:
    one, other = (b"%d" % each for each in rng.sample(range(5), 2))
    verb = rng.choice(("set", "swap", "get", "get"))
    if verb == "get":
        return b"get " + one, [one], []
    if verb == "set":
        return b"set %b %d" % (one, rng.randrange(1000)), [], [one]
    return b"swap %b %b" % (one, other), [], [one, other]


def everything(rng: Random) -> tuple[bytes, list[bytes], list[bytes]]:
    command, _, _ = commands(rng)
    return command, [], []


@pytest.mark.parametrize("protocol", ["epaxos", "raft"])
def test_a_sound_machine_comes_through(protocol: str) -> None:
    done = simulate(Registers, commands, seeds=range(3), protocol=protocol)
    assert done.seeds == 3 and done.commands >= 150 and done.lives > 9 and done.pairs > 1000 and done.messages > 500
    assert "3 seeds" in str(done)


def test_a_machine_may_name_no_keys() -> None:
    assert simulate(Registers, everything, seed=5, replicas=5).pairs == 0


def test_the_same_seed_is_the_same_run() -> None:
    lines: list[list[str]] = [[], []]
    for sink in lines:
        simulate(Registers, commands, seed=3, trace=sink.append)
    assert lines[0] == lines[1] and len(lines[0]) > 500


def careless(rng: Random) -> tuple[bytes, list[bytes], list[bytes]]:
    """Names one key of a swap only."""
    command, reads, writes = commands(rng)
    return command, reads, writes[:1]


def test_naming_too_few_keys_is_found_and_can_be_replayed() -> None:
    with pytest.raises(MachineFault) as raised:
        simulate(Registers, careless, seed=7, without=["loss"])
    assert raised.value.check == "footprint"
    assert "swap" in raised.value.text and "seed=7" in raised.value.text and "without=['loss']" in raised.value.text


def test_schedules_alone_find_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "examine", lambda *_, **__: (0, 0))
    with pytest.raises(MachineFault) as raised:
        simulate(Registers, careless, seeds=range(20))
    assert raised.value.check in ("convergence", "strict_serializability")


def test_an_invariant_is_asked_at_every_replica() -> None:
    asked: set[int] = set()

    def never_seven(machine: StateMachine) -> bool:
        assert isinstance(machine, Registers)
        asked.add(id(machine))
        return b"7" not in machine.values

    simulate(Registers, commands, seed=2, invariant=never_seven)
    assert len(asked) > 3
    with pytest.raises(MachineFault, match="it returned False") as raised:
        simulate(Registers, commands, seed=2, invariant=lambda machine: b"4" not in vars(machine)["values"])
    assert raised.value.check == "invariant"


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="no such kind of fault: thunder"):
        simulate(Registers, commands, without=["thunder"])
    with pytest.raises(ValueError, match="no such protocol: paxos"):
        simulate(Registers, commands, protocol="paxos")
    with pytest.raises(ValueError, match="nothing but commands that only read"):
        simulate(Registers, lambda rng: (b"get 1", [b"1"], []))
