"""One hot key, open loop, at every site of a matrix, in virtual time: does it execute, how soon, in how large groups?

Commands come whether or not earlier ones were answered, and each meets those of all other sites. In a protocol without
a leader that is where execution may starve: what is decided depends on what is not, for ever. The window of a busy key
(`limits.entangled_window`) ends that; the control is the same load with the windows wide open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from bench.options import JSON, MATRIX
from bench.tally import percentile
from bench.virtual import LINKS_UP_US, SECOND_US, Asked, Lab
from epaxos.amount import POSITIVE, Amount
from epaxos.console import Console
from epaxos.submission import DEFAULT_LIMITS
from epaxos.tables import Column, ms, render
from topology import bounds, load as load_matrix

HOT_KEY: Final = b"hot"
STEP_US: Final = 500_000
"""Of simulated time, between two words on the progress."""
DRAIN_US: Final = 20_000_000
"""Of simulated time behind the load, for what is still open."""
SLOW_COMMITS: Final = 3
"""The stated bound, in slow commits of the site where they take longest: a command waits for the group before it, since
its window is full of it, and then for its own, and each takes one slow commit and what its members' differ by."""
CONTROL_S: Final = 3.0
UNBOUNDED: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class HotkeyOptions:
    """What to run."""

    matrix: str = "gryff5"
    seconds: float = 20.0
    """Of load, in simulated time."""
    rate_per_s: float = 100.0
    """At each site."""
    window: int = DEFAULT_LIMITS.entangled_window
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Load:
    """What became of one load. Times in microseconds."""

    window: int
    """Of a busy key."""
    seconds: float
    asked: int
    while_loaded: int
    """Answered before the load ended."""
    answered: int
    """Answered in the end."""
    largest_group: int
    """Instances of the largest strongly connected component."""
    took_us: dict[str, list[int]]
    """Site -> what its commands took until they were executed and answered, ascending."""

    @property
    def all_us(self) -> list[int]:
        """Of all sites, ascending."""
        return sorted(us for each in self.took_us.values() for us in each)


@dataclass(frozen=True, kw_only=True)
class HotkeyResult:
    """The load with the window, the same without, and what was promised."""

    options: HotkeyOptions
    bound_us: int
    group_bound: int
    loaded: Load
    control: Load

    @property
    def wrong(self) -> list[str]:
        """What was promised and does not hold."""
        load, slowest = self.loaded, max(self.loaded.all_us, default=0)
        found = []
        if load.answered < load.asked:
            found.append(f"{load.asked - load.answered} commands were never executed")
        if slowest > self.bound_us:
            found.append(f"a command took {ms(slowest)} ms; the bound is {ms(self.bound_us)} ms")
        if load.largest_group > self.group_bound:
            found.append(f"a group of {load.largest_group}; the bound is {self.group_bound}")
        return found


def run_hotkey(options: HotkeyOptions, progress: Callable[[str], None] = lambda text: None) -> HotkeyResult:
    """Both loads. Raises Violation when safety is lost, and ConfigError for an unknown matrix."""
    matrix = load_matrix(options.matrix)
    control_s = min(options.seconds, CONTROL_S)
    return HotkeyResult(
        options=options,
        bound_us=SLOW_COMMITS * max(bounds.epaxos_slow_us(matrix, site) for site in matrix.sites),
        group_bound=len(matrix.sites) * (options.window + 1),
        loaded=_run(options, options.window, options.seconds, progress),
        control=_run(options, UNBOUNDED, control_s, progress),
    )


def _run(options: HotkeyOptions, window: int, seconds: float, progress: Callable[[str], None]) -> Load:
    # No command may give up: one that starves is to be seen starving.
    timeout_us = int(seconds * SECOND_US) + 2 * DRAIN_US
    limits = DEFAULT_LIMITS._replace(entangled_window=window, window=max(window, DEFAULT_LIMITS.window))
    lab = Lab(load_matrix(options.matrix), limits=limits, seed=options.seed, timeout_us=timeout_us)
    end_us = LINKS_UP_US + int(seconds * SECOND_US)
    for site in range(lab.n):
        lab.open_loop(
            site, rate_per_s=options.rate_per_s, from_us=LINKS_UP_US, until_us=end_us, key=lambda number: HOT_KEY
        )
    for at_us in range(LINKS_UP_US, end_us, STEP_US):
        lab.run_until(at_us)
        done = sum(each.answered_us is not None for each in lab.asked)
        progress(f"window {window}: {(at_us - LINKS_UP_US) / SECOND_US:.1f} s, {done} of {len(lab.asked)} executed")
    lab.run_until(end_us)
    while_loaded = sum(each.answered_us is not None for each in lab.asked)
    lab.run_until(end_us + DRAIN_US)
    return Load(
        window=window,
        seconds=seconds,
        asked=len(lab.asked),
        while_loaded=while_loaded,
        answered=sum(each.answered_us is not None for each in lab.asked),
        largest_group=max((ran.group for site in lab.ran for ran in site.values()), default=0),
        took_us={name: _took(lab.asked, site) for site, name in enumerate(lab.matrix.sites)},
    )


def _took(asked: list[Asked], site: int) -> list[int]:
    return sorted(each.took_us for each in asked if each.site == site and each.took_us is not None)


def as_table(result: HotkeyResult) -> str:
    """For people."""
    load, control, options = result.loaded, result.control, result.options
    columns = [Column("site", right=False), Column("commands"), *map(Column, ("p50", "p90", "p99", "max"))]
    rows = [_row(site, took_us) for site, took_us in load.took_us.items()]
    lines = [
        f"one hot key on {options.matrix}, {options.rate_per_s:g} commands/s at each site for {options.seconds:g} s,"
        f" open loop, seed {options.seed}",
        "virtual time, modelled links and disks; execution in ms, from the command to its reply",
        "",
        render(columns, rows, foot=[_row("all", load.all_us)]),
        "",
        f"window {load.window} of a key: {load.answered} of {load.asked} executed, bound {ms(result.bound_us)} ms;"
        f" largest group {load.largest_group}, bound {result.group_bound}",
        f"without it: {control.while_loaded} of {control.asked} executed in the {control.seconds:g} s of load;"
        f" largest group {control.largest_group}, longest wait {ms(max(control.all_us, default=None))} ms",
        *result.wrong,
        "every command executed within the bound: " + ("NO" if result.wrong else "yes"),
    ]
    return "\n".join(lines)


def _row(name: str, took_us: list[int]) -> list[str]:
    shares = (percentile(took_us, share) for share in (0.5, 0.9, 0.99))
    return [name, str(len(took_us)), *map(ms, shares), ms(took_us[-1] if took_us else None)]


def to_json(result: HotkeyResult) -> dict[str, Any]:
    """For machines; of the samples, the percentiles."""

    def summary(load: Load) -> dict[str, Any]:
        took = {**load.took_us, "all": load.all_us}
        spread = {
            name: {
                "p50_us": percentile(us, 0.5),
                "p90_us": percentile(us, 0.9),
                "p99_us": percentile(us, 0.99),
                "max_us": us[-1] if us else None,
            }
            for name, us in took.items()
        }
        return {key: value for key, value in asdict(load).items() if key != "took_us"} | {"took": spread}

    return {
        "options": asdict(result.options),
        "bound_us": result.bound_us,
        "group_bound": result.group_bound,
        "window": summary(result.loaded),
        "control": summary(result.control),
        "wrong": result.wrong,
    }


@click.command()
@MATRIX
@click.option("--seconds", default=20.0, show_default=True, type=Amount(1, 600), help="Simulated, of load.")
@click.option(
    "--rate", "rate_per_s", type=POSITIVE, default=100.0, show_default=True, help="Commands a second at each site."
)
@click.option(
    "--window",
    default=DEFAULT_LIMITS.entangled_window,
    show_default=True,
    type=click.IntRange(1, 1 << 16),
    help="limits.entangled_window.",
)
@click.option("--seed", default=1, show_default=True, help="Another seed, other moments of arrival.")
@JSON
def hotkey(matrix: str, seconds: float, rate_per_s: float, window: int, seed: int, as_json: bool) -> None:
    """One hot key, open loop at every site, in virtual time: everything executes within a bound.

    \b
    Example: python -m bench hotkey --matrix gryff5
    """
    console = Console(as_json)
    options = HotkeyOptions(matrix=matrix, seconds=seconds, rate_per_s=rate_per_s, window=window, seed=seed)
    result = run_hotkey(options, console.progress)
    console.progress_done()
    console.result(to_json(result), as_table(result))
    raise SystemExit(bool(result.wrong))
