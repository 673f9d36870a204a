"""A cluster of real replica processes on this machine's loopback, for the demo, the bench and the field tests.

The processes stand in sessions of their own, so that a Ctrl-C in the terminal reaches only the one that started them,
which then stops them in order; and each is told to exit with its parent, so that `kill -9` of the parent leaves none.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from bench.resp import ConnectionLost, ErrorReply, RespConnection
from epaxos.errors import EpaxosError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from topology.lab import Lab

STOP_WITHIN_S: Final = 5.0
"""A replica asked to stop may take so long; then it is killed."""

CONNECT_WITHIN_S: Final = 5.0
"""To a replica on this machine."""

LAB_PORTS: Final = (7400, 6379)
"""For peers and for clients, in every region: nothing else is there."""

POLL_S: Final = 0.1
"""Between two questions whether a replica is ready."""

_LOG_TAIL_BYTES: Final = 2_000


class ClusterError(EpaxosError):
    """The cluster did not start, or a replica of it ended; the message has the end of that replica's log."""


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """What to start, and where: in the regions of a `lab`, or on the loopback, with links that the replicas themselves
    lengthen (`emulate` is a matrix by name or path) or bare ones."""

    names: Sequence[str]
    directory: Path
    protocol: str = "epaxos"
    emulate: str | None = None
    watched: Sequence[str] = ()
    """Keys whose commands the replicas count apart from all others."""
    lab: Lab | None = None
    """Whose regions are called as the replicas are."""
    leader: str | None = None
    """Where a protocol with a leader should have it."""


class LocalCluster:
    """Running replicas. Use `local_cluster` to start and stop one."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.spec = spec
        self._processes: dict[str, trio.Process] = {}
        self._peer, self._client = _addresses(spec)

    async def start(self) -> None:
        """Writes `cluster.toml` and starts every process; does not wait until they serve."""
        config = self.spec.directory / "cluster.toml"
        config.write_text(self._config_text(), encoding="utf-8")
        for name in self.spec.names:
            await self.launch(name)

    async def launch(self, name: str) -> None:
        """Starts the process of one replica, on whatever its data directory holds."""
        words = [sys.executable, "-m", "epaxos", "replica", name]
        words += ["--config", str(self.spec.directory / "cluster.toml")]
        words += ["--data", str(self.spec.directory / name), "--exit-with-parent"]
        if self.spec.emulate is not None:
            words += ["--emulate", self.spec.emulate]
        if self.spec.lab is not None:
            words = self.spec.lab.command_in(name, words)
        with self._log(name).open("ab") as log:
            self._processes[name] = await trio.lowlevel.open_process(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def kill(self, name: str) -> None:
        """`kill -9`, and returns when the process is gone. `launch` brings it back."""
        _signal(self._processes[name], signal.SIGKILL)
        await self._processes[name].wait()

    async def wait_ready(self, *, within_s: float) -> None:
        """Returns when every replica answers and sees all its peers. Raises ClusterError when one ends or is late."""
        everybody = set(self.spec.names)

        def connected(name: str, status: dict[str, Any]) -> bool:
            up = {peer for peer, link in status["peers"].items() if link["up"]}
            return up >= everybody - {name}

        for name in self.spec.names:
            await self.wait_until(name, connected, within_s=within_s, what="serve with all its peers")

    async def wait_until(
        self, name: str, holds: Callable[[str, dict[str, Any]], bool], *, within_s: float, what: str
    ) -> None:
        """Returns when `holds(name, its status)`. Raises ClusterError when a replica ends, or at the time limit."""
        with trio.move_on_after(within_s):
            while not await self._answers(name, holds):
                self.check()
                await trio.sleep(POLL_S)
            return
        raise ClusterError(f"{name} did not {what} within {within_s:g} s\n{self._tail(name)}".rstrip())

    async def wait_quiet(self, *, within_s: float) -> None:
        """Returns when every replica has executed all that any of them knows of.

        A command of unknown outcome may take effect until then, between two questions to two replicas. Raises
        ClusterError when a replica ends, or at the time limit.
        """
        with trio.move_on_after(within_s):
            while True:
                self.check()
                with suppress(OSError, ConnectionLost, ErrorReply):
                    if _at_rest([await self.status(name) for name in self.spec.names]):
                        return
                await trio.sleep(POLL_S)
        raise ClusterError(f"the replicas did not come to rest within {within_s:g} s")

    async def _answers(self, name: str, holds: Callable[[str, dict[str, Any]], bool]) -> bool:
        """Does `holds` hold of the replica now? Not while it cannot be asked."""
        try:
            return holds(name, await self.status(name))
        except (OSError, ConnectionLost, ErrorReply):
            return False

    def running(self) -> bool:
        """Is every replica still there?"""
        return all(process.poll() is None for process in self._processes.values())

    def check(self) -> None:
        """Raises ClusterError when a replica has ended though nobody stopped it."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                raise ClusterError(f"replica {name} ended with code {code}\n{self._tail(name)}".rstrip())

    async def connect(self, name: str) -> trio.SocketStream:
        """A new connection to the client port of `name`, from beside it. Raises OSError."""
        host, port = self._client[name]
        if self.spec.lab is None:
            return await trio.open_tcp_stream(host, port)
        socket_ = trio.socket.from_stdlib_socket(self.spec.lab.socket_in(name))
        try:
            await socket_.connect((host, port))
        except BaseException:
            socket_.close()
            raise
        return trio.SocketStream(socket_)

    def socket_to(self, name: str) -> socket.socket:
        """As `connect`, for a thread that waits by itself. Raises OSError."""
        lab = self.spec.lab
        connection = socket.socket() if lab is None else lab.socket_in(name)
        try:
            connection.settimeout(CONNECT_WITHIN_S)
            connection.connect(self._client[name])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    async def ask(self, name: str, *words: str) -> Any:
        """The reply of one replica to one command on a connection of its own.

        Raises OSError, ErrorReply or ConnectionLost.
        """
        async with RespConnection(await self.connect(name)) as connection:
            return await connection.call(*words)

    async def status(self, name: str) -> dict[str, Any]:
        """What the replica says of itself. Raises as `ask`."""
        status: dict[str, Any] = json.loads(await self.ask(name, "EPAXOS", "STATUS"))
        return status

    def port(self, name: str) -> int:
        """The client port of a replica, for programs that connect by themselves."""
        return self._client[name][1]

    def pid(self, name: str) -> int:
        """The process id of a replica."""
        return self._processes[name].pid

    async def stop(self) -> None:
        """Asks every process to end and kills those that do not; when this returns none is left."""
        with trio.CancelScope(shield=True):
            for process in self._processes.values():
                _signal(process, signal.SIGTERM)
            with trio.move_on_after(STOP_WITHIN_S):
                for process in self._processes.values():
                    await process.wait()
            for process in self._processes.values():
                _signal(process, signal.SIGKILL)
                await process.wait()

    def _config_text(self) -> str:
        lines = ['cluster = "local"', f"protocol = {json.dumps(self.spec.protocol)}", ""]
        for name in self.spec.names:
            lines += ["[[replica]]", f"name = {json.dumps(name)}"]
            for key, (host, port) in (("peer", self._peer[name]), ("client", self._client[name])):
                lines.append(f'{key} = "{host}:{port}"')
            lines.append("")
        if self.spec.leader is not None:
            lines += [f"[{self.spec.protocol}]", f"preferred = {json.dumps(self.spec.leader)}", ""]
        if self.spec.watched:
            lines += ["[observe]", f"keys = {json.dumps(list(self.spec.watched))}", ""]
        return "\n".join(lines)

    def _log(self, name: str) -> Path:
        return self.spec.directory / f"{name}.log"

    def _tail(self, name: str) -> str:
        """The end of a replica's output, or nothing."""
        log = self._log(name)
        return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""


@asynccontextmanager
async def local_cluster(spec: ClusterSpec) -> AsyncIterator[LocalCluster]:
    """A started cluster; every process of it has ended when the block is left, however that happens."""
    cluster = LocalCluster(spec)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


def _at_rest(statuses: Sequence[dict[str, Any]]) -> bool:
    """Nothing is under way, and everybody has executed the same, which is all that anybody knows of."""
    details = [status["detail"] for status in statuses]
    idle = not any(status[name] for status in statuses for name in ("behind", "in_flight", "pending"))
    known = details[0]["known"]
    return idle and all(detail["executed"] == known == detail["known"] for detail in details)


def _addresses(spec: ClusterSpec) -> tuple[dict[str, tuple[str, int]], dict[str, tuple[str, int]]]:
    """Where each replica listens for its peers, and for its clients."""
    if spec.lab is not None:
        state = spec.lab.state
        peer, client = ({name: (state.address(name), port) for name in spec.names} for port in LAB_PORTS)
        return peer, client
    ports = free_ports(2 * len(spec.names))
    here = [("127.0.0.1", port) for port in ports]
    return dict(zip(spec.names, here[::2], strict=True)), dict(zip(spec.names, here[1::2], strict=True))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that were free a moment ago: all are held at once while they are chosen, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _signal(process: trio.Process, number: signal.Signals) -> None:
    if process.poll() is None:
        os.kill(process.pid, number)
