"""What a replica counts, fed from the engine's turns, and two ways to show it: a dict, and Prometheus text.

Everything here may be begun anew (`reset`) to measure an interval; a Prometheus server takes that for a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from epaxos.command import HEADER
from epaxos.engine import Turn
from epaxos.observe.histogram import Histogram
from epaxos.packing import count_commands, count_touching, key_hash
from epaxos.protocols.interface import Note

PATHS: Final[Mapping[str, str]] = {"fast_commit": "fast", "slow_commit": "slow", "commit": "log"}
"""The notes of a protocol that mean: an own batch was committed, and on which path. A single log has no other."""

BUCKETS_US: Final = tuple(base * 10**power for power in range(2, 7) for base in (1, 2, 5))
"""The upper bounds that Prometheus is given: 0.1 ms to 5 s."""


def fast_share(paths: Mapping[str, int]) -> float | None:
    """Of commands by path: the share that took the fast one, among those that had a choice; None when none had."""
    chose = paths["fast"] + paths["slow"]
    return paths["fast"] / chose if chose else None


class Metrics:
    """Counters and histograms of one replica."""

    def __init__(self, secret: bytes, watched: Sequence[str] = ()) -> None:
        """`watched` are the keys whose commands are counted by name; `secret` keys their hashes."""
        self._watched = {key: key_hash(secret, key.encode()) for key in watched}
        self.commit_us = Histogram()
        """From submission to decision, of own commands."""
        self.execute_us = Histogram()
        """From submission to reply, of own commands."""
        self.groups = Histogram()
        """Batches in each group that executed here, whoever proposed them."""
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.commit_us.reset()
        self.execute_us.reset()
        self.groups.reset()
        self.commands = dict.fromkeys(PATHS.values(), 0)
        """Own commands committed, by path."""
        self.watched = {key: dict.fromkeys(PATHS.values(), 0) for key in self._watched}
        """The same, of those that touch a watched key."""
        self.events: Counter[str] = Counter()
        """The protocol's notes, by name."""

    def observe(self, turn: Turn) -> None:
        """Count what happened in a turn."""
        for us, count in turn.commits:
            self.commit_us.record(us, count)
        for us, count in turn.executions:
            self.execute_us.record(us, count)
        alone = turn.groups.count(1)
        self.groups.record(1, alone)
        if alone < len(turn.groups):
            for size in turn.groups:
                self.groups.record(size, size > 1)
        for note in turn.notes:
            self._note(note)

    def _note(self, note: Note) -> None:
        self.events[note.event] += 1
        path = PATHS.get(note.event)
        if path is not None and note.batch is not None:
            data = note.batch.data
            self.commands[path] += count_commands(data, HEADER.size)
            for key, hash_ in self._watched.items():
                self.watched[key][path] += count_touching(data, hash_, HEADER.size)

    def status(self) -> dict[str, Any]:
        """What the counters say, JSON-able."""
        return {
            "commit_us": _summary(self.commit_us),
            "execute_us": _summary(self.execute_us),
            "groups": {**_summary(self.groups), "max": self.groups.high},
            "commands": dict(self.commands),
            "watched": {key: dict(paths) for key, paths in self.watched.items()},
        }

    def prometheus(self, status: Mapping[str, Any]) -> str:
        """Everything in Prometheus's text format; `status` is the replica's (`Replica.status`)."""
        return "".join(f"{line}\n" for line in self._lines(status))

    def _lines(self, status: Mapping[str, Any]) -> Iterator[str]:
        peers: Mapping[str, Mapping[str, Any]] = status["peers"]
        disk: Mapping[str, int] = status["disk"]
        info = {key: status[key] for key in ("name", "protocol", "compiled")}
        yield from _family("epaxos_info", "gauge", "who this is", [(info, 1)])
        yield from _family("epaxos_incarnation", "gauge", "starts on this disk", [({}, status["incarnation"])])
        yield from _family("epaxos_up_seconds", "gauge", "since the start", [({}, status["up_s"])])
        yield from _family("epaxos_executed_commands_total", "counter", "executed here", [({}, status["executed"])])
        yield from _family("epaxos_behind_instances", "gauge", "decided, not yet executed", [({}, status["behind"])])
        yield from _family("epaxos_in_flight_batches", "gauge", "own, undecided", [({}, status["in_flight"])])
        yield from _family(
            "epaxos_commands_total",
            "counter",
            "own commands committed, by path",
            [({"path": path}, count) for path, count in self.commands.items()],
        )
        yield from _family(
            "epaxos_watched_commands_total",
            "counter",
            "own commands that touch a watched key, by path",
            [({"key": k, "path": path}, count) for k, paths in self.watched.items() for path, count in paths.items()],
        )
        yield from _family(
            "epaxos_executed_groups_total",
            "counter",
            "groups of batches that executed together",
            [({}, self.groups.count)],
        )
        yield from _family(
            "epaxos_largest_group_batches",
            "gauge",
            "batches in the largest group that executed together",
            [({}, self.groups.high)],
        )
        yield from _family(
            "epaxos_events_total",
            "counter",
            "events of the protocol",
            [({"event": e}, c) for e, c in self.events.items()],
        )
        yield from _histogram("epaxos_commit_seconds", "from submission to decision", self.commit_us)
        yield from _histogram("epaxos_execute_seconds", "from submission to reply", self.execute_us)
        for name, kind, about, key, scale in _PEER:
            samples = [({"peer": peer}, link[key]) for peer, link in peers.items() if link[key] is not None]
            yield from _family(name, kind, about, [(labels, _scaled(value, scale)) for labels, value in samples])
        for name, kind, about, key, scale in _DISK:
            yield from _family(name, kind, about, [({}, _scaled(disk[key], scale))])


_PEER: Final = (
    ("epaxos_peer_up", "gauge", "is there a link to the peer", "up", 1),
    ("epaxos_peer_rtt_seconds", "gauge", "the newest round trip to the peer", "rtt_us", 1e-6),
    ("epaxos_peer_queue_bytes", "gauge", "waiting for the link to the peer", "queue_bytes", 1),
    ("epaxos_peer_sent_bytes_total", "counter", "bytes handed to the link to the peer", "sent_bytes", 1),
    ("epaxos_peer_dropped_frames_total", "counter", "frames for the peer that no link took", "dropped", 1),
)
"""name, type, meaning, key in the status of a peer, what its unit is in seconds."""

_DISK: Final = (
    ("epaxos_disk_syncs_total", "counter", "syncs of the disk", "syncs", 1),
    ("epaxos_disk_records_total", "counter", "records written and deleted", "records", 1),
    ("epaxos_disk_bytes_total", "counter", "bytes of the records written", "bytes", 1),
    ("epaxos_disk_sync_max_seconds", "gauge", "the longest sync", "sync_us_max", 1e-6),
    ("epaxos_disk_used_bytes", "gauge", "what the records take", "used_bytes", 1),
    ("epaxos_disk_max_bytes", "gauge", "the most that they may take: the replica stops there", "max_bytes", 1),
)
"""The same for the disk."""


def _scaled(value: float, scale: float) -> float:
    return round(value * scale, 6) if scale != 1 else value


def _summary(histogram: Histogram) -> dict[str, int]:
    p50, p99 = histogram.percentiles((50, 99))
    return {"count": histogram.count, "p50": p50, "p99": p99}


def _family(name: str, kind: str, about: str, samples: Iterable[tuple[Mapping[str, object], float]]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {int(value) if isinstance(value, bool) else value}"


def _histogram(name: str, about: str, histogram: Histogram) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} histogram"
    for bound_us in BUCKETS_US:
        yield f'{name}_bucket{{le="{bound_us / 1e6:g}"}} {histogram.at_most(bound_us)}'
    yield f'{name}_bucket{{le="+Inf"}} {histogram.count}'
    yield f"{name}_sum {histogram.total / 1e6:g}"
    yield f"{name}_count {histogram.count}"


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
