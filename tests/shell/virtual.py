"""What the tests of the shell in virtual time share: a machine that remembers, a strike behind any step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

import epaxos
from epaxos.replica import Replica, _Proposal
from epaxos.testing.virtual.cluster import VirtualCluster

DELAY_US = 20_000
SYNC_US = 1_000
ROUND_US = 2 * DELAY_US + 3 * SYNC_US
"""A lone proposal: the own record, the way there, the peer's record, the way back, and the record of the decision."""


def draw_order_from(seed: int) -> None:
    """In which order the steps of one moment run from now on. Trio draws it from a generator of its own, which it means
    for Hypothesis only; where Hypothesis is imported, as in these tests, nothing else decides."""
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]


class History(epaxos.StateMachine):
    """Keeps what it was given; a reply is how much that is by now. `boom` raises."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, command: bytes) -> bytes:
        if command == b"boom":
            raise ZeroDivisionError("boom")
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def save(self) -> Iterable[bytes]:
        return [b"%d:%b" % (len(command), command) for command in self.commands]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.commands = [chunk.partition(b":")[2] for chunk in chunks]


def set_world(cluster: VirtualCluster[Any]) -> None:
    """Replicas 20 ms apart, with syncs of 1 ms."""
    cluster.network.delay(us=DELAY_US)
    for disk in cluster.disks.values():
        disk.sync_us = SYNC_US


class Outcomes:
    """Every command that was proposed, and what its caller was told."""

    def __init__(self) -> None:
        self.replies: dict[bytes, int] = {}
        self.rejected: list[bytes] = []
        self.unknown: list[bytes] = []

    async def propose(self, replica: Replica, command: bytes, key: bytes = b"k") -> None:
        """Propose, and write down what comes of it; a cancelled proposal is unknown."""
        self.unknown.append(command)
        try:
            reply = await replica.propose(command, writes=[key])
        except epaxos.Rejected:
            self.unknown.remove(command)
            self.rejected.append(command)
        except epaxos.Unknown:
            pass
        else:
            self.unknown.remove(command)
            self.replies[command] = int(reply)

    def check(self, cluster: VirtualCluster[History]) -> None:
        """All the commands were on one key: every replica has them in one order, as they were answered, once each."""
        histories = [machine.commands for machine in cluster.machines.values()]
        assert all(history == histories[0] for history in histories)
        proposed = [*self.replies, *self.rejected, *self.unknown]
        known = [command for command in histories[0] if command in proposed]
        assert len(set(known)) == len(known), "applied twice"
        assert not set(known) & set(self.rejected), "rejected, and applied"
        places = {command: place for place, command in enumerate(histories[0], 1)}
        for command, reply in self.replies.items():
            assert places[command] == reply, f"{command!r} was answered {reply} and is at {places.get(command)}"


class AtStep(trio.abc.Instrument):
    """Strikes behind the `step`-th step of any task."""

    def __init__(self, step: int, strike: Callable[[], None]) -> None:
        self.struck = False
        self._left = step
        self._strike = strike

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.struck = True
            self._strike()


@contextmanager
def at_step(step: int, strike: Callable[[], None]) -> Iterator[AtStep]:
    """Have `strike` called behind that many steps of the tasks of this run, unless the block ends before."""
    instrument = AtStep(step, strike)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def linked(cluster: VirtualCluster[Any]) -> None:
    """Return when every link between the replicas that run is up."""
    for _ in range(10_000):
        peers = {name: replica.status()["peers"] for name, replica in cluster.replicas.items()}
        if all(peers[name][peer]["up"] for name in peers for peer in peers if peer != name):
            return
        await trio.sleep(0.01)
    raise AssertionError("the links did not come up in 100 seconds of virtual time")


async def caught_up(cluster: VirtualCluster[History]) -> None:
    """Return when every replica that runs has executed whatever was answered anywhere."""
    for replica in cluster.replicas.values():
        await replica.barrier()


async def quiet(cluster: VirtualCluster[History]) -> None:
    """Let a moment pass, then see that nobody keeps anything of what is over."""
    await trio.sleep(2)
    for name, replica in cluster.replicas.items():
        status = replica.status()
        assert (status["in_flight"], status["pending"], status["behind"]) == (0, 0, 0), name
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, _Proposal)], "somebody keeps a waiter"


def tasks() -> int:
    """How many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living
