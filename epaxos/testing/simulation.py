"""A state machine of one's own under hostile schedules: whole clusters of it in virtual time, from a seed.

Each seed is a run of the simulator (see `loop`): crashes, partitions, lost writes and whatever else it drew, then
peace, and everything must come to rest. What clients of the machine were answered must be what one order of their
commands gives, an order that respects real time; all replicas must come to the same state; the invariant must hold
after each command at each replica. The commands of each seed are also given to the machine by itself, as
`check_machine` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from epaxos.command import READ, Command, Entry
from epaxos.errors import MachineError
from epaxos.machines.interface import StateMachine
from epaxos.machines.opaque import OPAQUE_OP, OpaqueMachine, opaque_command
from epaxos.protocols.registry import PROTOCOLS
from epaxos.testing.faults import KINDS
from epaxos.testing.invariants import OF_ANY_MACHINE
from epaxos.testing.loop import Play
from epaxos.testing.machines import (
    Check,
    Commands,
    MachineFault,
    Make,
    Proposal,
    apply,
    check_elsewhere,
    demand,
    draw,
    examine,
    new,
    run,
    save,
)
from epaxos.testing.record import Form, OnePart, Part, Violation
from epaxos.testing.seeds import SeedResult, run_seed
from epaxos.testing.summary import Summary
from epaxos.testing.trace import Sink

_COMMANDS: Final = 150
"""Drawn for each seed; a run uses about 60 of them, and begins again when it needs more."""
_TAG: Final = b"\x00call "


@dataclass(slots=True)
class Simulated(Summary):
    """What was tried, and went well."""

    pairs: int = 0
    """Pairs of commands that do not conflict, tried in both orders."""

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.seeds} seeds, {self.sim_us / 1e6:.0f} simulated seconds: {self.commands} commands,"
                f" {self.lives} lives of replicas, {self.messages} messages, {self.recoveries} recoveries",
                f"{self.pairs} pairs of commands in both orders",
                "struck: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.struck.items())),
            ]
        )


def simulate(
    machine: Make,
    commands: Commands,
    *,
    seed: int = 0,
    seeds: Iterable[int] | None = None,
    invariant: Check | None = None,
    replicas: int = 3,
    protocol: str = "epaxos",
    without: Iterable[str] = (),
    trace: Sink | None = None,
) -> Simulated:
    """Run a machine through one `seed`, or through all `seeds`; the hooks are those of `check_machine`.

    `without` leaves out kinds of faults (the keys of `epaxos.testing.faults.KINDS`); `trace` gets every event, as a
    line. Raises MachineFault at the first thing that is wrong, saying which seed to run again, and ValueError for an
    unknown kind of fault, an unknown protocol, or commands that only read.
    """
    left_out = frozenset(without)
    if unknown := sorted(left_out - set(KINDS)):
        raise ValueError(f"no such kind of fault: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"no such protocol: {protocol}; there are {', '.join(PROTOCOLS)}")
    total = Simulated()
    for each in (seed,) if seeds is None else seeds:
        run_one = _OneSeed(machine, commands, each, invariant, elsewhere=not total.seeds)
        try:
            result = run_one.simulated(replicas, protocol, left_out, trace)
        except MachineFault as fault:
            again = f"replay with: seed={each}, replicas={replicas}, protocol={protocol!r}, without={sorted(left_out)}"
            raise MachineFault(fault.check, f"{fault.text}\n{again}") from fault
        total.add(result)
        total.pairs += run_one.pairs
    return total


class _OneSeed:
    """One seed of one machine."""

    def __init__(self, make: Make, commands: Commands, seed: int, invariant: Check | None, *, elsewhere: bool) -> None:
        """`elsewhere`: also in other processes, which takes longer than all the rest."""
        self._make = make
        self._elsewhere = elsewhere
        self._seed = seed
        self._invariant = invariant
        self._drawn = draw(commands, Random(seed), _COMMANDS)
        if all(proposal.only_reads for proposal in self._drawn):
            raise ValueError("commands(rng) makes nothing but commands that only read")
        self.pairs = 0

    def simulated(self, replicas: int, protocol: str, without: frozenset[str], trace: Sink | None) -> SeedResult:
        """The machine by itself, then in the simulator. Raises MachineFault."""
        replies, chunks = run(self._make, self._drawn, self._invariant)
        self.pairs, _ = examine(self._make, self._drawn, Random(self._seed))
        if self._elsewhere:
            check_elsewhere(self._make, self._drawn, replies, chunks)
        play = Play(self._machine, lambda rng: _Source(self._drawn), _Model(self._make), OF_ANY_MACHINE)
        result = run_seed(self._seed, protocol=protocol, n=replicas, play=play, without=without, sink=trace)
        for violation in result.violations:
            # What it comes from is said more plainly by two commands than by a run of sixty.
            examine(self._make, self._drawn, Random(self._seed), window=len(self._drawn))
            check, _, text = violation.rpartition("\nreplay with")[0].partition(": ")
            raise MachineFault(check, text)
        return result

    def _machine(self) -> OpaqueMachine:
        return _Watched(new(self._make), self._invariant)


class _Watched(OpaqueMachine):
    """Asks the invariant after each command."""

    def __init__(self, machine: StateMachine, invariant: Check | None) -> None:
        super().__init__(machine)
        self._invariant = invariant
        self._past: list[Proposal] = []

    def _apply(self, command: bytes) -> bytes:
        try:
            reply = super()._apply(command)
            if self._invariant is not None:
                self._past.append(Proposal(command, frozenset(), frozenset()))
                demand(self._invariant, self.machine, self._past)
        except MachineError as error:
            raise Violation("apply", str(error)) from error
        except MachineFault as fault:
            raise Violation(fault.check, fault.text) from fault
        return reply


class _Source:
    """The commands of a seed, one behind the other."""

    run_max = 1

    def __init__(self, drawn: list[Proposal]) -> None:
        self._drawn = drawn
        self._number = 0

    @property
    def keys(self) -> tuple[bytes, ...]:
        """As `Source.keys`."""
        return tuple(sorted(frozenset().union(*(each.reads | each.writes for each in self._drawn))))

    def next(self) -> Form:
        """As `Source.next`."""
        proposal = self._drawn[self._number % len(self._drawn)]
        self._number += 1
        return Form(
            _told_apart(proposal, self._number), "apply", (Part(b"", "apply", proposal.command),), proposal.only_reads
        )

    def survey(self) -> Form:
        """As `Source.survey`: nothing reads everything, but one more command is as good as any."""
        return self.next()


def _told_apart(proposal: Proposal, number: int) -> Command:
    """The command, with a key of its own that nobody else names: no two of a run are alike."""
    command = opaque_command(proposal.command, reads=sorted(proposal.reads), writes=sorted(proposal.writes))
    return (*command, Entry(OPAQUE_OP, READ, _TAG + b"%d" % number, b""))


class _Model(OnePart):
    """The machine itself, loaded and saved around each command, as its own oracle."""

    def __init__(self, make: Make) -> None:
        self._make = make

    def step(self, state: Hashable, part: Part) -> tuple[bytes, Hashable]:
        """As `Model.step`; the state is the whole one."""
        machine = new(self._make)
        if isinstance(state, tuple):
            machine.load(iter(state))
        assert isinstance(part.argument, bytes)
        return apply(machine, part.argument), save(machine)
