"""The round trips of a lab as its packets find them: small UDP packets between all pairs, before any load."""

from __future__ import annotations

import itertools
import socket
import struct
from select import select
from statistics import median_low
from time import monotonic

from topology.lab.namespaces import inside, prompt
from topology.lab.state import State

PINGS = 7
_GAP_S = 0.02
_PATIENCE_S = 0.2
_PING = struct.Struct("<4sIHHd")
_MAGIC = b"epxp"


class _Probe:
    """The sockets of all sites, which echo what they are sent."""

    def __init__(self, state: State) -> None:
        self._sockets = []
        self._state = state
        for site in state.sites:
            with inside(state.namespace(site)):
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setblocking(False)
            made.bind((state.address(site), 0))
            self._sockets.append(made)
        self._address = [made.getsockname() for made in self._sockets]
        self.seen: dict[tuple[int, int], list[int]] = {}

    def close(self) -> None:
        for made in self._sockets:
            made.close()

    def ping(self, number: int) -> None:
        """One packet on every pair, once."""
        for a, b in itertools.combinations(range(len(self._sockets)), 2):
            self._sockets[a].sendto(_PING.pack(_MAGIC, number, a, b, monotonic()), self._address[b])

    def listen(self, until_s: float, expected: int) -> None:
        """Answer and count until then, or until so many answers are there."""
        while (left_s := until_s - monotonic()) > 0 and sum(map(len, self.seen.values())) < expected:
            readable, _, _ = select(self._sockets, [], [], left_s)
            for made in readable:
                self._receive(made)

    def _receive(self, made: socket.socket) -> None:
        packet, sender = made.recvfrom(_PING.size)
        now_s = monotonic()
        magic, _, a, b, sent_s = _PING.unpack(packet)
        if magic != _MAGIC:
            return
        if made is self._sockets[b]:
            made.sendto(packet, sender)
        else:
            self.seen.setdefault((a, b), []).append(round((now_s - sent_s) * 1e6))


def measure(state: State, pings: int = PINGS) -> dict[tuple[str, str], int | None]:
    """(site, site) -> the median round trip of `pings` packets in microseconds, None when none came back."""
    probe = _Probe(state)
    pairs = list(itertools.combinations(range(len(state.sites)), 2))
    slowest_s = 2 * max(link.delay_us + 4 * link.jitter_us for link in state.links.values()) / 1e6
    try:
        with prompt():
            for number in range(pings):
                probe.ping(number)
                probe.listen(monotonic() + _GAP_S, pings * len(pairs))
            probe.listen(monotonic() + slowest_s + _PATIENCE_S, pings * len(pairs))
    finally:
        probe.close()
    found = {pair: probe.seen.get(pair) for pair in pairs}
    return {(state.sites[a], state.sites[b]): median_low(us) if us else None for (a, b), us in found.items()}
