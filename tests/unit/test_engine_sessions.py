"""Sessions through whole engines, by hand: copies at several replicas, ends, idleness, restarts, the log of users."""

from __future__ import annotations

import pytest

from epaxos.command import Command, Entry
from epaxos.errors import Rejected, Unknown
from epaxos.machines.kv import INCREMENT, Op
from epaxos.packing import encode_run
from epaxos.session import Ended, SessionId, Stamp, end_run, open_run, stamped
from epaxos.submission import Submit
from epaxos.testing.byhand import FOREVER_US, SECRET, ByHand, Waiter, append, set_

PROTOCOLS = pytest.mark.parametrize("protocol", ["epaxos", "raft"])
INCR: Command = (Entry(Op.INCRBY, 0, b"k", INCREMENT.pack(1)),)


class Cluster(ByHand):
    """A cluster by hand, and what a client of sessions does with it."""

    def submit_run(self, i: int, run: bytes, *, timeout_us: int = FOREVER_US) -> Waiter:
        waiter = Waiter()
        self.turn(i, Submit(waiter, 7, run, 1, self.now_us + timeout_us))
        return waiter

    def open(self, i: int = 0, *, fifo: bool = False) -> SessionId:
        session = self.sites[i].engine.new_session()
        waiter = self.submit_run(i, open_run(SECRET, session, fifo=fifo))
        self.heal(1_000_000)
        assert waiter.replies == [b""]
        return session

    def end(self, i: int, session: SessionId, unless_after: int | None = None) -> None:
        self.submit_run(i, end_run([Ended(session, unless_after)]))
        self.heal(1_000_000)

    def send(self, i: int, session: SessionId, number: int, command: Command, floor: int = 0, **more: int) -> Waiter:
        return self.submit_run(i, encode_run(SECRET, [stamped(command, Stamp(session, number, floor))]), **more)

    def values(self) -> list[bytes | None]:
        return [site.machine.get(b"k") for site in self.sites]

    def tables(self) -> set[bytes]:
        return {site.engine.applier.sessions.save() for site in self.sites}


def ready(protocol: str, **limits: int) -> Cluster:
    """Three replicas that have settled, with a leader where there is one."""
    cluster = Cluster(3, protocol=protocol, **limits)
    for i in range(3):
        cluster.measure(i, 10_000, 10_000, 10_000)
    cluster.heal(3_000_000)
    return cluster


@PROTOCOLS
def test_a_command_sent_again_elsewhere_takes_effect_once_and_has_one_result(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    first = cluster.send(0, session, 1, INCR)
    again = cluster.send(1, session, 1, INCR)
    cluster.heal()
    assert cluster.values() == [b"1"] * 3
    assert first.replies == again.replies == [b":1\r\n"]
    late = cluster.send(2, session, 1, INCR)
    cluster.heal()
    assert late.replies == [b":1\r\n"] and cluster.values() == [b"1"] * 3
    assert len(cluster.tables()) == 1


@PROTOCOLS
def test_two_copies_in_one_batch_share_the_result(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    waiters = [Waiter(), Waiter()]
    run = encode_run(SECRET, [stamped(INCR, Stamp(session, 1, 0))])
    cluster.turn(0, *(Submit(waiter, at, run, 1, FOREVER_US) for at, waiter in enumerate(waiters)))
    cluster.heal()
    assert [waiter.replies for waiter in waiters] == [[b":1\r\n"]] * 2
    assert cluster.values() == [b"1"] * 3


@PROTOCOLS
def test_an_outcome_that_was_unknown_is_learned_by_asking_again(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    lost = cluster.send(0, session, 1, INCR, timeout_us=1)
    cluster.wait(1_000)
    cluster.turn(0)
    assert [type(error) for error in lost.errors] in ([Unknown], [Rejected])
    again = cluster.send(0, session, 1, INCR)
    cluster.heal()
    assert again.replies == [b":1\r\n"] and cluster.values() == [b"1"] * 3


@PROTOCOLS
def test_a_straggler_of_a_closed_session_is_void(protocol: str) -> None:
    """S42."""
    cluster = ready(protocol)
    session = cluster.open()
    cluster.send(1, session, 7, INCR, floor=6)
    cluster.heal()
    cluster.end(1, session)
    straggler = cluster.send(0, session, 7, INCR, floor=6)
    cluster.heal()
    assert [str(error).partition(":")[0] for error in straggler.errors] == ["session_closed"]
    assert cluster.values() == [b"1"] * 3
    assert len(cluster.tables()) == 1


@PROTOCOLS
def test_commands_of_a_session_and_others_share_batches(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    waiter = Waiter()
    commands = [set_("k", "a"), stamped(append("k", "b"), Stamp(session, 1, 0)), append("k", "c")]
    for _ in range(2):
        cluster.turn(0, Submit(waiter, 1, encode_run(SECRET, commands), 3, FOREVER_US))
        cluster.heal()
    assert waiter.replies == [b"+OK\r\n", b":2\r\n", b":3\r\n", b"+OK\r\n", b":2\r\n", b":2\r\n"]
    assert cluster.values() == [b"ac"] * 3, "the second time, b has no effect"


@PROTOCOLS
def test_users_see_neither_void_commands_nor_the_engine_s_own(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    for number in (1, 1, 2):
        cluster.send(0, session, number, append("k", str(number)))
        cluster.heal()
    cluster.end(0, session)
    for restarted in (False, True):
        if restarted:
            cluster.crash(0)
            cluster.restart(0)
            cluster.heal()
        entries = cluster.sites[0].engine.entries(0, 100)
        assert [(entry.keys, entry.payload) for entry in entries] == [((b"k",), b"1"), ((b"k",), b"2")]


@PROTOCOLS
def test_the_table_survives_a_restart_of_everybody(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open()
    cluster.send(0, session, 1, INCR)
    cluster.heal()
    before = cluster.tables()
    for i in range(3):
        cluster.crash(i)
    for i in range(3):
        cluster.restart(i)
    cluster.heal()
    again = cluster.send(2, session, 1, INCR)
    cluster.heal()
    assert again.replies == [b":1\r\n"] and cluster.values() == [b"1"] * 3
    assert cluster.tables() == before


@PROTOCOLS
def test_a_fifo_session_refuses_a_number_out_of_order(protocol: str) -> None:
    cluster = ready(protocol)
    session = cluster.open(fifo=True)
    outcomes = []
    for number in (2, 1, 2):
        run = encode_run(SECRET, [stamped(append("k", str(number)), Stamp(session, number, 0, fifo=True))])
        waiter = cluster.submit_run(number % 3, run)
        cluster.heal()
        outcomes += [*waiter.replies, *(error.reason for error in waiter.errors if isinstance(error, Rejected))]
    assert outcomes == ["out_of_order", b":1\r\n", b":2\r\n"]
    assert cluster.values() == [b"12"] * 3


@PROTOCOLS
def test_a_session_that_is_idle_for_long_ends_everywhere(protocol: str) -> None:
    cluster = ready(protocol, session_idle_ms=2_000)
    idle, busy = cluster.open(), cluster.open(1)
    for number in range(1, 8):
        cluster.send(1, busy, number, append("k", "x"), floor=number - 1)
        cluster.heal(500_000)
    assert [(idle in site.engine.applier.sessions) for site in cluster.sites] == [False] * 3
    assert [(busy in site.engine.applier.sessions) for site in cluster.sites] == [True] * 3
    assert len(cluster.tables()) == 1


def test_the_sessions_of_a_replica_that_is_gone_are_ended_by_others() -> None:
    cluster = ready("epaxos", session_idle_ms=2_000)
    session = cluster.open(2)
    cluster.crash(2)
    cluster.heal(2_000_000)
    assert session in cluster.sites[0].engine.applier.sessions, "its own replica would have come first"
    cluster.heal(3_000_000)
    assert [session in site.engine.applier.sessions for site in cluster.sites[:2]] == [False] * 2


def test_a_further_session_is_refused_until_an_idle_one_has_made_room() -> None:
    cluster = ready("epaxos", sessions=2, session_idle_ms=60_000)
    first, second = cluster.open(0), cluster.open(1)
    refused = cluster.submit_run(0, open_run(SECRET, cluster.sites[0].engine.new_session()))
    assert [error.reason for error in refused.errors if isinstance(error, Rejected)] == ["busy"]
    cluster.heal(10_000_000)
    assert all(first in site.engine.applier.sessions for site in cluster.sites), "in use until lately: it stays"
    cluster.send(0, first, 1, INCR)
    cluster.heal()
    cluster.submit_run(0, open_run(SECRET, cluster.sites[0].engine.new_session()))
    cluster.heal()
    assert [second in site.engine.applier.sessions for site in cluster.sites] == [False] * 3
    cluster.open(0)
    assert first in cluster.sites[2].engine.applier.sessions
