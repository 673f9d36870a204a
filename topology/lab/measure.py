"""The round trips of a lab as its packets find them: small UDP packets both ways between all pairs, before any load.

Each way is timed from just before a packet is sent until the kernel has it at the other end. What the measuring process
itself takes to wake up is not the link's, and on a busy machine, or one emulated in software, it is more than a link
may be off. A round trip is the sum of its two ways.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Mapping
from select import select
from statistics import median_low
from time import monotonic, time_ns
from typing import Final

from topology.lab.namespaces import inside, prompt
from topology.lab.state import State

PINGS: Final = 7
_GAP_S: Final = 0.001
"""Between two packets, so that none waits for another."""
_PATIENCE_S: Final = 0.2
_PING: Final = struct.Struct("<4sHHq")
_MAGIC: Final = b"epxp"
_TIMESPEC: Final = struct.Struct("qq")
SO_TIMESTAMPNS: Final = 35
"""The kernel tells with each packet when it arrived."""


class _Probe:
    """A socket in each region, and what has arrived."""

    def __init__(self, state: State) -> None:
        self._sockets = []
        for site in state.sites:
            with inside(state.namespace(site)):
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            made.bind((state.address(site), 0))
            self._sockets.append(made)
        self._address = [made.getsockname() for made in self._sockets]
        self.ways_us: dict[tuple[int, int], list[int]] = {}
        """(from, to) -> how long each packet took."""
        self.arrived = 0

    def close(self) -> None:
        for made in self._sockets:
            made.close()

    def ping(self, source: int, target: int) -> None:
        """One packet."""
        self._sockets[source].sendto(_PING.pack(_MAGIC, source, target, time_ns()), self._address[target])

    def listen(self, until_s: float, expected: int) -> None:
        """Take what arrives until then, or until so much has arrived since the beginning."""
        while (left_s := until_s - monotonic()) > 0 and self.arrived < expected:
            readable, _, _ = select(self._sockets, [], [], left_s)
            for made in readable:
                self._take(made)

    def _take(self, made: socket.socket) -> None:
        packet, ancillary, _, _ = made.recvmsg(_PING.size, socket.CMSG_SPACE(_TIMESPEC.size))
        magic, source, target, sent_ns = _PING.unpack(packet)
        if magic != _MAGIC or not ancillary:
            return
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
        took_ns = seconds * 1_000_000_000 + nanoseconds - sent_ns
        self.ways_us.setdefault((source, target), []).append(round(took_ns / 1_000))
        self.arrived += 1


def measure(state: State, pings: int = PINGS) -> dict[tuple[str, str], int | None]:
    """(site, site) -> the round trip in microseconds, of the medians of `pings` packets each way; None when on one of
    the ways nothing arrived."""
    probe = _Probe(state)
    ways = list(itertools.permutations(range(len(state.sites)), 2))
    slowest_s = max(link.delay_us + 4 * link.jitter_us for link in state.links.values()) / 1e6
    try:
        with prompt():
            for source, target in ways * pings:
                probe.ping(source, target)
                probe.listen(monotonic() + _GAP_S, len(ways) * pings)
            probe.listen(monotonic() + slowest_s + _PATIENCE_S, len(ways) * pings)
    finally:
        probe.close()
    medians_us = {way: median_low(us) for way, us in probe.ways_us.items()}
    return {
        (state.sites[a], state.sites[b]): _round_trip_us(medians_us, a, b)
        for a, b in itertools.combinations(range(len(state.sites)), 2)
    }


def _round_trip_us(ways_us: Mapping[tuple[int, int], int], a: int, b: int) -> int | None:
    there_us, back_us = ways_us.get((a, b)), ways_us.get((b, a))
    return None if there_us is None or back_us is None else there_us + back_us
