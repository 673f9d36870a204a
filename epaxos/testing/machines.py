"""Is a state machine of one's own fit to be replicated? `check_machine` says, without a cluster.

A machine is given commands by the hook `commands(rng)`, which returns one more command each time: (its bytes, the keys
it reads, the keys it writes), as they would be passed to `propose`. What is checked:

- **determinism**: the same commands give the same replies and the same state, in this process and in others whose
  strings hash differently (so that sets and the like iterate in another order);
- **save and load**: a loaded machine is equal, behaves equally, has forgotten what it was before, and shares nothing
  with the one that was saved; equal states are saved as equal bytes;
- **honest footprints**: two commands that name no common key (or only read those they share) give the same replies and
  the same state in either order, and a command that names only keys it reads changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from epaxos.machines.interface import StateMachine
from epaxos.testing.elsewhere import Elsewhere

Make = Callable[[], StateMachine]
"""Makes an empty machine: usually its class."""
Commands = Callable[[Random], tuple[bytes, Iterable[bytes], Iterable[bytes]]]
"""Makes one more command: (its bytes, the keys it reads, the keys it writes). Draws from the generator only."""
Check = Callable[[StateMachine], object]
"""Raises, or returns False, when the machine is in a state that must not be."""

COUNT: Final = 150
_WINDOW: Final = 6
"""A command is tried in both orders with so many that come after it."""
_ORDERS: Final = 2
"""So many orders that conflicts allow, beside the one in which the commands were made."""
_ROUND_TRIPS: Final = 25
_SHRINKS: Final = 200
_SHOWN_COMMANDS: Final = 10
_SHOWN_BYTES: Final = 200


class MachineFault(AssertionError):
    """A state machine is not fit to be replicated, or reached a state that must not be. `check` names what failed."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.text = text


class Proposal(NamedTuple):
    """One command with the keys it names."""

    command: bytes
    reads: frozenset[bytes]
    writes: frozenset[bytes]

    def conflicts(self, other: Proposal) -> bool:
        """Do the two always execute in one order? One that names no key conflicts with everything."""
        if not (self.reads or self.writes) or not (other.reads or other.writes):
            return True
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)

    @property
    def only_reads(self) -> bool:
        """It names keys, and writes none of them."""
        return bool(self.reads) and not self.writes

    def __str__(self) -> str:
        if not (self.reads or self.writes):
            return f"{_short(self.command)} (names no key)"
        return f"{_short(self.command)} (reads {sorted(self.reads)}, writes {sorted(self.writes)})"


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What was tried."""

    commands: int
    pairs: int
    """Pairs of commands that do not conflict, tried in both orders."""
    round_trips: int
    """Saves that were loaded again."""
    hash_seeds: int
    """Other processes in which the same commands gave the same. 0: the machine cannot be imported there."""

    def __str__(self) -> str:
        elsewhere = f"{self.hash_seeds} other hash seeds" if self.hash_seeds else "no other hash seed (not importable)"
        return (
            f"{self.commands} commands, {self.pairs} pairs in both orders, {self.round_trips} round trips, {elsewhere}"
        )


def check_machine(
    machine: Make, commands: Commands, *, seed: int = 0, count: int = COUNT, invariant: Check | None = None
) -> MachineReport:
    """Try a state machine with `count` commands drawn by `commands` from a generator of that seed.

    `invariant` is called after each command. Raises MachineFault, which says what is wrong and how to see it; TypeError
    when a hook does not return what it should.
    """
    drawn = draw(commands, Random(seed), count)
    replies, chunks = run(machine, drawn, invariant)
    pairs, round_trips = examine(machine, drawn, Random(seed))
    hash_seeds = check_elsewhere(machine, drawn, replies, chunks)
    return MachineReport(count, pairs, round_trips, hash_seeds)


def draw(commands: Commands, rng: Random, count: int) -> list[Proposal]:
    """The first so many commands. Raises TypeError when the hook returns anything but what it should."""
    drawn = []
    for _ in range(count):
        made = commands(rng)
        if not isinstance(made, tuple) or len(made) != 3 or type(made[0]) is not bytes:
            raise TypeError(f"commands(rng) returned {made!r}, not (command, reads, writes)")
        command, reads, writes = made[0], frozenset(made[1]), frozenset(made[2])
        if any(type(key) is not bytes for key in reads | writes):
            raise TypeError(f"commands(rng) named the keys {sorted(map(repr, reads | writes))}: keys are bytes")
        drawn.append(Proposal(command, reads - writes, writes))
    return drawn


def run(make: Make, drawn: Sequence[Proposal], invariant: Check | None = None) -> tuple[list[bytes], tuple[bytes, ...]]:
    """Apply the commands to a new machine: (replies, the state as it is saved). Raises MachineFault."""
    machine = new(make)
    replies = []
    for at, proposal in enumerate(drawn):
        replies.append(apply(machine, proposal.command))
        if invariant is not None:
            demand(invariant, machine, drawn[: at + 1])
    return replies, save(machine)


def demand(invariant: Check, machine: StateMachine, past: Sequence[Proposal]) -> None:
    """Raises MachineFault when the invariant does not hold; `past` are the commands that led there."""
    try:
        holds = invariant(machine)
    except Exception as error:
        raise MachineFault("invariant", f"{type(error).__name__}: {error}\n{_after(past)}") from error
    if holds is False:
        raise MachineFault("invariant", f"it returned False\n{_after(past)}")


def examine(make: Make, drawn: Sequence[Proposal], rng: Random, *, window: int = _WINDOW) -> tuple[int, int]:
    """Try determinism, save and load, and footprints: (pairs of commands, round trips). Raises MachineFault."""
    expected = run(make, drawn)
    _check_again(make, drawn, expected)
    round_trips = _check_saves(make, drawn, expected)
    pairs = _check_footprints(make, drawn, window)
    for _ in range(_ORDERS):
        pairs += _check_footprints(make, _reordered(drawn, rng), window)
    return pairs, round_trips


# ------------------------------------------------------------------------------------------------ the three methods


def new(make: Make) -> StateMachine:
    """An empty machine. Raises TypeError when it is none."""
    machine = make()
    if not isinstance(machine, StateMachine):
        raise TypeError(f"{type(machine).__name__} is not an epaxos.StateMachine")
    return machine


def apply(machine: StateMachine, command: bytes) -> bytes:
    """Run one command. Raises MachineFault where a replica would stop."""
    try:
        reply = machine.apply(command)
    except Exception as error:
        raise MachineFault("apply", f"{_short(command)} raised {type(error).__name__}: {error}") from error
    if type(reply) is not bytes:
        raise MachineFault("apply", f"{_short(command)} returned {type(reply).__name__}, not bytes")
    return reply


def save(machine: StateMachine) -> tuple[bytes, ...]:
    """The saved state. Raises MachineFault when it is none."""
    chunks = tuple(machine.save())
    if any(type(chunk) is not bytes for chunk in chunks):
        raise MachineFault("save", f"gave {', '.join(type(chunk).__name__ for chunk in chunks)}; chunks are bytes")
    return chunks


def _loaded(make: Make, chunks: tuple[bytes, ...]) -> StateMachine:
    machine = new(make)
    _load(machine, chunks)
    return machine


def _load(machine: StateMachine, chunks: tuple[bytes, ...]) -> None:
    try:
        machine.load(iter(chunks))
    except Exception as error:
        shown = _short(b"".join(chunks))
        raise MachineFault("load", f"raised {type(error).__name__}: {error}; save had given {shown}") from error


# ------------------------------------------------------------------------------------------------------- determinism


def _check_again(make: Make, drawn: Sequence[Proposal], expected: tuple[list[bytes], tuple[bytes, ...]]) -> None:
    replies, chunks = run(make, drawn)
    _compare("determinism", "run a second time", drawn, expected, (replies, chunks))


def check_elsewhere(make: Make, drawn: Sequence[Proposal], replies: list[bytes], chunks: tuple[bytes, ...]) -> int:
    """Apply the commands in processes with other hash seeds: how many; 0 when the machine cannot be imported there."""
    elsewhere = Elsewhere.of(make)
    if elsewhere is None:
        return 0
    for hash_seed in elsewhere.HASH_SEEDS:
        there = elsewhere.run([proposal.command for proposal in drawn], hash_seed)
        if there is None:
            return 0
        where = f"run in a process with PYTHONHASHSEED={hash_seed}"
        _compare("determinism", where, drawn, (replies, chunks), there)
    return len(elsewhere.HASH_SEEDS)


def _compare(
    check: str,
    how: str,
    drawn: Sequence[Proposal],
    expected: tuple[list[bytes], tuple[bytes, ...]],
    found: tuple[list[bytes], tuple[bytes, ...]],
) -> None:
    for at, (one, other) in enumerate(zip(expected[0], found[0], strict=True)):
        if one != other:
            said = f"{_short(drawn[at].command)} was answered {_short(one)}, and {how}, {_short(other)}"
            raise MachineFault(check, f"{said}\n{_after(drawn[:at])}")
    if expected[1] != found[1]:
        raise MachineFault(check, f"{how}, the same commands give another state\n{_states(expected[1], found[1])}")


# ----------------------------------------------------------------------------------------------------- save and load


def _check_saves(make: Make, drawn: Sequence[Proposal], expected: tuple[list[bytes], tuple[bytes, ...]]) -> int:
    """At some places: save, load elsewhere, and go on with both."""
    machine, twin = new(make), None
    every = max(1, len(drawn) // _ROUND_TRIPS)
    count = 0
    for at, proposal in enumerate(drawn):
        if at % every == 0:
            chunks = save(machine)
            if twin is not None and save(twin) != chunks:
                text = "a loaded machine, given the same commands, comes to another state"
                raise MachineFault("save and load", f"{text}\n{_states(chunks, save(twin))}\n{_after(drawn[:at])}")
            _check_round_trip(make, chunks, save(machine), expected[1], drawn[:at])
            twin = _loaded(make, chunks)
            count += 1
        assert twin is not None
        reply, other = apply(machine, proposal.command), apply(twin, proposal.command)
        if reply != expected[0][at]:
            text = f"loading what was saved changed the saved machine: {_short(proposal.command)} is now answered"
            raise MachineFault("save and load", f"{text} {_short(reply)}, not {_short(expected[0][at])}")
        if other != reply:
            text = f"{_short(proposal.command)} is answered {_short(reply)}, and by a loaded machine {_short(other)}"
            raise MachineFault("save and load", f"{text}\n{_after(drawn[:at])}")
    return count


def _check_round_trip(
    make: Make,
    chunks: tuple[bytes, ...],
    again: tuple[bytes, ...],
    another: tuple[bytes, ...],
    past: Sequence[Proposal],
) -> None:
    if again != chunks:
        raise MachineFault("save", f"saving twice gives different bytes\n{_states(chunks, again)}\n{_after(past)}")
    loaded = save(_loaded(make, chunks))
    if loaded != chunks:
        text = "a loaded machine saves other bytes: something is lost, or equal states are not saved as equal bytes"
        raise MachineFault("save and load", f"{text}\n{_states(chunks, loaded)}\n{_after(past)}")
    used = _loaded(make, another)
    _load(used, chunks)
    if save(used) != chunks:
        text = "load does not replace all of the state that a machine had"
        raise MachineFault("load", f"{text}\n{_states(chunks, save(used))}\n{_after(past)}")


# -------------------------------------------------------------------------------------------------------- footprints


def _check_footprints(make: Make, drawn: Sequence[Proposal], window: int) -> int:
    """Along the way, swap commands that do not conflict."""
    machine = new(make)
    pairs = 0
    for at, one in enumerate(drawn):
        before = save(machine)
        for other in drawn[at + 1 : at + 1 + window]:
            if not one.conflicts(other):
                pairs += 1
                if _differ(make, before, one, other):
                    _accuse(make, drawn[:at], one, other)
        apply(machine, one.command)
        if one.only_reads and save(machine) != before:
            text = f"{one} names no key that it writes, and it changed the state"
            raise MachineFault("footprint", f"{text}\n{_states(before, save(machine))}\n{_after(drawn[:at])}")
    return pairs


def _differ(make: Make, before: tuple[bytes, ...], one: Proposal, other: Proposal) -> bool:
    return _in_order(make, before, one, other) != _in_order(make, before, other, one)[::-1]


def _in_order(
    make: Make, before: tuple[bytes, ...], first: Proposal, second: Proposal
) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """(the reply to the first, the state afterwards, the reply to the second)"""
    machine = _loaded(make, before)
    replies = apply(machine, first.command), apply(machine, second.command)
    return replies[0], save(machine), replies[1]


def _accuse(make: Make, past: Sequence[Proposal], one: Proposal, other: Proposal) -> None:
    """Say which two commands make a difference, after as few others as are needed."""
    past = _fewest(past, lambda fewer: _differ(make, run(make, fewer)[1], one, other))
    before = run(make, past)[1]
    here, there = _in_order(make, before, one, other), _in_order(make, before, other, one)
    lines = [
        "two commands that name no common key give something else in the other order",
        f"  one:   {one}, answered {_short(here[0])} in front of the other and {_short(there[2])} behind it",
        f"  other: {other}, answered {_short(there[0])} in front of the one and {_short(here[2])} behind it",
    ]
    if here[1] != there[1]:
        lines.append(_states(here[1], there[1]))
    lines += [_after(past), "Name every key that a command reads or writes, or none at all."]
    raise MachineFault("footprint", "\n".join(lines))


def _fewest(past: Sequence[Proposal], fails: Callable[[Sequence[Proposal]], bool]) -> Sequence[Proposal]:
    """Leave out commands, many at once and then one by one, for as long as it still fails."""
    tries, size = 0, len(past)
    while size:
        at = 0
        while at < len(past) and tries < _SHRINKS:
            tries += 1
            fewer = [*past[:at], *past[at + size :]]
            if fails(fewer):
                past = fewer
            else:
                at += size
        size //= 2
    return past


def _reordered(drawn: Sequence[Proposal], rng: Random) -> list[Proposal]:
    """Another order that keeps the order of those that conflict."""
    order = list(drawn)
    for _ in range(4 * len(order)):
        at = int(rng.random() * (len(order) - 1))
        if len(order) > 1 and not order[at].conflicts(order[at + 1]):
            order[at], order[at + 1] = order[at + 1], order[at]
    return order


# -------------------------------------------------------------------------------------------------------- for people


def _short(data: bytes) -> str:
    shown = repr(data[:_SHOWN_BYTES])
    return shown if len(data) <= _SHOWN_BYTES else f"{shown} and {len(data) - _SHOWN_BYTES} bytes more"


def _states(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> str:
    """Two saved states, from a little before the place where they part."""
    a, b = b"".join(one), b"".join(other)
    if a == b:
        return f"the states are cut in {len(one)} and {len(other)} chunks: cut equal states equally"
    same = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, same - 40)
    return f"  state: {_short(a[start:])}\n  state: {_short(b[start:])}"


def _after(past: Sequence[Proposal]) -> str:
    if not past:
        return "as the first commands of an empty machine"
    left_out = f"{len(past) - _SHOWN_COMMANDS} commands and " if len(past) > _SHOWN_COMMANDS else ""
    return f"after {left_out}{', '.join(_short(each.command) for each in past[-_SHOWN_COMMANDS:])}"
