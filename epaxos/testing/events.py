"""What can happen to a cluster by hand, as values: each is one line of a scenario file.

The simulator's tape and the model's counterexamples are lists of these; `writing` makes a file of them, `rehearsal`
plays them under an invariant.
"""

from __future__ import annotations

from typing import NamedTuple

from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message
from epaxos.protocols.interface import Timer


class Submit(NamedTuple):
    """A client of `site` hands in a run of so many `commands`, on a connection of its own unless `stream` names one.

    `number` tells submissions apart. `timeout_us` is as the clock of the site shows it; None is for ever.
    """

    site: ReplicaId
    number: int
    run: bytes
    commands: int = 1
    stream: int | None = None
    timeout_us: int | None = None


class Cancel(NamedTuple):
    """The client of submission `number` goes away."""

    site: ReplicaId
    number: int


class Deliver(NamedTuple):
    """A message arrives, for the first time or again."""

    source: ReplicaId
    target: ReplicaId
    message: Message


class Drop(NamedTuple):
    """A message is lost. Messages that are never delivered need no such event."""

    source: ReplicaId
    target: ReplicaId
    message: Message


class HoldDisk(NamedTuple):
    """From now on the disk of `site` syncs by `Sync` alone; without this event, at once."""

    site: ReplicaId


class Sync(NamedTuple):
    """The first `groups` writes that wait at `site` reach its disk."""

    site: ReplicaId
    groups: int = 1


class Crash(NamedTuple):
    """The power of `site` goes; the first `keep` writes that waited had reached the disk."""

    site: ReplicaId
    keep: int = 0


class Restart(NamedTuple):
    """A new life of `site`; its links come up, unless it is `alone`."""

    site: ReplicaId
    alone: bool = False


class LinkUp(NamedTuple):
    """The link of `site` to `peer` comes up."""

    site: ReplicaId
    peer: ReplicaId


class LinkDown(NamedTuple):
    """`site` loses its link to `peer`."""

    site: ReplicaId
    peer: ReplicaId


class Measure(NamedTuple):
    """`site` measures a round trip to `peer`."""

    site: ReplicaId
    peer: ReplicaId
    rtt_us: int


class HoldTurns(NamedTuple):
    """From now on what arrives at `site` waits for a `Turn`; without this event, it is taken at once."""

    site: ReplicaId


class Turn(NamedTuple):
    """`site` takes what has arrived, when its clock alone has run on so far, and to these timers if they are set."""

    site: ReplicaId
    after_us: int = 0
    timers: tuple[Timer, ...] = ()


class Wake(NamedTuple):
    """A timer of the protocol at `site` comes due."""

    site: ReplicaId
    timer: Timer


class Act(NamedTuple):
    """An action of the protocol (`View.actions`), such as `recover`."""

    verb: str
    site: ReplicaId
    id: InstanceId


Event = (
    Submit
    | Cancel
    | Deliver
    | Drop
    | HoldDisk
    | Sync
    | Crash
    | Restart
    | LinkUp
    | LinkDown
    | Measure
    | HoldTurns
    | Turn
    | Wake
    | Act
)
