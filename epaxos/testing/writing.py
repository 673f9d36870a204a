"""Write a scenario file from events that something else found: the counterexamples of the model come out this way.

The vocabulary is small and stable: the named tuples below, each one line of the file. A message may be delivered as
often as the events say; whoever found them need not tell first arrivals from repeated ones.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from epaxos.command import HEADER, Batch
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message
from epaxos.packing import decode_run
from epaxos.protocols.interface import Timer
from epaxos.protocols.registry import VIEWS
from epaxos.testing.scenario import SEPARATOR, replayed
from epaxos.testing.words import LETTERS, Namer, command_text

_NAMES: Final = "xyzwvutsr"


class Submit(NamedTuple):
    """A client of `site` hands in the command of `batch`, which goes into `id`."""

    site: ReplicaId
    id: InstanceId
    batch: Batch


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
    """A new life of `site`."""

    site: ReplicaId


class Wake(NamedTuple):
    """A timer of the protocol at `site` comes due."""

    site: ReplicaId
    timer: Timer


class Act(NamedTuple):
    """An action of the protocol (`View.actions`), such as `recover`."""

    verb: str
    site: ReplicaId
    id: InstanceId


Event = Submit | Deliver | Drop | HoldDisk | Sync | Crash | Restart | Wake | Act


def write_scenario(n: int, events: Sequence[Event], *, story: str, protocol: str = "epaxos") -> str:
    """The file of these events among `n` replicas, with what comes of each, and in the end whether they agree.

    `story` becomes the comment at its head. Where an event cannot be replayed (a model may be freer than an engine),
    the file says so in its place and ends there. Raises ScenarioError for a cluster that cannot be.
    """
    namer = Namer(lanes=VIEWS[protocol].lanes)
    named = "" if protocol == "epaxos" else f" protocol={protocol}"
    head = [*(f"# {line}".rstrip() for line in story.splitlines()), f"cluster {n}{named}"]
    blocks = [head, *([line] for line in _lines(events, namer)), ["agreement"]]
    return replayed("\n\n".join("\n".join([*block, SEPARATOR]) for block in blocks))


def _lines(events: Sequence[Event], namer: Namer) -> Iterator[str]:
    for at, event in enumerate(events):
        match event:
            case Submit(site, id_, batch):
                name = _NAMES[len(namer.names)] if len(namer.names) < len(_NAMES) else f"i{len(namer.names)}"
                namer.give(name, id_)
                (command,) = decode_run(batch.data, HEADER.size)
                yield f"submit {LETTERS[site]} {name} {command_text(command)}"
            case Deliver(source, target, message):
                words = _message(namer, source, target, message)
                if event in events[at + 1 :]:
                    yield f"dup {words}"
                yield f"deliver {words} once"
            case Drop(source, target, message):
                yield f"drop {_message(namer, source, target, message)} once"
            case HoldDisk(site):
                yield f"hold-disk {LETTERS[site]}"
            case Sync(site, groups):
                yield f"sync {LETTERS[site]} groups={groups}"
            case Crash(site, keep):
                yield f"crash {LETTERS[site]}{f' keep={keep}' if keep else ''}"
            case Restart(site):
                yield f"restart {LETTERS[site]}"
            case Wake(site, timer):
                yield f"wake {LETTERS[site]} {namer.timer(timer)}"
            case Act(verb, site, id_):
                yield f"{verb} {LETTERS[site]} {namer.id(id_)}"


def _message(namer: Namer, source: ReplicaId, target: ReplicaId, message: Message) -> str:
    return f"{LETTERS[source]}->{LETTERS[target]} {_quoted(namer.message(message).split())}"


def _quoted(words: Iterable[str]) -> str:
    return " ".join(word if set(word) <= _PLAIN else shlex.quote(word) for word in words)


_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=.,{}()_-:;")
