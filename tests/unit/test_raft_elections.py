"""Elections by hand: timeouts, PreVote, votes on disk, CheckQuorum, stickiness, transfer. Bugs that others shipped."""

from __future__ import annotations

import pytest

from epaxos.messages import AppendEntries, AppendOK, RequestVote, TimeoutNow, Vote
from epaxos.protocols.interface import PeerDown
from epaxos.protocols.raft.elect import ELECTION
from epaxos.protocols.raft.protocol import TICK
from epaxos.protocols.raft.state import Role
from epaxos.testing.byhand import ByHand, get, set_
from tests.unit.raft_by_hand import elected, led, raft, role, with_logs


def timeouts_us(rtt_us: int, n: int = 5) -> list[int]:
    """When the election timers of fresh replicas are set that have measured this round trip, after their first one."""
    cluster = ByHand(n, protocol="raft")
    for i in range(n):
        cluster.measure(i, *(rtt_us for _ in range(n)))
        cluster.wake(i, ELECTION)
    return [
        {timer: at_us for at_us, timer in s.engine.timers()}[ELECTION] - cluster.clock_us(i)
        for i, s in enumerate(cluster.sites)
    ]


def test_timeouts_are_drawn_from_the_measured_round_trips() -> None:
    near, far = timeouts_us(100_000), timeouts_us(400_000)
    assert all(500_000 <= us <= 1_000_020 for us in near) and all(2_000_000 <= us <= 4_000_020 for us in far)
    assert len(set(near)) == len(near), "no two candidates wait equally long"


def test_one_replica_leads_itself() -> None:
    assert role(ByHand(1, protocol="raft"), 0) is Role.LEADER


def test_prevote_changes_neither_term_nor_vote() -> None:
    cluster = ByHand(3, protocol="raft")
    cluster.wake(0, ELECTION)
    cluster.pass_on(RequestVote)
    assert [raft(cluster, i).state.term for i in range(3)] == [0, 0, 0]
    assert all(vote.message.pre for vote in cluster.pick(Vote))


def test_a_replica_that_was_away_does_not_disturb_the_others() -> None:
    cluster = led()
    for _ in range(3):
        cluster.wake(2, ELECTION)
        cluster.drop()
    cluster.wake(2, ELECTION)
    assert raft(cluster, 2).state.term == 1, "it asked, and began no term"
    cluster.settle()
    assert role(cluster, 0) is Role.LEADER and [raft(cluster, i).state.term for i in range(3)] == [1, 1, 1]
    cluster.wake(0, TICK)
    cluster.settle()
    assert raft(cluster, 2).state.leader == 0


def test_a_leader_that_was_heard_is_not_voted_out_even_by_a_real_request() -> None:
    cluster = led()
    cluster.poke(2, lambda protocol: raft(cluster, 2).elect._campaign(pre=False))
    assert cluster.pass_on(RequestVote) == 2
    assert not cluster.pick(Vote) and role(cluster, 0) is Role.LEADER


def test_a_broken_link_to_the_leader_lets_a_majority_elect_another_at_once() -> None:
    cluster = led()
    cluster.crash(0)
    for i in (1, 2):
        cluster.turn(i, PeerDown(peer=0))
    elected(cluster, 1)
    assert raft(cluster, 1).state.term == 2


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    cluster = led()
    cluster.wait(3 * raft(cluster, 0).state.election_us())
    assert role(cluster, 0) is not Role.LEADER and "deposed" in cluster.events(0)


def test_a_vote_is_on_disk_before_it_is_answered_and_counts_when_it_is() -> None:
    cluster = ByHand(3, protocol="raft")
    cluster.hold_disk = {0, 1}
    cluster.wake(0, ELECTION)
    cluster.settle()
    assert role(cluster, 0) is Role.CANDIDATE and not cluster.pick(), "nobody is asked before term and vote are saved"
    cluster.sync(0)
    cluster.pass_on(RequestVote, target=1)
    cluster.drop()
    cluster.crash(1)
    cluster.hold_disk = {0}
    cluster.restart(1)
    assert raft(cluster, 1).state.term == 0, "it lost the vote, and had told nobody"


def test_the_own_vote_counts_when_the_disk_has_it() -> None:
    cluster = ByHand(2, protocol="raft")
    cluster.wake(0, ELECTION)
    cluster.pass_on(RequestVote)
    cluster.hold_disk = {0}
    cluster.pass_on(Vote)
    assert role(cluster, 0) is Role.CANDIDATE
    cluster.turn(0, *())
    assert not cluster.pick(AppendEntries)
    cluster.sync(0)
    cluster.settle()
    assert role(cluster, 0) is Role.LEADER


def test_a_repeated_vote_counts_once() -> None:
    cluster = ByHand(5, protocol="raft")
    cluster.wake(0, ELECTION)
    cluster.pass_on(RequestVote)
    cluster.pass_on(Vote)
    cluster.pass_on(RequestVote, target=1)
    cluster.drop(RequestVote)
    (vote,) = [flight for flight in cluster.pick(Vote) if not flight.message.pre]
    for _ in range(4):
        cluster.deliver(vote, again=True)
    assert role(cluster, 0) is Role.CANDIDATE, "one vote and the own are two of five"


def test_a_restarted_replica_does_not_vote_again_in_the_same_term() -> None:
    cluster = ByHand(3, protocol="raft")
    cluster.wake(0, ELECTION)
    cluster.pass_on(RequestVote, target=1)
    cluster.pass_on(Vote)
    cluster.pass_on(RequestVote, target=1)
    cluster.drop()
    assert raft(cluster, 1).state.vote == 0
    cluster.crash(1)
    cluster.restart(1)
    assert (raft(cluster, 1).state.term, raft(cluster, 1).state.vote) == (1, 0)
    cluster.drop()
    cluster.poke(2, lambda protocol: raft(cluster, 2).elect._campaign(pre=False))
    cluster.pass_on(RequestVote, target=1)
    assert [flight.message.granted for flight in cluster.pick(Vote, source=1)] == [False]


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [
        ([1, 1], [1], False),
        ([1, 1], [1, 1], True),
        ([1, 1], [1, 2], True),
        ([1, 1], [2], True),
        ([2], [1, 1, 1], False),
    ],
)
def test_nobody_votes_for_a_log_that_lacks_something(mine: list[int], theirs: list[int], granted: bool) -> None:
    cluster = with_logs({0: theirs, 1: mine, 2: mine}, 3, term=2)
    cluster.wake(0, ELECTION)
    cluster.settle()
    assert (role(cluster, 0) is Role.LEADER) is granted


def test_a_split_vote_ends_with_a_later_term() -> None:
    cluster = ByHand(4, protocol="raft")
    for i in (0, 1):
        cluster.wake(i, ELECTION)
    cluster.pass_on(RequestVote)
    cluster.pass_on(Vote)
    for source, target in ((0, 1), (0, 3), (1, 0), (1, 2)):
        cluster.drop(RequestVote, source, target)
    cluster.settle()
    assert [role(cluster, i) for i in (0, 1)] == [Role.CANDIDATE] * 2, "two votes of four each"
    cluster.heal()
    assert sum(role(cluster, i) is Role.LEADER for i in range(4)) == 1
    assert all(raft(cluster, i).state.term > 1 for i in range(4))


def test_leadership_is_handed_over_and_commands_of_that_time_are_answered() -> None:
    cluster = led()
    lead = raft(cluster, 0)
    held = cluster.submit(1, set_("k", "1"), stream=1)
    cluster.poke(0, lambda protocol: lead.transfer.start(2))
    late = cluster.submit(0, set_("k", "2"), stream=2)
    assert not late.replies and not lead.lead.accepting
    cluster.settle()
    assert role(cluster, 2) is Role.LEADER
    cluster.heal()
    assert held.replies == late.replies == [b"+OK\r\n"]
    assert not cluster.pick(TimeoutNow)


def test_a_read_at_a_deposed_leader_is_not_answered_with_what_used_to_be_true() -> None:
    cluster = led()
    assert cluster.submit(0, set_("k", "old"), stream=1).errors == []
    cluster.settle()
    for i in (1, 2):
        cluster.turn(i, PeerDown(peer=0))
    cluster.wake(1, ELECTION)
    for _ in range(20):
        cluster.drop(target=0)
        cluster.drop(source=0)
        cluster.pass_on()
    assert role(cluster, 1) is Role.LEADER and role(cluster, 0) is Role.LEADER, "the old one does not know yet"
    new = cluster.submit(1, set_("k", "new"), stream=2)
    cluster.drop(target=0)
    cluster.pass_on(AppendEntries, target=2)
    cluster.pass_on(AppendOK, source=2)
    assert new.replies == [b"+OK\r\n"]
    read = cluster.submit(0, get("k"), stream=3)
    assert read.replies == [], "it asks a majority first"
    cluster.heal()
    assert read.replies == [b"$3\r\nnew\r\n"]


def test_reads_of_a_follower_take_one_round_and_leave_no_entry() -> None:
    cluster = led()
    cluster.submit(1, set_("k", "v"))
    cluster.settle()
    last = raft(cluster, 0).state.log.last
    read = cluster.submit(2, get("k"))
    cluster.settle()
    assert read.replies == [b"$1\r\nv\r\n"] and raft(cluster, 0).state.log.last == last
