"""Every bound of a replica, with its unit, its range, and what happens at both extremes.

`epaxos config explain` and `docs/reference/config.md` are printed from the metadata of the fields below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from epaxos.errors import ConfigError
from epaxos.submission import Limits
from epaxos.toml_lines import KeyPath

FRAME_MARGIN_BYTES: Final = 128 << 10
"""What a frame needs beside its batch: the message around it, whose longest list of ids takes less than this."""

COMMAND_MARGIN_BYTES: Final = 64
"""What a command needs in a batch beside its key and its value."""

_MIB: Final = 1 << 20


class BadValue(ConfigError):
    """The value at `path` is wrong; `Config.parse` adds where the path stands in the file."""

    def __init__(self, path: KeyPath, value: object, allowed: str) -> None:
        super().__init__(f"{dotted(path)} = {_shown(value)}: must be {allowed}")
        self.path = path


def dotted(path: KeyPath) -> str:
    """A path as people write it, without positions."""
    return ".".join(part for part in path if isinstance(part, str))


def _shown(value: object) -> str:
    if value is None:
        return "(absent)"
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


class Range(NamedTuple):
    """The values a bound may take, both ends included."""

    low: int
    high: int
    unit: str


class LimitDoc(NamedTuple):
    """One bound, explained."""

    name: str
    default: int
    range: Range
    bounds: str
    """What it bounds."""
    too_small: str
    """What happens near the low end."""
    too_large: str
    """What happens near the high end."""


def _limit(default: int, allowed: Range, *, bounds: str, too_small: str, too_large: str) -> Any:
    """A field of `LimitsConfig` with the metadata that explains it."""
    about = {**allowed._asdict(), "default": default, "bounds": bounds, "too_small": too_small, "too_large": too_large}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Every bound of a replica. Each field's metadata holds unit, low, high, default, and both extremes in words."""

    window: int = _limit(
        1024,
        Range(1, 1 << 16, "batches"),
        bounds="own batches that are proposed and not yet executed here; under Raft as many more that only read",
        too_small="one wide-area round trip for every `window` batches: throughput falls on long links",
        too_large="a site that is cut off holds that much undecided work, and everyone recovers it",
    )
    entangled_window: int = _limit(
        8,
        Range(1, 1 << 16, "batches"),
        bounds="own batches on one busy key, one whose commands meet others, that are not yet executed here",
        too_small="commands on a busy key wait for those before them although the key has room for more",
        too_large="a key that gets commands faster than they execute executes none while that lasts",
    )
    batch_commands: int = _limit(
        4096,
        Range(1, 1 << 16, "commands"),
        bounds="commands in one batch",
        too_small="an instance for every few commands: the cost of one instance is paid by each",
        too_large="one command waits for the execution of thousands that share its batch",
    )
    batch_bytes: int = _limit(
        _MIB,
        Range(4 << 10, 32 * _MIB, "bytes"),
        bounds="packed size of one batch; the largest command fits it",
        too_small="large values are refused, and batches stay small",
        too_large="one batch fills a slow link while everything behind it waits",
    )
    batch_inflight: int = _limit(
        4,
        Range(1, 1 << 16, "batches"),
        bounds="own undecided batches above which commands gather until `batch_age_us`",
        too_small="commands wait although the link is idle: `batch_age_us` is added to most",
        too_large="small batches even under load: more instances, fewer commands a second",
    )
    batch_age_us: int = _limit(
        1_000,
        Range(0, 1_000_000, "microseconds"),
        bounds="how long a command may wait for company when `batch_inflight` batches are undecided",
        too_small="every turn closes a batch: small batches under load",
        too_large="the wait shows in every latency as soon as the replica is busy",
    )
    pending_commands: int = _limit(
        1 << 16,
        Range(1, 1 << 22, "commands"),
        bounds="commands taken from clients and not yet in a batch; above it clients are told BUSY",
        too_small="bursts are refused that the next turns would have absorbed",
        too_large="clients queue for longer than they are willing to wait",
    )
    pending_bytes: int = _limit(
        64 * _MIB,
        Range(64 << 10, 1 << 32, "bytes"),
        bounds="the same in bytes",
        too_small="as `pending_commands`, for large values",
        too_large="memory: this much can be held for clients alone",
    )
    lazy_us: int = _limit(
        50_000,
        Range(0, 1_000_000, "microseconds"),
        bounds="how long a record that nobody waits for may wait for somebody else's sync",
        too_small="a sync for each such record: disk time that urgent ones need",
        too_large="more to fetch again from the others after a crash",
    )
    blocked_us: int = _limit(
        20_000,
        Range(1_000, 10_000_000, "microseconds"),
        bounds="how often the protocol is told which ids execution waits for",
        too_small="messages asking for decisions that are already on their way",
        too_large="a lost decision is asked for late: conflicting commands stall for that long",
    )
    retry_ms: int = _limit(
        100,
        Range(1, 60_000, "milliseconds"),
        bounds="the round trip assumed of a peer never measured, and the shortest time before sending again",
        too_small="everything is sent twice on links slower than this",
        too_large="a lost message costs this much",
    )
    frame_bytes: int = _limit(
        2 * _MIB,
        Range((4 << 10) + FRAME_MARGIN_BYTES, 64 * _MIB, "bytes"),
        bounds=f"one frame between replicas; at least batch_bytes + {FRAME_MARGIN_BYTES}",
        too_small="does not start: a full batch would not fit",
        too_large="a broken or hostile peer makes this replica hold so much before it is refused",
    )
    link_queue_bytes: int = _limit(
        64 * _MIB,
        Range(_MIB, 1 << 32, "bytes"),
        bounds="bytes waiting for one peer, above which new messages to that peer are dropped and sent again later; "
        "and bytes from all peers that wait for the engine, above which the links are not read",
        too_small="messages are dropped on a link that is merely long",
        too_large="memory, once for every peer that has stopped reading, and once for a replica that falls behind",
    )
    inbox_messages: int = _limit(
        4096,
        Range(16, 1 << 20, "messages"),
        bounds="messages from peers that wait for the engine; above it the links are not read",
        too_small="links stand still while the engine has time",
        too_large="memory, and old news: a slow replica works on what has been resent since",
    )
    request_timeout_ms: int = _limit(
        10_000,
        Range(10, 3_600_000, "milliseconds"),
        bounds="how long a client's command may take before its outcome is reported as unknown",
        too_small="commands are reported unknown that would have been answered",
        too_large="clients hang for that long when no quorum is reachable",
    )
    key_bytes: int = _limit(
        65_535,
        Range(1, 65_535, "bytes"),
        bounds="one key",
        too_small="clients are refused keys that they use",
        too_large="keys of this size are copied into every dependency check of their batch",
    )
    value_bytes: int = _limit(
        896 << 10,
        Range(1, 32 * _MIB, "bytes"),
        bounds="one value; a key and a value together fit a batch",
        too_small="clients are refused values that they use",
        too_large="one value holds back every other command of its site while it crosses the slowest link",
    )
    pipeline_commands: int = _limit(
        1024,
        Range(1, 1 << 16, "commands"),
        bounds="commands read from one connection before some of them are answered",
        too_small="a pipelining client gets a round trip for every few commands",
        too_large="one connection can fill the queue that all share",
    )
    client_reply_bytes: int = _limit(
        _MIB,
        Range(1 << 10, 1 << 30, "bytes"),
        bounds="replies waiting for one client; above it the connection is not read",
        too_small="a pipelining client stops and goes",
        too_large="memory, once for every client that sends and never reads",
    )
    client_output_bytes: int = _limit(
        256 * _MIB,
        Range(64 << 10, 1 << 36, "bytes"),
        bounds="replies waiting for one client, those of its commands under way included; above it the connection is "
        "closed, unless it waits for one reply alone",
        too_small="a client that pipelines reads of large values is cut off although it reads",
        too_large="memory, for a client that pipelines reads of large values and never reads the replies",
    )
    client_output_total_bytes: int = _limit(
        1 << 30,
        Range(64 << 10, 1 << 40, "bytes"),
        bounds="the same of all clients together; above it the connection for which most is waiting is closed",
        too_small="a client that asks for much is cut off although it reads, or for what others leave unread",
        too_large="memory, for many clients that pipeline reads of large values and never read the replies",
    )
    connections: int = _limit(
        1 << 14,
        Range(1, 1 << 20, "connections"),
        bounds="client connections at one replica; further ones are told so and closed",
        too_small="clients are turned away from an idle replica",
        too_large="file descriptors: a replica raises its limit (`ulimit -n`) as far as it may, and tells of too few",
    )
    handshake_timeout_ms: int = _limit(
        5_000,
        Range(10, 600_000, "milliseconds"),
        bounds="how long a new link between replicas may take to say who it is",
        too_small="links over long distances never come up",
        too_large="sockets are held by whoever connects and says nothing",
    )
    reconnect_max_ms: int = _limit(
        1_000,
        Range(10, 600_000, "milliseconds"),
        bounds="the longest pause between two attempts to reach a peer; pauses double up to it",
        too_small="an absent peer is called many times a second",
        too_large="a returned peer is noticed that much later",
    )
    sessions: int = _limit(
        10_000,
        Range(1, 1 << 20, "sessions"),
        bounds="sessions of the cluster, all replicas together; a further one is refused until an idle one has ended",
        too_small="clients are told BUSY when they open a session",
        too_large="memory at every replica for the results of clients that never come back",
    )
    session_idle_ms: int = _limit(
        3_600_000,
        Range(100, 30 * 86_400_000, "milliseconds"),
        bounds="how long a session without a command is kept; with too many sessions, a tenth of that",
        too_small="a client that pauses finds its session closed, and an unknown outcome stays unknown",
        too_large="sessions of clients that never come back stay",
    )
    map_bytes: int = _limit(
        1 << 36,
        Range(16 * _MIB, 1 << 46, "bytes"),
        bounds="the most that the data directory may hold; its map in memory begins at 1 GiB and doubles as it fills",
        too_small="the replica stops with room left on the disk",
        too_large="the disk is filled, whoever else wants some of it",
    )

    def __post_init__(self) -> None:
        for limit in explain_limits():
            _check_limit(limit, getattr(self, limit.name))
        for name, least, why in self._relations():
            if getattr(self, name) < least:
                raise BadValue(("limits", name), getattr(self, name), f"at least {least}: {why}")

    def _relations(self) -> Iterator[tuple[str, int, str]]:
        """(field, its least value, why), for the bounds that depend on other bounds."""
        yield (
            "batch_bytes",
            self.key_bytes + self.value_bytes + COMMAND_MARGIN_BYTES,
            "a key (key_bytes) and a value (value_bytes) fit it",
        )
        yield (
            "frame_bytes",
            self.batch_bytes + FRAME_MARGIN_BYTES,
            f"batch_bytes + {FRAME_MARGIN_BYTES} for the message",
        )
        yield "pending_bytes", self.batch_bytes, "one full batch (batch_bytes)"
        yield "link_queue_bytes", self.frame_bytes, "one full frame (frame_bytes)"

    def engine(self) -> Limits:
        """The part of these bounds that the engine keeps."""
        return Limits(**{name: getattr(self, name) for name in Limits._fields})

    @property
    def retry_us(self) -> int:
        """`retry_ms`, as the protocols count."""
        return self.retry_ms * 1_000


def explain_limits() -> tuple[LimitDoc, ...]:
    """Every bound, in the order of the file."""
    docs = []
    for each in dataclasses.fields(LimitsConfig):
        about = each.metadata
        allowed = Range(about["low"], about["high"], about["unit"])
        docs.append(
            LimitDoc(each.name, about["default"], allowed, about["bounds"], about["too_small"], about["too_large"])
        )
    return tuple(docs)


def _check_limit(limit: LimitDoc, value: object) -> None:
    low, high, unit = limit.range
    if type(value) is not int or not low <= value <= high:
        raise BadValue(("limits", limit.name), value, f"an integer from {low} to {high} ({unit})")
