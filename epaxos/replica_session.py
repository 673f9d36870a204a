"""Exactly once for a program that embeds a replica.

    async with replica.session() as session:
        number = session.take()
        try:
            result = await session.propose(command, writes=[b"a"], number=number)
        except epaxos.Unknown:
            result = await session.propose(command, writes=[b"a"], number=number)   # takes effect once

The name of a session and the last number outlive the program, which may go on with both at any replica.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from epaxos.errors import EpaxosError
from epaxos.machines.opaque import opaque_command
from epaxos.session import Ended, Numbers, SessionId, Stamp, check_number, end_run, open_run, stamped

if TYPE_CHECKING:
    from epaxos.replica import Replica


class Session:
    """One session of one replica, open. Made by `Replica.session`. Its methods may be called from many tasks."""

    def __init__(self, replica: Replica, id_: SessionId, *, last: int, fifo: bool) -> None:
        self.id = str(id_)
        """Its name: with it and the last number another program can go on."""
        self._replica = replica
        self._id = id_
        self._fifo = fifo
        self._numbers = Numbers(last)

    @property
    def last(self) -> int:
        """The highest number that was taken."""
        return self._numbers.last

    def take(self) -> int:
        """The number of a command to come, for `propose`. Raises Rejected("busy") when too many are open."""
        return self._numbers.take()

    async def propose(
        self, command: bytes, *, reads: Iterable[bytes] = (), writes: Iterable[bytes] = (), number: int | None = None
    ) -> bytes:
        """As `Replica.propose`. Of all calls with one number and one command one takes effect; all have its result.

        After Unknown, or when it was cancelled, call it again with the same number, or tell `give_up`. Raises Rejected
        also with the reasons session_closed and, of a FIFO session, out_of_order: this call had no effect. Raises
        ValueError for what cannot be a number.
        """
        number = self.take() if number is None else check_number(number)
        stamp = Stamp(self._id, number, min(self._numbers.floor, number - 1), self._fifo)
        reply = await self._replica.ask(stamped(opaque_command(command, reads=reads, writes=writes), stamp))
        self._numbers.done(number)
        return reply

    def give_up(self, number: int) -> None:
        """This number's outcome is of no interest any more."""
        self._numbers.done(number)


@asynccontextmanager
async def open_session(
    replica: Replica, *, fifo: bool, resume: tuple[str, int] | None, close: bool
) -> AsyncIterator[Session]:
    """See `Replica.session`."""
    if resume is None:
        id_, last = replica.new_session(), 0
        await replica.ask_run(open_run(replica.secret, id_, fifo=fifo))
    else:
        id_, last = SessionId.parse(resume[0]), check_number(resume[1], first=0)
    try:
        yield Session(replica, id_, last=last, fifo=fifo)
    finally:
        if close:
            await _close(replica, id_)


async def _close(replica: Replica, id_: SessionId) -> None:
    """Ends the session, unless there is a hurry: one that is not closed ends when it has been idle for long."""
    try:
        await replica.ask_run(end_run([Ended(id_, None)]))
    except EpaxosError:
        await trio.lowlevel.checkpoint()
