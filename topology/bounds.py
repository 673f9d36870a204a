"""What a matrix allows: closed forms for the latency at each site, in microseconds.

They take a client beside its replica and processing that costs nothing, so no implementation of the protocol can be
faster; a measurement is judged by how near it comes. The quorum sizes are those of `epaxos.quorums` and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from epaxos.errors import ConfigError
from epaxos.quorums import MAX_REPLICAS, Quorums, quorums
from topology.matrix import Matrix


class Placed(NamedTuple):
    """A leader at `site`, and the mean over all sites of what their clients see then."""

    site: str
    mean_us: float


def quorum_edge(matrix: Matrix, site: str, size: int) -> tuple[int, str]:
    """The farthest member of the nearest quorum of `size` replicas around `site` (which counts as one of them), as
    (round trip in microseconds, name): nothing that waits for such a quorum is faster."""
    if not 1 <= size <= len(matrix.sites):
        raise ValueError(f"a quorum of {size} among {len(matrix.sites)} sites")
    return (0, site) if size == 1 else matrix.nearest(site)[size - 2]


def optimum_us(matrix: Matrix, site: str) -> int:
    """The leaderless optimum: one round trip to the nearest majority."""
    return quorum_edge(matrix, site, _sizes(matrix).majority)[0]


def epaxos_fast_us(matrix: Matrix, site: str) -> int:
    """EPaxos without conflicts: one round trip to the nearest fast quorum. At 3 and 5 sites this is the optimum."""
    return quorum_edge(matrix, site, _sizes(matrix).fast)[0]


def epaxos_slow_us(matrix: Matrix, site: str) -> int:
    """EPaxos on the slow path: the fast attempt, then one Accept round to the nearest slow quorum."""
    return epaxos_fast_us(matrix, site) + quorum_edge(matrix, site, _sizes(matrix).slow)[0]


def raft_us(matrix: Matrix, site: str, leader: str) -> int:
    """A leader protocol: to the leader and back, plus the leader's round trip to its nearest majority."""
    return matrix.between_us(site, leader) + optimum_us(matrix, leader)


def leaders(matrix: Matrix) -> list[Placed]:
    """Every site as the Raft leader, the best mean over all sites first."""
    placed = [Placed(leader, mean_us(matrix, partial(_raft_led_from, matrix, leader))) for leader in matrix.sites]
    return sorted(placed, key=lambda each: each.mean_us)


def _raft_led_from(matrix: Matrix, leader: str, site: str) -> int:
    return raft_us(matrix, site, leader)


def best_leader(matrix: Matrix) -> Placed:
    """Where a Raft leader serves all sites best, on the mean."""
    return leaders(matrix)[0]


def worst_leader(matrix: Matrix) -> Placed:
    """Where a Raft leader serves all sites worst, on the mean."""
    return leaders(matrix)[-1]


def mean_us(matrix: Matrix, bound: Callable[[str], int]) -> float:
    """The mean over the sites of `bound(site)`."""
    return sum(bound(site) for site in matrix.sites) / len(matrix.sites)


PROTOCOLS: Final = ("epaxos", "raft")
"""Those that have a bound here."""


def protocol_us(protocol: str, matrix: Matrix, site: str, leader: str | None = None) -> int:
    """What `protocol` can do at best at `site` without conflicts; Raft under `leader`, or the best-placed one.

    Raises ConfigError for a protocol that has no bound here.
    """
    _known(protocol)
    if protocol == "raft":
        return raft_us(matrix, site, leader or best_leader(matrix).site)
    return epaxos_fast_us(matrix, site)


def waits_for(protocol: str, matrix: Matrix, site: str, leader: str | None = None) -> tuple[int, str]:
    """Whose answer a command at `site` waits for when nothing conflicts, as (round trip in microseconds, name): the
    farthest member of the fast quorum, or Raft's leader. `leader` and errors as for `protocol_us`."""
    _known(protocol)
    if protocol == "raft":
        leader = leader or best_leader(matrix).site
        return matrix.between_us(site, leader), leader
    return quorum_edge(matrix, site, _sizes(matrix).fast)


def _known(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ConfigError(f"there is no bound for protocol {protocol!r}; there is one for {' and '.join(PROTOCOLS)}")


def _sizes(matrix: Matrix) -> Quorums:
    n = len(matrix.sites)
    if n > MAX_REPLICAS:
        raise ConfigError(f"matrix {matrix.name}: {n} sites, but a cluster has at most {MAX_REPLICAS}: choose some")
    return quorums(n)
