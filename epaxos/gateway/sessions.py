"""Exactly once for clients of the gateway: `EPAXOS SESSION` and `EPAXOS CALL`.

    EPAXOS SESSION OPEN [FIFO]                          a handle
    EPAXOS CALL handle number floor command [arg ...]   the reply to the command, the same for every copy of the number
    EPAXOS SESSION CLOSE handle                         OK

A client that does not know the outcome of a call sends it again, to any replica (see `session.py`). A FIFO session's
handle says so by its last letter. Whatever the dialect of the connection, a copy is the same and so is its reply, that
of RESP2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol as Interface

from epaxos import replies
from epaxos.errors import Rejected
from epaxos.gateway.commands import plan, too_large, wrong_arity
from epaxos.gateway.encode import SYNTAX_ERROR
from epaxos.gateway.items import Foreign, Local, ParseLimits, Refused
from epaxos.machines.kv import NOT_AN_INTEGER
from epaxos.machines.numbers import parse_i64
from epaxos.packing import encode_run
from epaxos.session import Ended, SessionId, Stamp, end_run, open_run, stamped

_FIFO: Final = "f"
_NO_SESSION: Final = Refused(replies.error(b"ERR this is not the handle of a session"))


class Namer(Interface):
    """What this needs of the replica."""

    @property
    def secret(self) -> bytes:
        """What the hash of keys is keyed with."""

    def new_session(self) -> SessionId:
        """A name for a session to open: no other replica gives it, nor this one again."""


class Asked(NamedTuple):
    """One command to be replicated."""

    run: bytes
    reply: bytes | None
    """What to answer once it was applied; None: its own reply."""


def is_of_sessions(item: Local) -> bool:
    """Is this a command for `ask`?"""
    args = item.args
    return len(args) > 1 and args[0].lower() == b"epaxos" and args[1].lower() in (b"session", b"call")


def ask(args: Sequence[bytes], replica: Namer, limits: ParseLimits) -> Asked | Refused:
    """What to replicate for such a command."""
    if args[1].lower() == b"session":
        return _session(args, replica)
    return _call(args, replica, limits)


def handle_of(session: SessionId, *, fifo: bool) -> str:
    """What clients know the session by."""
    return str(session) + (_FIFO if fifo else "")


def _session(args: Sequence[bytes], replica: Namer) -> Asked | Refused:
    if len(args) not in (3, 4):
        return Refused(wrong_arity("epaxos|session"))
    what, word = args[2].lower(), args[3] if len(args) == 4 else None
    if what == b"open" and (word is None or word.lower() == b"fifo"):
        session = replica.new_session()
        handle = handle_of(session, fifo=word is not None)
        return Asked(open_run(replica.secret, session, fifo=word is not None), replies.bulk(handle.encode()))
    if what == b"close" and word is not None:
        found = _parse_handle(word)
        return _NO_SESSION if found is None else Asked(end_run([Ended(found[0], None)]), replies.OK)
    return Refused(SYNTAX_ERROR)


def _call(args: Sequence[bytes], replica: Namer, limits: ParseLimits) -> Asked | Refused:
    if len(args) < 6:
        return Refused(wrong_arity("epaxos|call"))
    found = _parse_handle(args[2])
    if found is None:
        return _NO_SESSION
    number, floor = parse_i64(args[3]), parse_i64(args[4])
    if number is None or floor is None or number < 0 or floor < 0:
        return Refused(NOT_AN_INTEGER)
    planned = plan(args[5:], limits._replace(dialect=2))
    if isinstance(planned, Refused):
        return planned
    if isinstance(planned, Local | Foreign):
        return Refused(replies.error(b"ERR '%b' has no place in a session" % args[5].lower()))
    try:
        command = stamped(planned, Stamp(found[0], number, floor, fifo=found[1]))
    except Rejected as error:
        return Refused(replies.failure(error))
    return too_large(command, limits) or Asked(encode_run(replica.secret, [command]), None)


def _parse_handle(word: bytes) -> tuple[SessionId, bool] | None:
    text = word.decode("latin-1")
    try:
        return SessionId.parse(text.removesuffix(_FIFO)), text.endswith(_FIFO)
    except ValueError:
        return None
