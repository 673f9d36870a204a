"""Clients with sessions: they send a command again, to whichever replica is up, until they know what became of it.

They do what a client must never do without a session: they hedge, they retry after an unknown outcome, they close a
session while copies of its commands are still under way. Each command is one call of the history, from the first copy
to the first result; any further result must be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from epaxos.errors import Rejected, Unknown
from epaxos.packing import encode_run
from epaxos.session import Ended, Numbers, SessionId, Stamp, end_run, open_run, stamped
from epaxos.submission import Submit
from epaxos.testing.forks import between, chance, pick
from epaxos.testing.record import Call, Outcome, Violation

if TYPE_CHECKING:
    from epaxos.testing.node import Node
    from epaxos.testing.record import Life
    from epaxos.testing.workload import Clients

_RETRY_US: Final = 150_000
"""A client tries again after so long at most."""
_HEDGES: Final = 0.3
_GIVES_UP: Final = 0.1
_CLOSES: Final = 0.15


class Copy:
    """The waiter of one copy of one command."""

    def __init__(self, order: Order | _Opening | _Closing, life: Life) -> None:
        self._order = order
        self.life = life
        self._over = False

    @property
    def calls(self) -> list[Call]:
        """The call of the history that this is a copy of, if it is one."""
        return [self._order.call] if isinstance(self._order, Order) else []

    def reply(self, first: int, count: int, data: bytes) -> None:
        """As `Waiter.reply`."""
        if not self._over:
            self._over = True
            self._order.replied(data)

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """As `Waiter.fail`."""
        if not self._over:
            self._over = True
            self._order.failed(error)

    def lose(self) -> None:
        """The replica died: nobody knows."""
        self.fail(0, 1, Unknown("the replica died"))


class Order:
    """One command of a session, through all its copies."""

    def __init__(self, client: SessionClient, session: SessionId, stamp: Stamp, call: Call) -> None:
        self._client = client
        self.session = session
        self._stamp = stamp
        self.call = call
        self._run = encode_run(client.clients.secret, [stamped(call.form.command, stamp)])
        self._doubtful = False
        """May some copy have been applied, or still be?"""
        self._copies = 0

    def send(self) -> None:
        """Send a copy to some replica that is up."""
        if self.call.outcome is not Outcome.OPEN:
            return
        node = self._client.any_node()
        if node is None:
            self._client.later(self.send)
            return
        self._copies += 1
        self._client.submit(node, Copy(self, node.life), self._run)
        if chance(self._client.rng, _HEDGES):
            self._client.later(self.send)

    def replied(self, data: bytes) -> None:
        """A copy has a result: the result of all of them."""
        call = self.call
        if call.outcome is Outcome.DONE:
            if call.reply != data:
                raise Violation("at_most_once", f"{call} was answered {call.reply!r}, and another copy {data!r}")
        elif call.outcome is Outcome.OPEN:
            self._settle(Outcome.DONE, data)

    def failed(self, error: Rejected | Unknown) -> None:
        """A copy has no result; others may be under way, or may have been applied."""
        self._copies -= 1
        closed = isinstance(error, Rejected) and error.reason == "session_closed"
        self._doubtful = self._doubtful or isinstance(error, Unknown)
        if self.call.outcome is not Outcome.OPEN or (self._copies and not closed):
            return
        if closed:
            self._client.closed(self.session)
        if closed or (self._doubtful and chance(self._client.rng, _GIVES_UP)):
            certain = not self._doubtful and not self._copies
            if not closed:
                self._client.gave_up(self.session)
            self._settle(Outcome.REJECTED if certain else Outcome.UNKNOWN, None)
        else:
            self._client.later(self.send)

    def _settle(self, outcome: Outcome, reply: bytes | None) -> None:
        self._client.settled(self, self._stamp.number)
        self._client.clients.close(self.call, outcome, reply)


class SessionClient:
    """One client, with one session at a time."""

    def __init__(self, clients: Clients, number: int) -> None:
        self.clients = clients
        self.rng = clients.world.forks[f"workload.session.{number}"]
        self._fifo = chance(self.rng, 0.3)
        self._depth = between(self.rng, 1, 6)
        self._session: SessionId | None = None
        self._stream = 0
        self._numbers = Numbers()
        self._open: list[Order] = []
        self._copies: list[Copy] = []
        self.later(self._connect)

    # -- what its parts need

    def later(self, what: Callable[[], None]) -> None:
        """Do that in a while."""
        self.clients.world.after(between(self.rng, 0, _RETRY_US), what)

    def any_node(self) -> Node | None:
        """Some replica that is up."""
        up = [node for node in self.clients.world.nodes if node.up]
        return pick(self.rng, up) if up else None

    def submit(self, node: Node, copy: Copy, run: bytes) -> None:
        """Hand a run of one command to a replica, on a connection of its own."""
        self._copies.append(copy)
        deadline_us = self.clients.world.now_us + self.clients.draw_deadline_us()
        node.put(Submit(copy, self.clients.new_stream(), run, 1, node.mono_us(deadline_us)))

    def lose(self, life: Life) -> None:
        """That replica died."""
        lost = [copy for copy in self._copies if copy.life == life]
        self._copies = [copy for copy in self._copies if copy.life != life]
        for copy in lost:
            copy.lose()

    # -- the session

    def _connect(self) -> None:
        if not self.clients.left:
            return
        node = self.any_node()
        if node is None:
            self.later(self._connect)
            return
        session = node.engine.new_session()
        self.submit(
            node, Copy(_Opening(self, session), node.life), open_run(self.clients.secret, session, fifo=self._fifo)
        )

    def opened(self, session: SessionId) -> None:
        """The session is there."""
        self._session = session
        self._stream = self.clients.new_stream()
        self._numbers = Numbers()
        self.later(self._issue)

    def not_opened(self) -> None:
        """Or nobody knows: it opens another."""
        self.later(self._connect)

    def closed(self, session: SessionId) -> None:
        """The session has ended."""
        if self._session == session:
            self._session = None
            self.later(self._connect)

    def gave_up(self, session: SessionId) -> None:
        """A command was given up. Nothing behind it in a FIFO session can be executed any more, so that one ends."""
        if not self._fifo or session != self._session:
            return
        self._close(session)

    def _close(self, session: SessionId) -> None:
        """Close it, whatever is still under way."""
        self.closed(session)
        _Closing(self, session).send()

    # -- commands

    def _issue(self) -> None:
        session, node = self._session, self.any_node()
        if session is None or not self.clients.left:
            return
        if chance(self.rng, _CLOSES):
            self._close(session)
            return
        if node is not None and len(self._open) < self._depth:
            number = self._numbers.take()
            stream = self._stream if self._fifo else self.clients.new_stream()
            call = self.clients.new_call(node, stream, pure=self._fifo)
            order = Order(self, session, Stamp(session, number, self._numbers.floor, self._fifo), call)
            self._open.append(order)
            order.send()
        self.later(self._issue)

    def settled(self, order: Order, number: int) -> None:
        """A command has its outcome."""
        self._open.remove(order)
        if order.session == self._session:
            self._numbers.done(number)


class _Opening:
    """What becomes of the opening of a session."""

    def __init__(self, client: SessionClient, session: SessionId) -> None:
        self._client = client
        self._session = session

    def replied(self, data: bytes) -> None:
        """It is there."""
        self._client.opened(self._session)

    def failed(self, error: Rejected | Unknown) -> None:
        """It is not, or nobody knows."""
        self._client.not_opened()


class _Closing:
    """What becomes of the end of a session. It is said until it is known: a command of a FIFO session may wait for one
    that was given up, and only the end of the session is an answer to it."""

    def __init__(self, client: SessionClient, session: SessionId) -> None:
        self._client = client
        self._session = session

    def send(self) -> None:
        """Say it to some replica that is up."""
        node = self._client.any_node()
        if node is None:
            self._client.later(self.send)
        else:
            self._client.submit(node, Copy(self, node.life), end_run([Ended(self._session, None)]))

    def replied(self, data: bytes) -> None:
        """It has ended."""

    def failed(self, error: Rejected | Unknown) -> None:
        """It has not, or nobody knows."""
        if not (isinstance(error, Rejected) and error.reason == "session_closed"):
            self._client.later(self.send)
