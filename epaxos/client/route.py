"""Which replica a client talks to: the nearest one that serves, over one connection at a time.

A replica that fails (it cannot be reached, its connection is lost, it refuses for reasons of its own, it cannot say
what became of a command) is left, and comes last for a while when another is looked for. While another one serves, the
nearest is asked now and then whether it does again; then the client moves over, and what is under way ends where it is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import trio

from epaxos.client.link import NOTHING, Applied, Link, Word, encode
from epaxos.config import Address, Config
from epaxos.errors import EpaxosError, Rejected, Unknown
from epaxos.ids import ReplicaId

Connect = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Opens a connection, or raises OSError."""

ITS_OWN: Final = frozenset({"closed", "deadline", "no_quorum"})
"""The reasons of `Rejected` that are about the replica: another one may do what this one refuses.

`busy` is not among them: it is about load, and every replica executes every command. Whoever is told so waits a little,
rather than carry the load from site to site.
"""
_LAST_S: Final = 60.0
"""How long a replica that failed comes last: several have the time to let a command wait for its deadline."""
_PROBE_S: Final = 1.0
_PROBE_MAX_S: Final = 60.0
"""About so long between questions to the nearest replica: doubled at each, until it has served for the longest."""
QUESTION: Final = ("EXISTS", "")
"""Does it serve? A read, which takes a quorum: a replica that is cut off answers PING."""


async def open_tcp(address: Address) -> trio.abc.Stream:
    """A TCP connection to a replica."""
    return await trio.open_tcp_stream(address.host, address.port)


class Route:
    """The way to the cluster."""

    def __init__(self, config: Config, near: str | None, *, connect: Connect, connect_timeout_ms: int) -> None:
        self._config = config
        self._near = 0 if near is None else config.id_of(near)
        self._connect = connect
        self._timeout_s = connect_timeout_ms / 1_000
        self._running = AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        self._connecting = trio.Lock()
        self._failed_s: dict[ReplicaId, float] = {}
        """When each replica last failed."""
        self._returning = False
        self._probe_s = _PROBE_S
        self._home_s = 0.0
        """When the nearest replica was last taken into use."""

    async def open(self) -> None:
        """From here on commands may be asked."""
        self._nursery = await self._running.enter_async_context(trio.open_nursery())

    async def close(self) -> None:
        """End the connection; the outcome of what is under way is unknown."""
        nursery, self._nursery = self._nursery, None
        assert nursery is not None
        nursery.cancel_scope.cancel()
        await self._running.aclose()

    @property
    def connected(self) -> bool:
        """Is there a connection?"""
        return self._link is not None and not self._link.lost

    async def ask(self, words: tuple[Word, ...], *, until_s: float = -math.inf) -> Any:
        """Send a command, and wait for its reply. Raises what the reply or its absence means.

        It is sent once, but for one case: when a replica refuses it for a reason of its own, the next is asked, until
        all have been or it is `until_s` on trio's clock.
        """
        data = encode(words)
        for asked in range(1, self._config.n + 2):
            link = await self._connected()
            outcome = await link.ask(data)
            refused = isinstance(outcome, Rejected) and outcome.reason in ITS_OWN
            unclear = isinstance(outcome, Unknown) and not isinstance(outcome, Applied)
            if refused or unclear or outcome is NOTHING:
                self._leave(link)
            if outcome is NOTHING or (refused and asked < self._config.n and trio.current_time() < until_s):
                continue
            if isinstance(outcome, EpaxosError):
                raise link.meaning(outcome)
            return outcome
        raise Rejected("closed", "every connection was lost before the command was sent")

    # -- the connection in use

    async def _connected(self) -> Link:
        """The connection in use, or a new one to the first replica that can be reached."""
        async with self._connecting:
            if self._link is not None and self._link.lost:
                self._leave(self._link)
            if self._link is not None:
                return self._link
            failures = []
            for at in self._order():
                try:
                    with trio.fail_after(self._timeout_s):
                        link = await self._open(at)
                except (OSError, trio.TooSlowError) as error:
                    self._failed_s[at] = trio.current_time()
                    failures.append(f"{self._config.names[at]}: {error or 'no answer'}")
                else:
                    self._use(link)
                    return link
            raise Rejected("closed", f"no replica can be reached ({'; '.join(failures)})")

    def _order(self) -> list[ReplicaId]:
        """In the order of the file from the nearest on; those that failed lately at the end, the latest last."""
        n, since_s = self._config.n, trio.current_time() - _LAST_S
        lately = {at: failed_s for at, failed_s in self._failed_s.items() if failed_s > since_s}
        return sorted(((self._near + turn) % n for turn in range(n)), key=lambda at: lately.get(at, -math.inf))

    async def _open(self, at: ReplicaId) -> Link:
        """A connection to this replica. Raises OSError, and Rejected when the client was left."""
        if self._nursery is None:
            raise Rejected("closed", "the client is used outside of its `async with`")
        replica = self._config.replicas[at]
        stream = await self._connect(replica.client)
        if self._nursery is None:
            await trio.aclose_forcefully(stream)
            raise Rejected("closed", "the client was left while it connected")
        link = Link(replica.name, stream)
        if self._config.password is not None:
            link.greet(encode(("AUTH", self._config.password)))
        self._nursery.start_soon(link.run)
        return link

    def _use(self, link: Link) -> None:
        """Further commands go over this connection."""
        before, self._link = self._link, link
        if before is not None:
            before.retire()
        if self._is_home(link):
            self._home_s = trio.current_time()
        elif not self._returning:
            self._returning = True
            assert self._nursery is not None
            self._nursery.start_soon(self._return)

    def _leave(self, link: Link) -> None:
        """The replica at its other end failed: further commands go elsewhere."""
        if link is not self._link:
            return
        self._link = None
        link.retire()
        now_s = self._failed_s[self._config.id_of(link.name)] = trio.current_time()
        if self._is_home(link) and now_s - self._home_s > _PROBE_MAX_S:
            self._probe_s = _PROBE_S

    # -- back to the nearest replica

    def _is_home(self, link: Link | None) -> bool:
        return link is not None and link.name == self._config.names[self._near]

    async def _return(self) -> None:
        """Ask the nearest replica now and then, until it serves again and is in use."""
        while not self._is_home(self._link):
            await trio.sleep(self._probe_s * random.uniform(0.5, 1.5))
            self._probe_s = min(2 * self._probe_s, _PROBE_MAX_S)
            link = await self._probe()
            if link is not None:
                async with self._connecting:
                    self._use(link)
        self._returning = False

    async def _probe(self) -> Link | None:
        """A connection to the nearest replica, if it answers a question over it in time."""
        link, outcome = None, NOTHING
        with trio.move_on_after(self._timeout_s), suppress(OSError, Rejected):
            link = await self._open(self._near)
            outcome = await link.ask(encode(QUESTION))
        if link is None or isinstance(outcome, int):
            return link
        link.end()
        return None
