"""The kernel's own emulation: a full mesh of veth pairs, each end with a netem queue as its root.

No classes and no filters: a region has an address on its loopback and one route for each peer, and the link that the
route takes does the rest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from topology.lab.links import Link
from topology.lab.namespaces import batch
from topology.lab.state import State

_PACKETS_MAX = 100_000
"""What a link holds: a long fat one holds what is under way."""
_UNLIMITED_BPS = 100_000_000_000
"""Every queue has a rate. One without delivers packets as their jitter falls, in any order; and one that had a rate
keeps it when it is changed without naming another."""


def available() -> bool:
    """Does this kernel have netem? Asked of a queue on a loopback device in a namespace that is gone afterwards."""
    probe = "ip link set lo up && tc qdisc add dev lo root netem delay 1ms"
    done = subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


def start(state: State) -> None:
    """Namespaces, links, routes, queues. Raises LabError."""
    sites = state.sites
    batch("ip", [f"netns add {state.namespace(site)}" for site in sites])
    pairs = [(i, j) for i in range(len(sites)) for j in range(i)]
    batch(
        "ip",
        [
            f"link add name to{j} address {_hardware(i, j)} netns {state.namespace(sites[i])} type veth"
            f" peer name to{i} address {_hardware(j, i)} netns {state.namespace(sites[j])}"
            for i, j in pairs
        ],
    )
    for i, site in enumerate(sites):
        others = [j for j in range(len(sites)) if j != i]
        lines = ["link set lo up", f"address add {state.address(site)}/32 dev lo"]
        lines += [f"link set to{j} up" for j in others]
        lines += [
            f"route add {state.address(sites[j])}/32 dev to{j} src {state.address(site)} scope link" for j in others
        ]
        # Asking for the other end's hardware address would cost the first packet of a link, and the first after a cut,
        # a round trip more.
        lines += [f"neighbour add {state.address(sites[j])} lladdr {_hardware(j, i)} dev to{j}" for j in others]
        batch("ip", lines, namespace=state.namespace(site))
    apply(state, state.links, verb="add")


def apply(state: State, changed: Iterable[tuple[str, str]], verb: str = "change") -> None:
    """Bring the queues of these links up to what the state says."""
    for site in state.sites:
        lines = [
            f"qdisc {verb} dev to{state.sites.index(b)} root netem {_words(state.links[a, b])}"
            for a, b in changed
            if a == site
        ]
        batch("tc", lines, namespace=state.namespace(site))


def _hardware(at: int, towards: int) -> str:
    """The hardware address of the end at one site of the link to another."""
    return f"02:00:00:00:{at:02x}:{towards:02x}"


def _words(link: Link) -> str:
    """A link in the words of `tc netem`."""
    if link.cut:
        return f"limit {_PACKETS_MAX} delay {link.delay_us}us loss 100%"
    jitter = f" {link.jitter_us}us distribution normal" if link.jitter_us else ""
    loss = f" loss {100 * link.loss:.6f}%" if link.loss else ""
    reorder = f" reorder {100 * link.reorder:.6f}%" if link.reorder and link.delay_us else ""
    return (
        f"limit {_PACKETS_MAX} delay {link.delay_us}us{jitter}{loss}{reorder} rate {link.rate_bps or _UNLIMITED_BPS}bit"
    )
