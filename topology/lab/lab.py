"""A lab from its beginning to its end: up, changed while it runs, down."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from epaxos.errors import ConfigError
from topology.lab import namespaces, netem, state as lab_state, tun
from topology.lab.links import Link
from topology.lab.measure import measure
from topology.lab.namespaces import LabError
from topology.lab.state import State
from topology.matrix import Matrix

BACKENDS: Final = ("netem", "tun")
TOLERANCE: Final = 0.05
SLACK_US: Final = 500
"""A link may be off by 5 % and half a millisecond; beyond that it is not the link of the matrix."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is up."""

    state: State

    @property
    def sites(self) -> tuple[str, ...]:
        """The regions."""
        return self.state.sites

    def socket_in(self, site: str) -> socket.socket:
        """A TCP socket inside of a region."""
        return namespaces.socket_in(self.state.namespace(site))

    def command_in(self, site: str, command: Sequence[str]) -> list[str]:
        """The words that run a command inside of a region."""
        return ["ip", "netns", "exec", self.state.namespace(self._site(site)), *command]

    def change(self, way: str, words: dict[str, str]) -> None:
        """Set properties of `A-B` (both directions) or `A>B` (one). Raises ConfigError."""
        both = "-" in way
        a, _, b = way.partition("-" if both else ">")
        pairs = [(self._site(a), self._site(b)), *([(self._site(b), self._site(a))] if both else [])]
        self._set({pair: self.state.links[pair].changed(words) for pair in pairs if a != b})

    def partition(self, groups: Sequence[Iterable[str]]) -> None:
        """Nothing passes between sites of different groups; all that are in none are one group more."""
        at = {self._site(site): number for number, group in enumerate(groups, 1) for site in group}
        cut = {(a, b) for a, b in self.state.links if at.get(a, 0) != at.get(b, 0)}
        self._set({pair: replace(link, cut=pair in cut) for pair, link in self.state.links.items()})

    def heal(self) -> None:
        """Every link is as the matrix says again."""
        self._set(self.state.original())

    def measure(self) -> dict[tuple[str, str], int | None]:
        """(site, site) -> round trip in microseconds, of packets."""
        return measure(self.state)

    def off(self, measured: dict[tuple[str, str], int | None]) -> list[str]:
        """In words, every pair whose measured round trip is not that of its links as they are set."""
        return _off(measured, self.state.links)

    def off_matrix(self, measured: dict[tuple[str, str], int | None]) -> list[str]:
        """In words, every pair whose measured round trip is not that of the matrix."""
        return _off(measured, self.state.original())

    def _site(self, site: str) -> str:
        if site not in self.state.sites:
            raise ConfigError(f"lab {self.state.name} has no site {site!r}; it has {', '.join(self.state.sites)}")
        return site

    def _set(self, links: dict[tuple[str, str], Link]) -> None:
        state = self.state
        changed = [pair for pair, link in links.items() if state.links[pair] != link]
        state.links.update(links)
        state.revision += 1
        state.write()
        if state.backend == "netem":
            netem.apply(state, changed)
        else:
            tun.apply(state)


def _off(measured: dict[tuple[str, str], int | None], links: dict[tuple[str, str], Link]) -> list[str]:
    found = []
    for (a, b), rtt_us in measured.items():
        wanted_us = links[a, b].delay_us + links[b, a].delay_us
        if rtt_us is None or abs(rtt_us - wanted_us) > wanted_us * TOLERANCE + SLACK_US:
            shown = "nothing" if rtt_us is None else f"{rtt_us / 1000:.1f} ms"
            found.append(f"{a}-{b}: {shown} instead of {wanted_us / 1000:.1f} ms")
    return found


def bring_up(matrix: Matrix, *, name: str = "lab", backend: str = "auto") -> Lab:
    """Set a lab up. Raises LabError when there is one of that name, or this machine cannot."""
    lab_state.check_name(name)
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes network namespaces")
    if lab_state.read(name) is not None or namespaces.existing(lab_state.namespace_prefix(name)):
        raise LabError(f"there is a lab {name} already: python -m topology down --name {name}")
    state = State(
        name=name,
        backend=choose(backend),
        matrix=matrix.name,
        sites=matrix.sites,
        lengths_us=lab_state.lengths_us(matrix),
    )
    state.write()
    try:
        (netem if state.backend == "netem" else tun).start(state)
    except BaseException:
        tear_down(name)
        raise
    return Lab(state)


def choose(backend: str) -> str:
    """The back end to use: the best there is for `auto`. Raises LabError when the one named is not to be had."""
    usable = {"netem": netem.available, "tun": tun.available}
    for candidate in BACKENDS if backend == "auto" else (backend,):
        if usable[candidate]():
            return candidate
    wanted = "neither netem nor TUN devices are" if backend == "auto" else f"{backend} is not"
    raise LabError(f"{wanted} to be had on this kernel; `epaxos demo` needs neither")


def find(name: str) -> Lab:
    """The lab of that name. Raises LabError when there is none."""
    state = lab_state.read(name)
    if state is None:
        known = ", ".join(lab_state.names()) or "none"
        raise LabError(f"there is no lab {name} (there is: {known})")
    return Lab(state)


def tear_down(name: str) -> int:
    """Leave nothing of the lab behind, however much of it there is; returns how many namespaces there were."""
    lab_state.check_name(name)
    state = lab_state.read(name)
    if state is not None:
        tun.stop(state)
    count = namespaces.delete_all(lab_state.namespace_prefix(name))
    if state is not None:
        state.remove()
    return count
