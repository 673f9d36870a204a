"""The router of a `tun` lab: `python -m topology.lab.router NAME`. See `tun.py`.

Packets of one direction of a link keep their order, whatever the jitter, so no flow is reordered unless the link is
told to reorder. A packet that finds `QUEUE_MAX` others on its link is dropped, as a router's queue would.
"""

from __future__ import annotations

import fcntl
import gc
import heapq
import os
import select
import signal
import struct
import sys
from pathlib import Path
from random import Random
from time import monotonic_ns
from typing import Final

from topology.lab import state as lab_state
from topology.lab.links import Link
from topology.lab.namespaces import batch, inside, prompt
from topology.lab.state import State

QUEUE_MAX: Final = 20_000
MTU: Final = 1_500
DEVICE: Final = "tun0"
_PACKET_BYTES: Final = 65_536
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_DESTINATION: Final = slice(16, 20)
"""Of an IPv4 packet."""
_READS_MAX: Final = 64
"""Packets taken from one device before the others have their turn."""
_LOOK_S: Final = 1.0
"""How often it is seen whether the lab is still there."""


class Way:
    """One direction of one link, with what is under way on it."""

    __slots__ = ("delay_ns", "free_ns", "jitter_ns", "last_ns", "loss", "ns_a_byte", "queued", "reorder", "target")

    def __init__(self, target: int, link: Link) -> None:
        self.target = target
        self.queued = 0
        self.free_ns = 0
        self.last_ns = 0
        self.follow(link)

    def follow(self, link: Link) -> None:
        """From now on the link is like this."""
        self.delay_ns = link.delay_us * 1_000
        self.jitter_ns = link.jitter_us * 1_000
        self.loss = 1.0 if link.cut else link.loss
        self.reorder = link.reorder
        self.ns_a_byte = 8_000_000_000 / link.rate_bps if link.rate_bps else 0.0

    def arrival_ns(self, now_ns: int, size: int, rng: Random) -> int | None:
        """When a packet that leaves now arrives; None: it is lost."""
        if self.queued >= QUEUE_MAX or (self.loss and rng.random() < self.loss):
            return None
        if self.reorder and rng.random() < self.reorder:
            return now_ns
        at_ns = now_ns
        if self.ns_a_byte:
            self.free_ns = at_ns = max(now_ns, self.free_ns) + int(size * self.ns_a_byte)
        at_ns += self.delay_ns
        if self.jitter_ns:
            at_ns = max(now_ns, at_ns + int(rng.gauss(0.0, self.jitter_ns)))
        self.last_ns = at_ns = max(at_ns, self.last_ns)
        return at_ns


class Router:
    """Moves packets between devices, each when its time has come."""

    def __init__(self, devices: list[int], addresses: list[bytes], ways: list[dict[int, Way]]) -> None:
        self._devices = devices
        self._at = {address: at for at, address in enumerate(addresses)}
        self._ways = ways
        self._rng = Random(0)
        self._under_way: list[tuple[int, int, Way, bytes]] = []
        self._number = 0

    def step(self, patience_s: float) -> None:
        """Wait for a packet, or for one that is due, and move what can be moved."""
        if self._under_way:
            patience_s = min(patience_s, max(0.0, (self._under_way[0][0] - monotonic_ns()) / 1e9))
        readable, _, _ = select.select(self._devices, [], [], patience_s)
        for device in readable:
            self._take(self._devices.index(device), device)
        self._deliver()

    def follow(self, state: State) -> None:
        """From now on the links are as the state says."""
        for (a, b), link in state.links.items():
            self._ways[state.sites.index(a)][state.sites.index(b)].follow(link)

    def _take(self, source: int, device: int) -> None:
        ways, at = self._ways[source], self._at
        for _ in range(_READS_MAX):
            try:
                packet = os.read(device, _PACKET_BYTES)
            except BlockingIOError:
                return
            target = at.get(packet[_DESTINATION])
            if target is None or target == source:
                continue
            way = ways[target]
            at_ns = way.arrival_ns(monotonic_ns(), len(packet), self._rng)
            if at_ns is not None:
                way.queued += 1
                self._number += 1
                heapq.heappush(self._under_way, (at_ns, self._number, way, packet))

    def _deliver(self) -> None:
        under_way, devices = self._under_way, self._devices
        now_ns = monotonic_ns()
        while under_way and under_way[0][0] <= now_ns:
            _, _, way, packet = heapq.heappop(under_way)
            way.queued -= 1
            try:
                os.write(devices[way.target], packet)
            except BlockingIOError:
                continue


def open_device(namespace: str) -> int:
    """A TUN device in that namespace, and the descriptor that is its other end."""
    with inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def connect(state: State) -> Router:
    """The devices of a lab, with addresses and routes, and the router between them."""
    devices = []
    for site in state.sites:
        namespace = state.namespace(site)
        devices.append(open_device(namespace))
        batch(
            "ip",
            [
                "link set lo up",
                f"address add {state.address(site)}/32 dev lo",
                f"link set {DEVICE} mtu {MTU} txqueuelen 10000 up",
                f"route add 10.77.0.0/24 dev {DEVICE} src {state.address(site)} scope link",
            ],
            namespace=namespace,
        )
    addresses = [bytes(map(int, state.address(site).split("."))) for site in state.sites]
    sites = list(enumerate(state.sites))
    ways = [{j: Way(j, state.links[a, b]) for j, b in sites if j != i} for i, a in sites]
    return Router(devices, addresses, ways)


def main(name: str) -> None:
    """Route for the lab of that name until it is gone."""
    state = lab_state.read(name)
    if state is None:
        raise SystemExit(f"there is no lab {name}")
    state.write_router(os.getpid())
    try:
        _serve(state)
    finally:
        # A lab that was taken down before the router had written this left nothing else.
        written = state.router()
        if written is not None and written[0] == os.getpid():
            state.pid_path.unlink(missing_ok=True)


def _serve(state: State) -> None:
    router = connect(state)
    changed = [False]
    signal.signal(signal.SIGHUP, lambda *_: changed.__setitem__(0, True))
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with prompt():
        route(router, state, changed)


def route(router: Router, state: State, changed: list[bool]) -> None:
    """Move packets, and read the state again whenever it has changed, until the lab is gone."""
    namespace = Path("/run/netns") / state.namespace(state.sites[0])
    looked_ns = monotonic_ns()
    while True:
        router.step(_LOOK_S)
        if changed[0]:
            changed[0] = False
            current = lab_state.read(state.name)
            if current is not None:
                router.follow(current)
                current.write_router(os.getpid())
        if monotonic_ns() - looked_ns > _LOOK_S * 1e9:
            looked_ns = monotonic_ns()
            if not namespace.exists():
                return


if __name__ == "__main__":
    main(sys.argv[1])
