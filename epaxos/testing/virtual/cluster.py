"""Whole replicas behind `open_replica`, on virtual links and disks."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import trio

from epaxos.config import Config
from epaxos.errors import EpaxosError
from epaxos.machines.interface import BatchMachine, StateMachine
from epaxos.observe.log import Log
from epaxos.replica import Replica, open_replica
from epaxos.testing.virtual.disk import VirtualDisk
from epaxos.testing.virtual.network import VirtualNetwork

M = TypeVar("M", bound=StateMachine | BatchMachine)


class VirtualCluster(Generic[M]):
    """The replicas of a configuration, each of which is started and stopped as often as one likes.

    A disk lives on when its replica stops; a machine is made anew at every start. What replicas draw comes of `seed`.
    Made by `open_cluster`.
    """

    def __init__(self, config: Config, machine: Callable[[], M], nursery: trio.Nursery, seed: int) -> None:
        self.config = config
        self.network = VirtualNetwork(config.names)
        self.disks = {name: VirtualDisk() for name in config.names}
        self.replicas: dict[str, Replica] = {}
        """Those that run."""
        self.machines: dict[str, M] = {}
        """Of the latest start."""
        self.failures: dict[str, EpaxosError] = {}
        """Why a replica stopped, if nobody had stopped it."""
        self._make = machine
        self._seed = seed
        self._nursery = nursery
        self._logs = {name: io.StringIO() for name in config.names}
        self._stops: dict[str, tuple[trio.Event, trio.CancelScope, trio.Event]] = {}

    async def start(self, *names: str) -> None:
        """Start these replicas, or all, one after the other; they serve when this returns."""
        for name in names or self.config.names:
            await self._nursery.start(self._run, name)

    async def stop(self, *names: str, cancel: bool = False) -> None:
        """Let the blocks of these replicas, or of all that run, end, or cancel them; returns when they have ended."""
        chosen = [name for name in names or self.config.names if name in self._stops]
        for name in chosen:
            self.ask_to_stop(name, cancel=cancel)
        for name in chosen:
            await self.ended(name)

    def ask_to_stop(self, name: str, *, cancel: bool = False) -> None:
        """As `stop`, without waiting."""
        finish, scope, _ = self._stops[name]
        if cancel:
            scope.cancel()
        else:
            finish.set()

    async def ended(self, name: str) -> None:
        """Return when the replica has ended, by itself or because it was stopped."""
        if name in self._stops:
            await self._stops[name][2].wait()

    def events(self, name: str, event: str = "") -> list[dict[str, Any]]:
        """What a replica has logged, of one kind or all."""
        found = [json.loads(line) for line in self._logs[name].getvalue().splitlines()]
        return [each for each in found if event in ("", each["event"])]

    async def _run(self, name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if name in self._stops:
            raise ValueError(f"{name} runs already")
        log = Log(name, self.config.names, out=self._logs[name], form="json")
        machine = self.machines[name] = self._make()
        finish, scope, ended = self._stops[name] = trio.Event(), trio.CancelScope(), trio.Event()
        try:
            with scope:
                async with open_replica(
                    self.config,
                    name,
                    machine,
                    data=self.disks[name],
                    network=self.network.at(self.config.id_of(name)),
                    log=log,
                    rng=random.Random(f"{self._seed} {name} {self.disks[name].incarnation}"),
                ) as self.replicas[name]:
                    task_status.started()
                    await finish.wait()
        except EpaxosError as error:
            self.failures[name] = error
        finally:
            self.replicas.pop(name, None)
            del self._stops[name]
            ended.set()


@asynccontextmanager
async def open_cluster(config: Config, machine: Callable[[], M], *, seed: int = 0) -> AsyncIterator[VirtualCluster[M]]:
    """A cluster of which nothing runs yet; what still runs when the block ends is stopped."""
    async with trio.open_nursery() as nursery:
        cluster = VirtualCluster(config, machine, nursery, seed)
        try:
            yield cluster
        finally:
            nursery.cancel_scope.cancel()
