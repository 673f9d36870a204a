"""Replication by hand: pipelining, windows, repair of logs (Figure 7), commitment (Figure 8), forwarding, laggards."""

from __future__ import annotations

import pytest

from epaxos.messages import AppendEntries, AppendOK, Forward
from epaxos.protocols.raft import lead as lead_module
from epaxos.protocols.raft.elect import ELECTION
from epaxos.protocols.raft.protocol import TICK
from epaxos.protocols.raft.state import Role
from epaxos.testing.byhand import append, set_
from tests.unit.raft_by_hand import elected, led, raft, role, silence, terms, with_logs

LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("case", FIGURE_7)
def test_figure_7_every_log_becomes_the_leaders(case: str) -> None:
    # The third site is as the leader, so that the two elect it whatever the one in question has.
    cluster = with_logs({0: LEADER, 1: LEADER, 2: FIGURE_7[case]}, 3, term=7)
    cluster.wake(0, ELECTION)
    cluster.drop(target=2)
    cluster.settle()
    assert role(cluster, 0) is Role.LEADER and raft(cluster, 0).state.term == 8
    cluster.heal()
    assert terms(cluster, 2) == terms(cluster, 0) == [*LEADER, 8]
    assert len({tuple(state) for state in cluster.states()}) == 1
    cluster.crash(2)
    cluster.restart(2)
    assert terms(cluster, 2) == [*LEADER, 8], "what was dropped is gone from the disk as well"


def test_figure_7_backtracking_skips_whole_terms() -> None:
    cluster = with_logs({0: [1] + [4] * 40, 1: [1] + [4] * 40, 2: [1] + [2] * 20 + [3] * 30}, 3, term=5)
    cluster.wake(0, ELECTION)
    cluster.drop(target=2)
    cluster.settle()
    cluster.wake(0, TICK)
    refused = 0
    while cluster.flights:
        flight = cluster.flights[0]
        refused += isinstance(flight.message, AppendOK) and not flight.message.ok
        cluster.deliver(flight)
    assert terms(cluster, 2) == terms(cluster, 0) and refused <= 3


def test_figure_8_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    cluster = with_logs({0: [1, 2], 1: [1], 2: [1], 3: [1], 4: [1, 3]}, 5, term=3)
    cluster.wake(0, ELECTION)
    for _ in range(4):
        cluster.drop(target=3)
        cluster.drop(target=4)
        cluster.drop(AppendEntries)
        cluster.pass_on()
    lead = raft(cluster, 0)
    assert lead.state.role is Role.LEADER and lead.state.term == 4
    cluster.drop()
    cluster.poke(0, lambda protocol: lead.lead.on_append_ok(1, _ok(4, 2)))
    cluster.poke(0, lambda protocol: lead.lead.on_append_ok(2, _ok(4, 2)))
    assert lead.state.commit == 0, "entry 2 of term 2 is on a majority, and site 4 may still overwrite it"
    cluster.poke(0, lambda protocol: lead.lead.on_append_ok(1, _ok(4, 3)))
    cluster.poke(0, lambda protocol: lead.lead.on_append_ok(2, _ok(4, 3)))
    assert lead.state.commit == 3, "an entry of its own term commits it"


def _ok(term: int, index: int) -> AppendOK:
    return AppendOK(term=term, ok=True, index=index, hint=0, hint_term=0, round=1)


def test_entries_leave_without_waiting_for_answers_as_far_as_the_window_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead_module, "FLIGHT_MAX", 4)
    cluster = led()
    waiters = [cluster.submit(0, set_(f"k{stream}", "v"), stream=stream) for stream in range(8)]
    sent = [f.message.prev_index + 1 for f in cluster.pick(AppendEntries, target=1) if f.message.payload is not None]
    assert sent == [2, 3, 4, 5], "four under way, and the others wait"
    cluster.settle()
    assert terms(cluster, 1) == terms(cluster, 0)
    assert all(waiter.replies == [b"+OK\r\n"] for waiter in waiters)


def test_a_lost_entry_shows_with_the_next_one_and_is_sent_again() -> None:
    cluster = led()
    first = cluster.submit(0, append("k", "a"))
    cluster.drop(AppendEntries)
    second = cluster.submit(0, append("k", "b"), stream=2)
    cluster.settle()
    assert first.replies == [b":1\r\n"] and second.replies == [b":2\r\n"]


def test_an_entry_is_on_the_followers_disk_before_it_says_so_and_counts_at_the_leader_when_its_disk_has_it() -> None:
    cluster = led()
    cluster.hold_disk = {0, 1, 2}
    waiter = cluster.submit(0, set_("k", "v"))
    cluster.pass_on(AppendEntries)
    assert not cluster.pick(AppendOK)
    cluster.sync(1)
    cluster.settle()
    assert not waiter.replies, "one copy of three is durable"
    cluster.sync(0)
    assert waiter.replies == [b"+OK\r\n"]


def test_an_overtaken_message_takes_the_commit_index_nowhere() -> None:
    cluster = led()
    cluster.submit(0, set_("a", "1"))
    old = cluster.pick(AppendEntries, target=1)[0]
    cluster.settle()
    cluster.submit(0, set_("b", "2"), stream=2)
    cluster.settle()
    commit = raft(cluster, 1).state.commit
    assert commit == 3
    cluster.deliver(old, again=True)
    assert raft(cluster, 1).state.commit == commit and terms(cluster, 1) == [1, 1, 1]


def test_a_command_at_a_follower_is_answered_there_once_though_it_is_forwarded_twice() -> None:
    cluster = led()
    waiter = cluster.submit(1, append("k", "x"))
    (forward,) = cluster.pick(Forward)
    cluster.deliver(forward, again=True)
    cluster.settle()
    assert waiter.replies == [b":1\r\n"]
    assert len({tuple(state) for state in cluster.states()}) == 1


def test_a_command_survives_the_leader_it_was_forwarded_to() -> None:
    cluster = led()
    waiter = cluster.submit(1, append("k", "x"))
    cluster.pass_on(Forward)
    cluster.crash(0)
    cluster.drop()
    silence(cluster)
    elected(cluster, 2)
    cluster.heal()
    assert waiter.replies == [b":1\r\n"]


def test_a_laggard_is_served_from_the_leaders_disk() -> None:
    cluster = led()
    for stream in range(5):
        cluster.submit(0, append("k", f"<{stream}>"), stream=stream)
        cluster.drop(target=2)
        cluster.settle()
    log = raft(cluster, 0).state.log
    assert not log._entries, "executed and durable: no entry is left in memory"
    cluster.heal()
    assert terms(cluster, 2) == terms(cluster, 0)
    assert len({tuple(state) for state in cluster.states()}) == 1
