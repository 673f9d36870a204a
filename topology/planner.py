"""Which protocol, how many replicas, and where: the expected latency of every choice, from closed forms.

Clients stand at sites, each with a weight; replicas at some of the sites. An EPaxos client goes to the nearest replica
and waits for its fast quorum, and for a slow round besides when its command conflicts; a Raft client's command gets to
the leader on the shorter of two ways, straight or through the nearest replica, and waits for a majority there.
Processing costs nothing here, so a plan compares choices and promises no figure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from epaxos.errors import ConfigError
from epaxos.quorums import MAX_REPLICAS, quorums
from topology.bounds import PROTOCOLS, quorum_edge
from topology.matrix import Matrix

PLACEMENTS_MAX: Final = 5_000
"""Of one number of replicas. More are not tried one by one: the best one of fewer replicas grows, a site at a time."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One protocol on replicas at some sites. Latencies in microseconds."""

    protocol: str
    replicas: tuple[str, ...]
    leader: str | None
    clients_us: dict[str, float]
    """What clients at each site see, without queueing and processing."""
    mean_us: float
    """Over the clients, by their weights."""

    @property
    def worst_us(self) -> float:
        """What the clients see that are worst off."""
        return max(self.clients_us.values())

    @property
    def survives(self) -> int:
        """How many replicas may be down."""
        return quorums(len(self.replicas)).f


def plan(matrix: Matrix, weights: Mapping[str, float], *, sizes: Sequence[int], conflict: float = 0.0) -> list[Choice]:
    """The best placement of each protocol at each number of replicas, the lowest mean latency first.

    `weights`: site -> share of the clients there; `conflict` is the share of commands that conflict. Raises ConfigError
    for sites, weights or sizes that cannot be.
    """
    _check(matrix, weights, sizes, conflict)
    found = []
    for protocol in PROTOCOLS:
        smaller: tuple[str, ...] = ()
        for size in sorted(set(sizes)):
            best = min(
                (
                    choice
                    for replicas in _placements(matrix, size, smaller)
                    for choice in _choices(protocol, matrix, replicas, weights, conflict)
                ),
                key=lambda choice: (choice.mean_us, choice.worst_us),
            )
            smaller = best.replicas
            found.append(best)
    return sorted(found, key=lambda choice: (choice.mean_us, len(choice.replicas)))


def advice(choices: Sequence[Choice]) -> str:
    """What the plan comes to, in a sentence or two; of choices as `plan` gives them."""
    best = choices[0]
    rival = next((each for each in choices if each.protocol != best.protocol), None)
    words = f"Take {describe(best)}: {best.mean_us / 1000:.1f} ms on the mean, and {best.survives} may be down."
    if rival is not None:
        words += f" The best of {rival.protocol} is {describe(rival)}, {rival.mean_us / best.mean_us:.2f} times that."
    safer = next((each for each in choices if each.survives > best.survives), None)
    if safer is not None:
        words += f" To survive {safer.survives}: {describe(safer)}, {safer.mean_us / 1000:.1f} ms."
    return words


def describe(choice: Choice) -> str:
    """A choice in words."""
    led = f" led from {choice.leader}" if choice.leader else ""
    return f"{choice.protocol}{led} at {' '.join(choice.replicas)}"


def _check(matrix: Matrix, weights: Mapping[str, float], sizes: Sequence[int], conflict: float) -> None:
    for site in weights:
        matrix.index(site)
        if not 0 <= weights[site] < math.inf:
            raise ConfigError(f"the weight of {site} is a number from 0 on, not {weights[site]}")
    if not sum(weights.values()):
        raise ConfigError("there are no clients to plan for: give at least one site a weight above 0")
    most = min(MAX_REPLICAS, len(matrix.sites))
    for size in sizes:
        if not 1 <= size <= most:
            raise ConfigError(f"{size} replicas: 1 to {most} can be placed at the sites of {matrix.name}")
    if not 0 <= conflict <= 1:
        raise ConfigError(f"a share of conflicts lies between 0 and 1, not at {conflict}")


def _placements(matrix: Matrix, size: int, smaller: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if math.comb(len(matrix.sites), size) <= PLACEMENTS_MAX:
        yield from itertools.combinations(matrix.sites, size)
        return
    free = [site for site in matrix.sites if site not in smaller]
    for more in itertools.islice(itertools.combinations(free, size - len(smaller)), PLACEMENTS_MAX):
        chosen = {*smaller, *more}
        yield tuple(site for site in matrix.sites if site in chosen)


def _choices(
    protocol: str, matrix: Matrix, replicas: tuple[str, ...], weights: Mapping[str, float], conflict: float
) -> Iterator[Choice]:
    """EPaxos has one; Raft one for each leader."""
    placed = matrix.only(replicas)
    size = quorums(len(replicas))
    sites = [site for site, weight in weights.items() if weight]
    if protocol == "epaxos":
        at = {
            replica: quorum_edge(placed, replica, size.fast)[0] + conflict * quorum_edge(placed, replica, size.slow)[0]
            for replica in replicas
        }
        seen = {site: min((matrix.between_us(site, replica), at[replica]) for replica in replicas) for site in sites}
        yield _choice(protocol, replicas, None, {site: sum(us) for site, us in seen.items()}, weights)
        return
    for leader in replicas:
        commit_us = quorum_edge(placed, leader, size.majority)[0]
        ways: dict[str, float] = {site: _way_us(matrix, site, leader, replicas) + commit_us for site in sites}
        yield _choice(protocol, replicas, leader, ways, weights)


def _way_us(matrix: Matrix, site: str, leader: str, replicas: tuple[str, ...]) -> int:
    nearest_us, nearest = min((matrix.between_us(site, replica), replica) for replica in replicas)
    return min(matrix.between_us(site, leader), nearest_us + matrix.between_us(nearest, leader))


def _choice(
    protocol: str, replicas: tuple[str, ...], leader: str | None, seen: dict[str, float], weights: Mapping[str, float]
) -> Choice:
    total = sum(weights[site] for site in seen)
    mean_us = sum(us * weights[site] for site, us in seen.items()) / total
    return Choice(protocol=protocol, replicas=replicas, leader=leader, clients_us=seen, mean_us=mean_us)
