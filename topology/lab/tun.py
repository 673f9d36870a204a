"""A router in user space: one TUN device a region, and packets that wait for as long as their link is.

For kernels without netem. The router is a process of its own, which is told by SIGHUP that links have changed and by
SIGTERM to end; it ends as well when its lab is gone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

from topology.lab.namespaces import LabError, batch
from topology.lab.state import State

READY = b"ready\n"
_READY_WITHIN_S = 10.0
_LOOK_S = 0.001


def available() -> bool:
    """Can TUN devices be made?"""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def start(state: State) -> None:
    """Namespaces and the router, which makes the devices. Returns when packets pass. Raises LabError."""
    batch("ip", [f"netns add {state.namespace(site)}" for site in state.sites])
    process = subprocess.Popen(
        [sys.executable, "-m", "topology.lab.router", state.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        readable, _, _ = select.select([process.stdout], [], [], _READY_WITHIN_S)
        if not readable or process.stdout.readline() != READY:
            process.kill()
            raise LabError(f"the router did not start: {process.stderr.read().decode(errors='replace').strip()}")
    process.returncode = 0  # it is nobody's child any more: it ends with its lab


def apply(state: State) -> None:
    """Have the router read the state again; returns when it has. Raises LabError when there is none."""
    pid = router_pid(state)
    if pid is None:
        raise LabError(f"the router of lab {state.name} is gone: take the lab down and up again")
    os.kill(pid, signal.SIGHUP)
    until_s = monotonic() + _READY_WITHIN_S
    while (written := state.router()) is not None and written[1] < state.revision:
        if monotonic() > until_s:
            raise LabError(f"the router of lab {state.name} does not follow: take the lab down and up again")
        sleep(_LOOK_S)


def stop(state: State) -> None:
    """End the router, and wait until it has."""
    pid = router_pid(state)
    if pid is None:
        return
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], _READY_WITHIN_S)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def router_pid(state: State) -> int | None:
    """The process id of the lab's router, if it runs."""
    written = state.router()
    if written is None:
        return None
    pid = written[0]
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if b"topology.lab.router" in words and state.name.encode() in words else None
