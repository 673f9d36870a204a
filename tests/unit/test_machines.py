"""`check_machine` passes sound machines and names what is wrong with others: each breaks one rule, on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from random import Random

import pytest

from epaxos import StateMachine
from epaxos.testing import MachineFault, check_machine

Made = tuple[bytes, list[bytes], list[bytes]]
NAMES = ("ann", "bob", "cid", "dee", "eve")


class Bank(StateMachine):
    """`add NAME AMOUNT`, `move FROM TO AMOUNT`, `read NAME`."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    def apply(self, command: bytes) -> bytes:
        verb, name, *rest = command.decode().split()
        if verb == "add":
            self.add(name, int(rest[0]))
        elif verb == "move" and self.balances.get(name, 0) >= int(rest[1]):
            self.add(name, -int(rest[1]))
            self.add(rest[0], int(rest[1]))
        return b"%d" % self.balances.get(name, 0)

    def add(self, name: str, amount: int) -> None:
        self.balances[name] = self.balances.get(name, 0) + amount

    def save(self) -> Iterable[bytes]:
        yield json.dumps(self.balances, sort_keys=True).encode()

    def load(self, chunks: Iterable[bytes]) -> None:
        self.balances = json.loads(b"".join(chunks))


def commands(rng: Random) -> Made:
    name, other = rng.sample(NAMES, 2)
    verb = rng.choice(("add", "move", "read"))
    if verb == "read":
        return f"read {name}".encode(), [name.encode()], []
    if verb == "add":
        return f"add {name} {rng.randrange(9)}".encode(), [], [name.encode()]
    return f"move {name} {other} {rng.randrange(9)}".encode(), [], [name.encode(), other.encode()]


def naming(change: Callable[[Made], Made]) -> Callable[[Random], Made]:
    return lambda rng: change(commands(rng))


class Unsorted(Bank):
    def save(self) -> Iterable[bytes]:
        yield json.dumps(self.balances).encode()


class OfASet(Bank):
    def apply(self, command: bytes) -> bytes:
        super().apply(command)
        return ",".join(set(self.balances)).encode()


class Hashing(Bank):
    def apply(self, command: bytes) -> bytes:
        return super().apply(command) + b" %d" % (hash(command) % 100)


class Visitors(Bank):
    """Counts who reads."""

    def apply(self, command: bytes) -> bytes:
        if command.startswith(b"read"):
            self.add(f"readers of {command.split()[1].decode()}", 1)
        return super().apply(command)


class Counting(Bank):
    """Counts how often its class was used."""

    used = 0

    def apply(self, command: bytes) -> bytes:
        Counting.used += 1
        return super().apply(command) + b" %d" % Counting.used


class Forgetful(Bank):
    """Keeps a count that it does not save."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def apply(self, command: bytes) -> bytes:
        self.count += 1
        return super().apply(command) + b" %d" % self.count


class Lossy(Bank):
    def load(self, chunks: Iterable[bytes]) -> None:
        self.balances = {name: amount for name, amount in json.loads(b"".join(chunks)).items() if amount}


class Adding(Bank):
    def load(self, chunks: Iterable[bytes]) -> None:
        self.balances.update(json.loads(b"".join(chunks)))


class Wearing(Bank):
    """Saving leaves a trace."""

    def save(self) -> Iterable[bytes]:
        self.add("saves", 1)
        return super().save()


class Raising(Bank):
    def apply(self, command: bytes) -> bytes:
        if command.startswith(b"move"):
            raise KeyError("nobody")
        return super().apply(command)


class Texts(Bank):
    def apply(self, command: bytes) -> bytes:
        text: object = super().apply(command).decode()
        return text  # type: ignore[return-value]


class Journal(Bank):
    """Every command leaves a line, whatever it names."""

    def apply(self, command: bytes) -> bytes:
        self.balances[f"line {len(self.balances)}"] = len(command)
        return super().apply(command)


def test_a_sound_machine_passes() -> None:
    report = check_machine(Bank, commands)
    assert report.commands == 150 and report.pairs > 300 and report.round_trips >= 25 and report.hash_seeds == 2
    assert "2 other hash seeds" in str(report)


def test_naming_no_keys_is_always_sound() -> None:
    assert check_machine(Journal, naming(lambda made: (made[0], [], []))).pairs == 0


@pytest.mark.parametrize(
    ("make", "check", "says"),
    [
        (Unsorted, "footprint", "in the other order"),
        (Hashing, "determinism", "PYTHONHASHSEED"),
        (Counting, "determinism", "run a second time"),
        (Forgetful, "save and load", "by a loaded machine"),
        (Lossy, "save and load", "something is lost"),
        (Adding, "load", "does not replace"),
        (Wearing, "save", "saving twice"),
        (Raising, "apply", "raised KeyError: 'nobody'"),
        (Texts, "apply", "returned str, not bytes"),
        (Journal, "footprint", "in the other order"),
        (Visitors, "footprint", "names no key that it writes"),
    ],
)
def test_says_what_is_wrong(make: type[Bank], check: str, says: str) -> None:
    Counting.used = 0
    with pytest.raises(MachineFault) as raised:
        check_machine(make, commands)
    assert raised.value.check == check
    assert says in str(raised.value)


def test_the_order_of_a_set_is_found_by_one_check_or_another() -> None:
    with pytest.raises(MachineFault) as raised:
        check_machine(OfASet, commands)
    assert raised.value.check in ("determinism", "save and load", "footprint"), "as this process happens to hash"


def forget_the_receiver(made: Made) -> Made:
    return (made[0], made[1], made[2][:1])


def test_naming_too_few_keys_is_found_and_shown_with_as_little_as_it_takes() -> None:
    with pytest.raises(MachineFault) as raised:
        check_machine(Bank, naming(forget_the_receiver))
    text = str(raised.value)
    assert raised.value.check == "footprint"
    assert "move " in text and "in front of the other" in text and "Name every key" in text
    after = text.splitlines()[-2]
    assert after.count("b'") <= 2, f"at most a command or two are needed to see it: {after}"


def test_an_invariant_is_asked_after_each_command() -> None:
    def never_more_than(machine: StateMachine, most: int = 20) -> None:
        assert isinstance(machine, Bank)
        assert max(machine.balances.values(), default=0) <= most, "too rich"

    with pytest.raises(MachineFault, match="too rich") as raised:
        check_machine(Bank, commands, invariant=never_more_than)
    assert raised.value.check == "invariant" and "after " in str(raised.value)
    with pytest.raises(MachineFault, match="returned False"):
        check_machine(Bank, commands, invariant=lambda machine: False)


def test_a_machine_that_cannot_be_imported_is_tried_in_this_process_only() -> None:
    class Local(Bank):
        pass

    assert check_machine(Local, commands).hash_seeds == 0


@pytest.mark.parametrize("made", [b"add ann 1", (b"add ann 1", []), ("add ann 1", [], []), (b"add ann 1", [], ["ann"])])
def test_hooks_that_return_something_else_are_told_so(made: object) -> None:
    def wrong(rng: Random) -> Made:
        return made  # type: ignore[return-value]

    with pytest.raises(TypeError, match=r"commands\(rng\)"):
        check_machine(Bank, wrong)


def test_what_is_no_machine_is_refused() -> None:
    def nothing() -> StateMachine:
        return object()  # type: ignore[return-value]

    with pytest.raises(TypeError, match=r"not an epaxos\.StateMachine"):
        check_machine(nothing, commands)
