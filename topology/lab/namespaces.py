"""Network namespaces: made and deleted in one go, and entered by single system calls of this process."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from epaxos.errors import EpaxosError

RUN: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_PACKAGES: Final = "iproute2 util-linux"


class LabError(EpaxosError):
    """The lab cannot be set up or used; the message says what is missing."""


def batch(tool: str, lines: Sequence[str], *, namespace: str | None = None) -> None:
    """Run `ip` or `tc` once for all `lines`, in a namespace if one is named. Raises LabError with what it says."""
    if not lines:
        return
    for command in (tool, "setpriv"):
        if shutil.which(command) is None:
            raise LabError(f"the command {command} is missing (Debian: apt-get install {_PACKAGES})")
    words = [tool, *(("-n", namespace) if namespace else ()), "-batch", "-"]
    # The tool ends with this process, also when that ended before the tool began: a set-up that is killed makes nothing
    # more while it is being taken down.
    began = ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    words = ["setpriv", "--pdeathsig", "KILL", *began, *words]
    done = subprocess.run(words, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{tool}: {(done.stderr or done.stdout).strip()}")


def existing(prefix: str) -> list[str]:
    """The namespaces whose names begin with `prefix`."""
    return sorted(path.name for path in RUN.glob(f"{prefix}*")) if RUN.is_dir() else []


def pids(namespace: str) -> list[int]:
    """The processes that run in a namespace."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def delete_all(prefix: str) -> int:
    """End what runs in namespaces of such names, then remove them, with every link that ends there; how many."""
    count = 0
    while namespaces := existing(prefix):
        for pid in (pid for namespace in namespaces for pid in pids(namespace)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        batch("ip", [f"netns delete {namespace}" for namespace in namespaces])
        count += len(namespaces)
    return count


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets and devices that this thread opens in the block belong to that namespace. Do not wait in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(RUN / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(libc, there, namespace)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(libc, home, "home")
    finally:
        os.close(home)


def _enter(libc: ctypes.CDLL, descriptor: int, name: str) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise LabError(f"cannot enter the network namespace {name}: {os.strerror(error)}")


@contextmanager
def prompt() -> Iterator[None]:
    """In the block this process runs as soon as it is woken, whatever else keeps the machine busy. For what only moves
    or times packets."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def socket_in(namespace: str) -> socket.socket:
    """A TCP socket of that namespace."""
    with inside(namespace):
        return socket.socket()
