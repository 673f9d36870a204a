"""Links without replicas behind them: the tests say what becomes of a connection, on a virtual network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from epaxos.ids import ReplicaId
from epaxos.testing.virtual.network import VirtualNetwork

Accept = Callable[[trio.abc.Stream], Awaitable[None]]


class LinkNetwork(VirtualNetwork):
    """Whoever is served by a function answers calls."""

    def __init__(self, names: Sequence[str], nursery: trio.Nursery) -> None:
        super().__init__(names)
        self._nursery = nursery

    def serve(self, me: ReplicaId, accept: Accept) -> None:
        """From now on `me` answers, with this function."""
        self._nursery.start_soon(trio.serve_listeners, accept, [self.listen(me)])
