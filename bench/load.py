"""An open-loop load: commands leave when a seeded generator says, whether or not earlier ones were answered.

The send times are drawn beforehand, and latency runs from the *intended* time to the reply. A replica that stops for a
second is therefore charged with that second by every command that should have left in it (no coordinated omission), and
what the harness itself loses is charged too, never hidden. What did not succeed is counted by what is known of it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from bench.resp import ConnectionLost, ErrorReply, RespConnection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.tally import Tally

Connect = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens one byte stream to the replica. Raises OSError when there is none to be had."""

NOT_APPLIED: Final = frozenset({"BUSY", "REJECTED", "NOQUORUM"})
"""The error codes of a command that was certainly not applied."""

OUTCOME_UNKNOWN: Final = "UNKNOWN"

ZIPF_MAX: Final = 10.0
ZIPF_KEYS_MAX: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The load at one site. Raises ValueError for what cannot be drawn."""

    clients: int
    """Independent arrival streams."""
    rate_per_s: float
    """Commands a second of each client."""
    duration_s: float
    """From the first intended send time to the last."""
    hot_share: float = 0.0
    """This share of the site's commands, to the nearest command, goes to the one hot key."""
    hot_key: bytes = b"hot"
    zipf: float | None = None
    """Draws the keys of all other commands from `zipf_keys` that all sites share, the k-th as often as 1/k to this
    power; None: each client draws from its own."""
    zipf_keys: int = 10_000
    key_space: int = 1 << 40
    """Each client draws its other keys from so many of its own; a small number makes it conflict with itself."""
    value_bytes: int = 16
    lanes: int = 4
    """Connections of a client, so commands it may have outstanding. Too few and commands leave late, which counts in
    their latency; too many and the replica is asked to hold connections that are never used."""
    reply_timeout_s: float = 10.0
    """A command not answered by then is counted as unknown. Long enough that only a fault reaches it."""

    def __post_init__(self) -> None:
        for name in ("clients", "rate_per_s", "duration_s", "key_space", "value_bytes", "lanes", "reply_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        if self.zipf is not None and not (0 <= self.zipf <= ZIPF_MAX and 1 <= self.zipf_keys <= ZIPF_KEYS_MAX):
            raise ValueError(f"Zipf takes an exponent from 0 to {ZIPF_MAX} and from 1 to {ZIPF_KEYS_MAX} keys")
        if not 0 <= self.hot_share <= 1:
            raise ValueError(f"hot_share is a share between 0 and 1, not {self.hot_share}")

    @property
    def commands_per_client(self) -> int:
        return max(1, round(self.rate_per_s * self.duration_s))

    @property
    def commands(self) -> int:
        return self.clients * self.commands_per_client


class Arrival(NamedTuple):
    """One command to come: when it should leave, in microseconds from the start of the load, and the key it writes."""

    at_us: int
    key: bytes
    hot: bool


def draw(shape: Shape, site: str, seed: str) -> list[list[Arrival]]:
    """The commands of each client of `site` in order of time: a function of the arguments and of nothing else.

    Arrivals are Poisson given their number: `commands_per_client` times drawn uniformly and sorted. Fixing the number
    is what makes the share of the hot key exact, and every site and every run comparable.
    """
    hot_count = round(shape.hot_share * shape.commands)
    hot = set(Random(f"{seed}/{site}/hot").sample(range(shape.commands), hot_count))
    ranks = _zipf(shape)
    return [_draw_client(shape, site, client, seed, hot, ranks) for client in range(shape.clients)]


def _zipf(shape: Shape) -> list[float]:
    """The weights of the shared keys, summed up; nothing without Zipf."""
    if shape.zipf is None:
        return []
    return list(accumulate((rank + 1) ** -shape.zipf for rank in range(shape.zipf_keys)))


def _draw_client(
    shape: Shape, site: str, client: int, seed: str, hot: set[int], ranks: Sequence[float]
) -> list[Arrival]:
    rng = Random(f"{seed}/{site}/{client}")

    def key() -> bytes:
        if ranks:
            return b"zipf:%d" % bisect(ranks, rng.random() * ranks[-1], hi=len(ranks) - 1)
        return b"%s:%d:%d" % (site.encode(), client, rng.randrange(shape.key_space))

    count = shape.commands_per_client
    times_us = sorted(rng.randrange(max(1, round(shape.duration_s * 1e6))) for _ in range(count))
    return [
        Arrival(at_us, shape.hot_key, True) if client * count + at in hot else Arrival(at_us, key(), False)
        for at, at_us in enumerate(times_us)
    ]


async def run(
    connect: Connect, plan: Sequence[Sequence[Arrival]], shape: Shape, tally: Tally, *, start_s: float
) -> None:
    """Sends the `plan` of one site from the moment `start_s` of trio's clock, and counts every command into `tally`.

    Returns when all are settled, at the latest two reply timeouts after the last intended time; what has not left by
    then is counted as unsent, and what is still out as unknown. Raises nothing that the replica could cause.
    """
    with trio.move_on_at(start_s + shape.duration_s + 2 * shape.reply_timeout_s):
        async with trio.open_nursery() as nursery:
            for arrivals in plan:
                pending = iter(arrivals)
                for _ in range(min(shape.lanes, len(arrivals))):
                    nursery.start_soon(_Lane(connect, shape, tally, start_s).run, pending)
    tally.unsent += sum(map(len, plan)) - tally.settled


class _Lane:
    """One connection of a client. A lane that is free takes the client's next command, so a command leaves late only
    when every lane is waiting for a reply."""

    def __init__(self, connect: Connect, shape: Shape, tally: Tally, start_s: float) -> None:
        self._connect = connect
        self._tally = tally
        self._start_s = start_s
        self._timeout_s = shape.reply_timeout_s
        self._value = b"v" * shape.value_bytes
        self._connection: RespConnection | None = None

    async def run(self, pending: Iterator[Arrival]) -> None:
        try:
            await self._connected()
            for arrival in pending:
                await trio.sleep_until(self._start_s + arrival.at_us / 1e6)
                await self._send(arrival)
        finally:
            await self._drop()

    async def _send(self, arrival: Arrival) -> None:
        """One command, settled whatever happens to it; when the whole load is cut off, as unknown."""
        tally = self._tally
        connection = await self._connected()
        if isinstance(connection, str):
            tally.rejected += 1
            tally.because(connection)
            return
        intended_s = self._start_s + arrival.at_us / 1e6
        tally.lag_us.append(_us(trio.current_time() - intended_s))
        try:
            with trio.fail_after(self._timeout_s):
                await connection.call(b"SET", arrival.key, self._value)
        except ErrorReply as error:
            self._refused(str(error))
        except (ConnectionLost, trio.TooSlowError) as error:
            tally.unknown += 1
            tally.because("no reply in time" if isinstance(error, trio.TooSlowError) else f"connection lost: {error}")
            await self._drop()
        except trio.Cancelled:
            tally.unknown += 1
            tally.because("cut off")
            raise
        else:
            tally.answer(arrival.at_us, _us(trio.current_time() - intended_s), arrival.hot)

    def _refused(self, text: str) -> None:
        code = text.partition(" ")[0]
        if code in NOT_APPLIED:
            self._tally.rejected += 1
        elif code == OUTCOME_UNKNOWN:
            self._tally.unknown += 1
        else:
            self._tally.other += 1
        self._tally.because(text)

    async def _connected(self) -> RespConnection | str:
        """The connection, opened if need be, or in words why there is none. One that the replica closed while nothing
        was asked is no reason to lose a command."""
        if self._connection is not None and self._connection.is_over():
            await self._drop()
        if self._connection is None:
            try:
                with trio.fail_after(self._timeout_s):
                    self._connection = RespConnection(await self._connect())
            except (OSError, trio.TooSlowError) as error:
                return f"no connection: {getattr(error, 'strerror', None) or error}"
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
