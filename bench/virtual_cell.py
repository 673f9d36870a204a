"""One cell of a comparison in virtual time: the engines that ship, the same arrivals, on links without a machine.

Computing costs nothing here, so the figures show the protocol alone: no queueing in a process, no scheduler. They are
the same on every machine, and a report says that they are modelled.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from bench import load
from bench.cell import CellError, CellLoad, Progress
from bench.comparison import Cell, SiteFigures, percentiles, steps
from bench.virtual import LINKS_UP_US, SECOND_US, Asked, Lab
from topology import bounds

if TYPE_CHECKING:
    from topology import Matrix

_DRAIN_US: Final = 5 * SECOND_US
_STEP_US: Final = SECOND_US


def run(matrix: Matrix, protocol: str, leader: str | None, load_: CellLoad, progress: Progress) -> Cell:
    """The cell. Raises CellError when another one led than was to, and Violation when safety is lost."""
    lab = Lab(matrix, protocol=protocol, leader=None if leader is None else matrix.index(leader), seed=load_.seed)
    first_us = LINKS_UP_US + int(load_.warmup_seconds * SECOND_US)
    shape = load_.shape(load_.seconds)
    for site, name in enumerate(matrix.sites):
        for client in load.draw(shape, name, str(load_.seed)):
            for arrival in client:
                lab.at(first_us + arrival.at_us, lab.ask, site, arrival.key, b"v" * shape.value_bytes)
    end_us = first_us + int(load_.seconds * SECOND_US)
    for at_us in range(0, end_us + _DRAIN_US, _STEP_US):
        lab.run_until(at_us)
        progress(
            f"{at_us / SECOND_US:.0f} s of virtual time, {sum(a.answered_us is not None for a in lab.asked)} answered"
        )
    if leader is not None:
        _check_leader(lab, matrix.index(leader))
    return _figures(lab, matrix, protocol, leader, load_)


def _check_leader(lab: Lab, leader: int) -> None:
    led = {node.engine.protocol.status()["leader"] for node in lab.nodes}
    if led != {leader}:
        raise CellError(f"replicas {sorted(map(str, led))} led, and not {leader}, which was to be measured")


def _figures(lab: Lab, matrix: Matrix, protocol: str, leader: str | None, load_: CellLoad) -> Cell:
    pooled = _took(lab.asked)
    sites = {}
    for site, name in enumerate(matrix.sites):
        asked = [each for each in lab.asked if each.site == site]
        took = _took(asked)
        sites[name] = SiteFigures(
            optimum_us=bounds.optimum_us(matrix, name),
            bound_us=bounds.protocol_us(protocol, matrix, name, leader),
            commit_us={},
            execute_us=percentiles(took),
            cdf_us=steps(took),
            fast_share=_fast_share(lab, site),
            answered=len(took),
            failed=len(asked) - len(took),
        )
    statuses = [node.engine.protocol.status() for node in lab.nodes]
    return Cell(
        protocol=protocol,
        leader=leader,
        conflict=load_.hot_share,
        zipf=load_.zipf,
        sites=sites,
        pooled_us=percentiles(pooled),
        pooled_cdf_us=steps(pooled),
        recoveries=sum(_count(status.get("recoveries")) for status in statuses),
        groups=_groups(lab, LINKS_UP_US + int(load_.warmup_seconds * SECOND_US)),
        syncs_a_command=None,
        bytes_a_command=None,
        busy_share=None,
    )


def _took(asked: list[Asked]) -> list[int]:
    return sorted(each.took_us for each in asked if each.took_us is not None)


def _fast_share(lab: Lab, site: int) -> float | None:
    """Of the site's instances: in virtual time nobody counts the commands on the hot key apart."""
    status = lab.nodes[site].engine.protocol.status()
    fast, slow = _count(status.get("fast")), _count(status.get("slow"))
    return fast / (fast + slow) if fast + slow else None


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _groups(lab: Lab, from_us: int) -> dict[str, int | None]:
    """Of what executed under the measured load, an instance a line: the median over the groups, and the largest."""
    sizes = sorted(ran.group for ran in lab.ran[0].values() if ran.at_us >= from_us)
    groups = [size for size, alike in groupby(sizes) for _ in range(len(list(alike)) // size)]
    return {"p50": groups[len(groups) // 2] if groups else None, "max": max(sizes, default=None)}
