"""What a seed draws: which faults exist in its run, how strong they are, and when they strike.

Swarm testing: a run with every fault at once reaches fewer states than many runs with a few of them each, because
some faults hide others (who is always partitioned never commits on the fast path). So the kinds are drawn first,
then the strength of each. Every kind has a fork of its own, so that leaving one out (`without`) leaves the others
as they were: that is how a failing seed is shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from epaxos.ids import ReplicaId
from epaxos.messages import TABLE
from epaxos.submission import Limits
from epaxos.testing.forks import Forks, between, chance, log_between, pick

LOSS: Final = "loss"
DUPLICATION: Final = "duplication"
REORDERING: Final = "reordering"
GHOSTS: Final = "ghosts"
SLOW_LINK: Final = "slow_link"
DRIFT: Final = "drift"
PARTITION: Final = "partition"
FLAP: Final = "flap"
CRASH: Final = "crash"
BLACKOUT: Final = "blackout"
AMBUSH: Final = "ambush"
INTERRUPT: Final = "interrupt"
RELAPSE: Final = "relapse"
SIEGE: Final = "siege"
STUTTER: Final = "stutter"
BETRAYAL: Final = "betrayal"
PAUSE: Final = "pause"
CLOCK: Final = "clock"
SLOW_SYNC: Final = "slow_sync"
STUCK_SYNC: Final = "stuck_sync"
FULL_DISK: Final = "full_disk"
LOST_WRITES: Final = "lost_writes"

KINDS: Final[dict[str, str]] = {
    LOSS: "a message is lost, 1 to 30 % of them",
    DUPLICATION: "a message arrives twice",
    REORDERING: "messages of one link overtake each other",
    GHOSTS: "what was under way to a crashed replica reaches its next life",
    SLOW_LINK: "some links are ten times slower, or clogged for a while",
    DRIFT: "links become slower or faster all the time, up to five times as slow in the end",
    PARTITION: "symmetric, one-way, or one replica isolated",
    FLAP: "a link breaks and comes back; what was on it is lost",
    CRASH: "a replica dies and restarts on what its disk kept; a majority lives",
    BLACKOUT: "all replicas die at the same moment",
    AMBUSH: "a replica, or all of them, die right after one of their replies",
    INTERRUPT: "right behind a message of some type its sender dies, is cut off, or stands still",
    RELAPSE: "behind messages and events of some types a replica dies with what is not synced, and is back at once",
    SIEGE: "whoever speaks most is cut off for some election timeouts, while clients go on asking it, and the others",
    STUTTER: "a replica dies while it sends: the rest of what it had to say reaches nobody",
    BETRAYAL: "a replica with a slow disk, heard by a few, dies behind a reply, and those who heard it are cut off",
    PAUSE: "a replica stands still for a while",
    CLOCK: "monotonic clocks run at different speeds, wall clocks jump",
    SLOW_SYNC: "a sync takes up to 30 ms",
    STUCK_SYNC: "now and then a sync takes up to 400 ms",
    FULL_DISK: "a disk takes no more; its replica dies of it, and restarts when there is room",
    LOST_WRITES: "a crash keeps any legal prefix of what was not synced, rather than all of it",
}
"""Every kind of fault, and what it does."""

KINDS_MIN: Final = 3
_FAVOURED: Final = (RELAPSE, SIEGE, STUTTER, BETRAYAL)
"""Drawn more often: they make what is rare and goes wrong where a replica believes what holds no longer."""
_MILLISECOND: Final = 1_000


class Strike(NamedTuple):
    """One fault at its time. `kind` is that of `KINDS`; the other fields mean what the kind makes of them."""

    at_us: int
    kind: str
    lasts_us: int
    victims: tuple[ReplicaId, ...] = ()
    """In the order of preference: a crash takes the first that lives."""
    number: int = 0
    aimed: bool = False
    """Is the first victim whoever sends most? A leader does."""


class Betrayal(NamedTuple):
    """What a replica told its client must be known to others than itself and those who have just heard of it."""

    at_us: int
    victims: tuple[ReplicaId, ...]
    """The first of them, unless it is `aimed`; the others in the order in which they hear it."""
    aimed: bool
    """Is the first victim whoever sends most? A leader does."""
    sync_us: int
    """What each of its syncs takes in addition."""
    replies: int
    """It dies behind so many replies of its own."""
    lasts_us: int
    """How long the others go without those who heard it."""
    returns: bool
    """Is it back at once, without what it had not synced? Otherwise it stays away as long, and one who heard it is left
    among the others, so that they are enough."""


class Siege(NamedTuple):
    """Whoever sends most is cut off, behind a reply: then there is somebody who leads, of a protocol that has one."""

    reply: int
    """Counted from the first of the run."""
    lasts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """Everything a seed decides about the world before it starts. Times in microseconds of simulated time."""

    kinds: tuple[str, ...]
    fault_us: int
    """How long faults strike; then everything is healed."""
    delay_us: tuple[tuple[int, ...], ...]
    """One-way, from row to column."""
    calm_us: int
    """The longest one-way delay once everything is healed."""
    drift: tuple[tuple[float, ...], ...]
    """By how many times `delay_us` grows until `fault_us`, from row to column, at a steady pace; empty for none."""
    jitter: float
    loss: float
    duplication: float
    clock_ppm: tuple[int, ...]
    """How much faster than true each monotonic clock runs, in millionths."""
    sync_us: int
    """The longest usual sync."""
    stuck: float
    """The probability that a sync is stuck."""
    turn_us: int
    """The longest time between the arrival of an input and the turn that takes it."""
    inputs_max: int
    """How many inputs one turn takes, at most."""
    codec: bool
    """Does every message go through the wire format?"""
    measured: bool
    """Do replicas learn round-trip times while faults strike? Afterwards they do."""
    down_after_us: int
    """How long a peer is silent before a replica is told that its link is down."""
    ambush_replies: tuple[int, ...]
    """After which replies of the run, counted from the first, somebody dies."""
    interrupts: Mapping[str, tuple[int, ...]]
    """For some types of messages: the how many-th of the run are the last that their sender sends for a while."""
    sieges: tuple[Siege, ...]
    betrayals: tuple[Betrayal, ...]
    limits: Limits
    retry_us: int
    preferred: ReplicaId | None
    """`ProtocolConfig.preferred`: who should lead, of a protocol that has a leader."""
    eager: bool
    """`ProtocolConfig.eager`."""
    strikes: tuple[Strike, ...]
    """In the order of time."""
    encore: bool
    """When everything has come to rest, does everybody die and restart once more?"""


def draw(forks: Forks, n: int, without: frozenset[str] = frozenset()) -> Swarm:
    """The swarm of a seed for `n` replicas, less the kinds in `without`."""
    rng = forks["faults"]
    weight = rng.random()
    scores = [(rng.random() * (0.6 if kind in _FAVOURED else 1.0), kind) for kind in KINDS]
    many = KINDS_MIN + int(weight**3 * (len(KINDS) - KINDS_MIN + 1))
    drawn = sorted(kind for _, kind in sorted(scores)[:many])
    kinds = tuple(kind for kind in drawn if kind not in without)
    # A brisk world has time for many timeouts while faults strike, so for many elections where there is a leader.
    brisk = pick(rng, (1, 1, 1, 4, 16))
    fault_us = between(rng, 500, 1_400) * _MILLISECOND // (2 if brisk == 16 else 1)
    base = log_between(rng, 500, 40_000) // brisk
    retry_us = max(4_000, log_between(rng, 10_000, 120_000) // brisk)
    strikes = [strike for kind in kinds for strike in _strikes(forks, kind, n, fault_us)]
    return Swarm(
        kinds=kinds,
        fault_us=fault_us,
        delay_us=_delays(forks, n, base, SLOW_LINK in kinds),
        calm_us=pick(rng, (1_000, 250_000)),
        drift=_drifts(forks, n) if DRIFT in kinds else (),
        jitter=pick(rng, (0.0, 0.1, 0.5, 2.0)),
        loss=_strength(forks, LOSS, kinds, 0.01, 0.30),
        duplication=_strength(forks, DUPLICATION, kinds, 0.01, 0.30),
        clock_ppm=_speeds(forks, n, CLOCK in kinds),
        sync_us=between(rng, 5, 30) * _MILLISECOND if SLOW_SYNC in kinds else log_between(rng, 50, 2_000),
        stuck=_strength(forks, STUCK_SYNC, kinds, 0.01, 0.05),
        turn_us=pick(rng, (0, 100, 1_000, 3_000)),
        inputs_max=pick(rng, (1, *7 * (1_000,))),
        codec=chance(rng, 0.25),
        measured=chance(rng, 0.9),
        down_after_us=log_between(rng, 10_000, 500_000) // brisk,
        ambush_replies=_ambushes(forks) if AMBUSH in kinds else (),
        interrupts=_interrupts(forks) if INTERRUPT in kinds else {},
        sieges=_sieges(forks, max(retry_us, 4 * base)) if SIEGE in kinds else (),
        betrayals=_betrayals(forks, n, fault_us, max(retry_us, 4 * base)) if BETRAYAL in kinds else (),
        limits=_limits(forks),
        retry_us=retry_us,
        preferred=pick(forks["faults.preferred"], (None, *range(n))),
        eager=chance(forks["faults.eager"], 0.1),
        strikes=tuple(sorted(strikes)),
        encore=chance(rng, 0.25),
    )


def _strength(forks: Forks, kind: str, kinds: tuple[str, ...], low: float, high: float) -> float:
    rng = forks[f"faults.{kind}"]
    return low + (high - low) * rng.random() if kind in kinds else 0.0


def _delays(forks: Forks, n: int, base: int, slow: bool) -> tuple[tuple[int, ...], ...]:
    rng = forks["faults.delay"]
    spread = pick(rng, (2, 2, 10))
    matrix = [[0] * n for _ in range(n)]
    for a in range(n):
        for b in range(n):
            if a != b:
                matrix[a][b] = base + int(base * spread * rng.random())
                if slow and chance(forks["faults.slow_link"], 0.2):
                    matrix[a][b] *= 10
    return tuple(map(tuple, matrix))


def _drifts(forks: Forks, n: int) -> tuple[tuple[float, ...], ...]:
    rng = forks["faults.drift"]
    return tuple(tuple(rng.random() * 4.9 - 0.9 for _ in range(n)) for _ in range(n))


def _speeds(forks: Forks, n: int, skewed: bool) -> tuple[int, ...]:
    rng = forks["faults.clock"]
    return tuple(between(rng, -50_000, 50_000) if skewed else 0 for _ in range(n))


def _ambushes(forks: Forks) -> tuple[int, ...]:
    rng = forks["faults.ambush"]
    return tuple(sorted({between(rng, 1, 60) for _ in range(between(rng, 1, 3))}))


def _interrupts(forks: Forks) -> dict[str, tuple[int, ...]]:
    """Each type of message is as likely as any other, however rare it is, and so is each order of magnitude."""
    interrupts = {}
    for kind in TABLE.values():
        rng = forks[f"faults.interrupt.{kind.__name__}"]
        if chance(rng, 0.3):
            numbers = {log_between(rng, 1, 100) for _ in range(between(rng, 1, 3))}
            interrupts[kind.__name__] = tuple(sorted(numbers))
    return interrupts


def _limits(forks: Forks) -> Limits:
    """The knobs of the engine: mostly as shipped, sometimes as tight as they go."""
    rng = forks["faults.limits"]
    usual = Limits()
    return Limits(
        window=pick(rng, (1, 2, 4, usual.window, usual.window)),
        batch_commands=pick(rng, (1, 2, usual.batch_commands, usual.batch_commands)),
        batch_inflight=pick(rng, (1, 2, usual.batch_inflight, 64)),
        batch_age_us=pick(rng, (0, usual.batch_age_us, 20_000)),
        lazy_us=pick(rng, (1_000, usual.lazy_us, 50_000)),
        blocked_us=pick(rng, (10_000, usual.blocked_us, usual.blocked_us)),
        sessions=pick(forks["faults.sessions"], (1, 2, usual.sessions)),
        session_idle_ms=pick(forks["faults.sessions"], (200, 2_000, usual.session_idle_ms)),
        entangled_window=pick(rng, (1, 2, usual.entangled_window, usual.entangled_window)),
    )


# ------------------------------------------------------------------------------------------------ when faults strike


def _strikes(forks: Forks, kind: str, n: int, fault_us: int) -> list[Strike]:
    """When faults of that kind strike; none for a kind that is a property of the whole run."""
    often = _OFTEN.get(kind)
    if often is None:
        return []
    rng = forks[f"faults.{kind}"]
    strikes = []
    for _ in range(between(rng, *often.times)):
        at_us = between(rng, 0, fault_us)
        lasts_us = log_between(rng, *often.lasts_us)
        order = sorted(range(n), key=lambda _: rng.random())
        number = between(rng, 0, 1 << 30)
        strikes.append(Strike(at_us, kind, lasts_us, tuple(order), number, aimed=bool(number >> 20 & 3)))
    return strikes


def _sieges(forks: Forks, round_trip_us: int) -> tuple[Siege, ...]:
    """Long enough for the others to choose a new leader, where there is one, and to go on under it."""
    rng = forks[f"faults.{SIEGE}"]
    replies = sorted({log_between(rng, 1, 10) for _ in range(between(rng, 1, 2))})
    return tuple(Siege(each, between(rng, 8 * round_trip_us, 16 * round_trip_us)) for each in replies)


def _betrayals(forks: Forks, n: int, fault_us: int, round_trip_us: int) -> tuple[Betrayal, ...]:
    rng = forks[f"faults.{BETRAYAL}"]
    return tuple(
        Betrayal(
            at_us=between(rng, fault_us // 8, fault_us * 3 // 4),
            victims=tuple(sorted(range(n), key=lambda _: rng.random())),
            aimed=chance(rng, 0.8),
            sync_us=between(rng, round_trip_us // 2, 2 * round_trip_us),
            replies=between(rng, 1, 3),
            lasts_us=between(rng, 8 * round_trip_us, 16 * round_trip_us),
            returns=chance(rng, 0.5),
        )
        for _ in range(between(rng, 2, 4))
    )


class _Often(NamedTuple):
    times: tuple[int, int]
    lasts_us: tuple[int, int]


_OFTEN: Final[dict[str, _Often]] = {
    SLOW_LINK: _Often((1, 6), (20_000, 500_000)),
    PARTITION: _Often((1, 6), (20_000, 1_500_000)),
    FLAP: _Often((2, 15), (1_000, 200_000)),
    CRASH: _Often((1, 8), (5_000, 800_000)),
    BLACKOUT: _Often((1, 2), (5_000, 300_000)),
    PAUSE: _Often((1, 8), (5_000, 500_000)),
    CLOCK: _Often((1, 8), (1, 1)),
    FULL_DISK: _Often((1, 2), (5_000, 300_000)),
}

STRIKING: Final = frozenset({*_OFTEN, AMBUSH, INTERRUPT, RELAPSE, SIEGE, STUTTER, BETRAYAL})
"""The kinds that strike at moments; the others are properties of a whole run."""
