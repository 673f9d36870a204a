"""`epaxos replica`: one replica with the key-value machine, serving Redis clients, until it is asked to stop."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from epaxos.config import Config
from epaxos.errors import ConfigError
from epaxos.gateway.server import serve_clients
from epaxos.machines.kv import Kv
from epaxos.net.tcp import listen_on
from epaxos.observe.log import Log
from epaxos.replica import open_replica
from topology import load

SPARE_FILES: Final = 128
"""Open files beside those of clients: links, listeners, the data directory, libraries."""
SWITCH_S: Final = 0.0005
"""How long the loop may keep the interpreter from the committing thread: Python's own 5 ms would delay every sync."""


def emulated_delays_us(config: Config, name: str, matrix: str) -> Mapping[str, int]:
    """peer -> how long to hold back what goes to it, for the round trips of a matrix (a name, or a file).

    Each direction gets half of the round trip. Raises ConfigError when a replica is not a site of the matrix.
    """
    found = load(matrix)
    missing = [each for each in config.names if each not in found.sites]
    if missing:
        raise ConfigError(
            f"replicas {', '.join(missing)} are not sites of {matrix}, which has {', '.join(found.sites)}"
        )
    return {peer: found.one_way_us(name, peer) for peer in config.names if peer != name}


async def serve(config: Config, name: str, *, data: Path, log: Log, matrix: str | None, parent: int | None) -> None:
    """Run the replica until SIGINT, SIGTERM, or the end of the process `parent`.

    Raises ConfigError, StorageError and MachineError, as `open_replica` does.
    """
    delays_us = {} if matrix is None else emulated_delays_us(config, name, matrix)
    _make_room_for(config.limits.connections, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_signal, log, nursery.cancel_scope)
        if parent is not None:
            nursery.start_soon(_until_orphaned, parent, log, nursery.cancel_scope)
        machine = Kv()
        async with open_replica(config, name, machine, data=data, delays_us=delays_us, log=log) as replica:
            _be_a_replica()
            listeners = await listen_on(config.replica(name).client)
            for listener in listeners:
                host, port = listener.socket.getsockname()[:2]
                log.event("listening", host=host, port=port, pid=os.getpid())
            await serve_clients(
                replica,
                listeners,
                limits=config.limits,
                password=config.password,
                count_keys=lambda: len(machine),
                log=log,
            )


def _be_a_replica() -> None:
    """Settings of the interpreter, for a process that does nothing else: what its start left is never garbage."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def _make_room_for(connections: int, log: Log) -> None:
    """Raise the limit on open files to what so many clients take, or to what the system allows, which is said."""
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.event("few_files", "fewer clients than limits.connections can be served", open_files=allowed, wanted=wanted)


async def _until_signal(log: Log, scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.event("stopping", signal.Signals(number).name)
            scope.cancel()
            return


async def _until_orphaned(parent: int, log: Log, scope: trio.CancelScope) -> None:
    """Cancel when the process `parent` is gone. A descriptor of it tells at once, and cannot mistake another for it."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        descriptor = None
    if descriptor is not None and os.getppid() == parent:
        await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
    log.event("stopping", "the parent process is gone")
    scope.cancel()
