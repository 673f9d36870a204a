"""A failing seed, retold as a scenario file: as few events as break the same invariant, one a line.

The run is taped, the tape is played by hand, and events are left out for as long as the invariant is still broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from epaxos._version import VERSION
from epaxos.testing import events, faults
from epaxos.testing.forks import Forks
from epaxos.testing.invariants import ALL
from epaxos.testing.loop import KV, Play
from epaxos.testing.reading import ScenarioError
from epaxos.testing.record import Violation
from epaxos.testing.reducing import Reduction
from epaxos.testing.rehearsal import Script
from epaxos.testing.seeds import run_seed
from epaxos.testing.shrinking import Shrunk
from epaxos.testing.tape import Tape
from epaxos.testing.writing import write_scenario

_AT_REST: Final = frozenset(kind.name for kind in ALL if kind.at_rest)


def retold(shrunk: Shrunk, *, play: Play = KV, progress: Callable[[str], None] = lambda _: None) -> str:
    """The file of a seed that was shrunk under that `play`. Raises ScenarioError, with the reason, for what cannot be
    told this way."""
    result = shrunk.result
    invariant, _, what = result.violations[0].partition(": ")
    if invariant in _AT_REST:
        raise ScenarioError(f"{invariant} is broken by what never happened, and a scenario tells what does")
    script = tape(
        result.seed,
        protocol=result.protocol,
        n=result.n,
        play=play,
        without=shrunk.without,
        commands=shrunk.commands,
    )
    reduction = Reduction(script, Violation(invariant, what), progress)
    if not reduction.run():
        raise ScenarioError("events played by hand do not break it; it needs more of the simulator than they have")
    found = reduction.violation.what.partition("\n")[0]
    return write_scenario(
        result.n,
        reduction.script.events,
        story=f"{invariant}: {found}\nFound by: {shrunk.replay} --shrink (epaxos {VERSION})",
        protocol=result.protocol,
        settings=reduction.script.settings,
    )


def tape(
    seed: int,
    *,
    protocol: str,
    n: int,
    play: Play = KV,
    without: tuple[str, ...] = (),
    commands: int | None = None,
) -> Script:
    """A seed, with less in it, as events on a cluster by hand: all disks and turns are held."""
    taped = Tape()
    run_seed(seed, protocol=protocol, n=n, play=play, without=without, commands=commands, tape=taped)
    swarm = faults.draw(Forks(seed), n, frozenset(without))
    settings = {
        "n": n,
        "protocol": protocol,
        "retry_us": swarm.retry_us,
        "preferred": swarm.preferred,
        "eager": swarm.eager,
        "chance": seed,
        **swarm.limits._asdict(),
    }
    held: list[events.Event] = [*map(events.HoldDisk, range(n)), *map(events.HoldTurns, range(n))]
    keys = play.make_commands(Forks(seed)["workload.commands"]).keys
    return Script(settings, [*held, *taped.events], taped.calls, keys)
