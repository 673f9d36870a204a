"""A power cut, for real: five replicas on a disk whose machine stops at once, again and again.

The machine is a user-mode Linux: a whole kernel that runs as an ordinary process, with the files of this machine as its
root and a disk of its own, an ext4 in an image file. Killed with SIGKILL it loses its memory, and with it everything
that it had not yet written to the disk: what `kill -9` of a replica never tests, since the kernel below it goes on. A
client's answer leaves the machine by its console the moment it is there. After each cut the machine boots from the
image, the replicas start on what the disk kept, and every counter is read at each of them.

The control is the same with a store that leaves out every sync: it must lose something, or this would prove nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import trio

from bench.options import JSON
from bench.powercut_guest import SHARED, SITES, WORD
from epaxos.console import Console
from epaxos.errors import ConfigError, EpaxosError
from epaxos.tables import Column, render
from topology.lab import machine

FORMAT: Final = "mkfs.ext4"
IMAGE_BYTES: Final = 1 << 30
"""A file with holes: it takes what is written."""
READY_WITHIN_S: Final = 300.0
"""A machine on a busy one: five replicas, one processor, and 65 microseconds a system call."""
LOADED_S: Final = (0.5, 4.0)
"""The power goes so long after the first answer, at a moment drawn."""
CONTROL_CUTS: Final = 2

Progress = Callable[[str], None]

INIT: Final = """
mount -t ext4 /dev/ubda {mount} || echo "{word} broken the disk cannot be mounted"
exec {python} -m bench.powercut_guest {mount} {logs} {mode}
"""


class PowercutError(EpaxosError):
    """The machine did not boot, or its replicas did not serve; the message says what was last heard of it."""


@dataclass(frozen=True, kw_only=True)
class PowercutOptions:
    """What to run."""

    cuts: int = 20
    control: bool = True
    """Also without syncs?"""
    seed: int = 1


@dataclass(kw_only=True)
class Outcome:
    """What became of one image. `acknowledged` is what the outside heard of."""

    cuts: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    """Key -> increments answered."""
    highest: dict[str, int] = field(default_factory=dict)
    """Key -> the highest number answered, or read after a cut."""
    numbers: set[int] = field(default_factory=set)
    """Of the key that all share, what was answered: each number once."""
    lost: list[str] = field(default_factory=list)
    """What was acknowledged and was not there after a cut, or not everywhere."""

    def ack(self, key: str, number: int) -> None:
        """An increment was answered."""
        self.acknowledged[key] += 1
        self.highest[key] = max(self.highest.get(key, 0), number)
        if key == SHARED:
            if number in self.numbers:
                self.lost.append(f"cut {self.cuts}: {key} was {number} before")
            self.numbers.add(number)

    def judge(self, values: dict[str, dict[str, int]]) -> None:
        """After a cut: key -> site -> value."""
        for key, by_site in values.items():
            least = self.highest.get(key, 0)
            found = sorted(set(by_site.values()))
            if len(by_site) != len(SITES) or len(found) != 1:
                self.lost.append(f"cut {self.cuts}: {key} is {by_site}")
            elif found[0] < least:
                self.lost.append(f"cut {self.cuts}: {key} is {found[0]}, and {least} was acknowledged")
            self.highest[key] = max(found, default=0)


@dataclass(kw_only=True)
class PowercutResult:
    """What happened with syncs, and without."""

    options: PowercutOptions
    synced: Outcome
    control: Outcome | None

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be."""
        blind = self.control is not None and not self.control.lost
        return [*self.synced.lost, *["without syncs nothing was lost either: this proves nothing here"] * blind]


def check() -> None:
    """Raises ConfigError when a program is missing, with what to install."""
    machine.check()
    if shutil.which(FORMAT) is None:
        raise ConfigError(f"{FORMAT} not found: on Debian, apt-get install e2fsprogs")


async def run_powercut(options: PowercutOptions, progress: Progress = lambda text: None) -> PowercutResult:
    """All cuts. Raises ConfigError when a program is missing, and PowercutError."""
    check()
    synced = await _cut(options.cuts, True, Random(options.seed), progress)
    control = await _cut(CONTROL_CUTS, False, Random(options.seed), progress) if options.control else None
    return PowercutResult(options=options, synced=synced, control=control)


async def _cut(cuts: int, synced: bool, rng: Random, progress: Progress) -> Outcome:
    """Boot, read, load, and cut, so many times on one image; then read once more."""
    outcome = Outcome()
    with TemporaryDirectory(prefix="epaxos-powercut-") as name:
        guest = Machine(Path(name), synced=synced)
        for number in range(cuts + 1):
            last = number == cuts
            heard = sum(outcome.acknowledged.values())
            mode = "" if synced else ", without syncs"
            progress(f"cut {number} of {cuts}{mode}: {heard} increments acknowledged, {len(outcome.lost)} things lost")
            try:
                await _life(guest, outcome, None if last else rng.uniform(*LOADED_S))
            except PowercutError as error:
                if synced or number == 0:
                    raise
                # Without syncs a store may well be beyond reading.
                outcome.lost.append(f"cut {number}: {str(error).splitlines()[0]}")
                break
            outcome.cuts += not last
    return outcome


async def _life(guest: Machine, outcome: Outcome, loaded_s: float | None) -> None:
    """One boot: read everything, judge it; then load for that long and cut the power, or cut it at once."""
    values: dict[str, dict[str, int]] = {}
    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + READY_WITHIN_S
        async with aclosing(guest.run()) as lines:
            loaded = False
            async for what, *words in lines:
                if what == "value":
                    values.setdefault(words[1], {})[words[0]] = int(words[2])
                elif what == "loading":
                    outcome.judge(values)
                    if loaded_s is None:
                        guest.cut()
                elif what == "ack":
                    outcome.ack(words[0], int(words[1]))
                    if not loaded and loaded_s is not None:
                        loaded = True
                        scope.deadline = trio.current_time() + READY_WITHIN_S
                        guest.cut_after(loaded_s)
                else:
                    raise PowercutError(f"the machine says: {what} {' '.join(words)}\n{guest.tail()}")
            if not guest.is_cut:
                raise PowercutError(f"the machine stopped by itself\n{guest.tail()}")
            return
    raise PowercutError(f"the machine did not serve within {READY_WITHIN_S:g} s\n{guest.tail()}")


class Machine:
    """A user-mode Linux with an image of a disk, both in `directory`."""

    def __init__(self, directory: Path, *, synced: bool) -> None:
        self.is_cut = False
        self._directory = directory
        self._image = directory / "disk.img"
        self._init = directory / "init"
        self._said: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._cut_at_s: float | None = None
        mount = directory / "disk"
        mount.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run([FORMAT, "-q", "-F", str(self._image)], check=True, capture_output=True)
        lines = INIT.format(
            mount=mount,
            logs=directory,
            word=WORD,
            python=sys.executable,
            mode="synced" if synced else "unsynced",
        )
        machine.write_init(self._init, lines)

    async def run(self) -> AsyncGenerator[list[str], None]:
        """Boot, and give the words of each line that is meant for the outside, until the power is cut."""
        self.is_cut, self._cut_at_s, self._said = False, None, []
        process = self._process = machine.start(
            self._init,
            *(f"ubd0={self._image}", "con0=fd:0,fd:1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async for line in self._lines(process):
                self._said = [*self._said[-20:], line]
                if line.startswith(f"{WORD} "):
                    yield line.split()[1:]
        finally:
            self.cut()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    async def _lines(self, process: subprocess.Popen[bytes]) -> AsyncIterator[str]:
        """What the console says, line by line, to its end; the power goes in between when its time has come."""
        assert process.stdout is not None
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as said:
            while True:
                with trio.move_on_at(self._cut_at_s if self._cut_at_s is not None else float("inf")) as due:
                    data = await said.receive_some(1 << 16)
                if due.cancelled_caught:
                    self.cut()
                    self._cut_at_s = None
                    continue
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace").strip()

    def cut_after(self, seconds: float) -> None:
        """The power goes after so long."""
        self._cut_at_s = trio.current_time() + seconds

    def cut(self) -> None:
        """The power goes: every process of the machine ends at once. What it had said may still be heard."""
        self.is_cut = True
        if self._process is not None and self._process.poll() is None:
            machine.cut(self._process)

    def tail(self) -> str:
        """What was last heard, and the end of what the replicas logged."""
        return "\n".join([*self._said[-10:], *self._logs()])

    def _logs(self) -> Iterator[str]:
        for site in SITES:
            log = self._directory / f"{site}.log"
            if log.exists():
                yield f"{site}: {log.read_text(errors='replace')[-300:].strip()}"


def as_table(result: PowercutResult) -> str:
    """For people."""
    columns = [Column("store", right=False), *map(Column, ("cuts", "increments\nacknowledged", "lost"))]
    rows = [_row("as shipped", result.synced)]
    if result.control is not None:
        rows.append(_row("without syncs", result.control))
    lines = [
        f"the power of a machine with {len(SITES)} replicas is cut {result.synced.cuts} times under load,"
        f" seed {result.options.seed}",
        "(user-mode Linux, ext4 on an image file, LMDB)",
        "",
        render(columns, rows),
        "",
        *result.wrong,
    ]
    if result.control is not None and result.control.lost:
        lines.append(f"without syncs: {result.control.lost[0]}")
    lines.append(f"nothing acknowledged is lost: {'NO' if result.wrong else 'yes'}")
    return "\n".join(lines)


def _row(name: str, outcome: Outcome) -> list[str]:
    return [name, str(outcome.cuts), str(sum(outcome.acknowledged.values())), str(len(outcome.lost))]


def to_json(result: PowercutResult) -> dict[str, Any]:
    """For machines."""

    def summary(outcome: Outcome | None) -> dict[str, Any] | None:
        if outcome is None:
            return None
        return {"cuts": outcome.cuts, "acknowledged": dict(outcome.acknowledged), "lost": outcome.lost}

    return {
        "options": asdict(result.options),
        "synced": summary(result.synced),
        "control": summary(result.control),
        "wrong": result.wrong,
    }


@click.command()
@click.option("--cuts", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How often the power goes.")
@click.option("--control/--no-control", default=True, show_default=True, help="Also with a store that never syncs.")
@click.option("--seed", default=1, show_default=True, help="Of the moments at which it goes.")
@JSON
def powercut(cuts: int, control: bool, seed: int, as_json: bool) -> None:
    """Cut the power of a machine with five replicas under load: nothing acknowledged is lost.

    The machine is a user-mode Linux with a disk in an image file (Debian: apt-get install user-mode-linux).

    \b
    Example: python -m bench powercut --cuts 20
    """
    console = Console(as_json)
    options = PowercutOptions(cuts=cuts, control=control, seed=seed)
    result = trio.run(run_powercut, options, console.progress)
    console.progress_done()
    console.result(to_json(result), as_table(result))
    raise SystemExit(bool(result.wrong))
