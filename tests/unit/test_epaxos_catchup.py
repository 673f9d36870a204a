"""Catching up: in ranges, from the lowest gap upwards, at a bounded rate, and from others when nobody answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epaxos.errors import Rejected
from epaxos.ids import MAX_SLOT, InstanceId, Lane, ReplicaId
from epaxos.messages import Commit, CommitQuery, PreAccept, PreAcceptOK, SlotRange
from epaxos.protocols.epaxos.catchup import ANSWER_BYTES_MAX, FLOWING_US, STEP_IDS, STEP_US, UNDER_WAY_MIN, Ask, CatchUp
from epaxos.protocols.epaxos.lead import HOLD_US
from epaxos.protocols.epaxos.query import ANSWER_AGAIN_US, SWEEPS_TO_OPEN_END
from epaxos.protocols.interface import Now, PeerDown, PeerUp, Receive
from epaxos.testing.byhand import RETRY_US, ByHand, set_

MISSED = 5 * STEP_IDS


def behind() -> ByHand:
    """Replica 2 was away while replica 0 took so many commands; it has been told how far the others are."""
    cluster = ByHand(3)
    cluster.crash(2)
    for number in range(MISSED):
        cluster.submit(0, set_(f"k{number}", "v"), stream=number)
        cluster.settle()
    cluster.restart(2)
    for _ in range(2):
        cluster.settle()
    return cluster


def questions(cluster: ByHand) -> list[SlotRange]:
    """What replica 2 asks about lane 0 below what it has heard of."""
    asked = [r for flight in cluster.pick(CommitQuery, source=2) for r in flight.message.ranges]
    return [r for r in asked if r.lane == 0 and r.last != MAX_SLOT]


def counting(asked: list[int]) -> Ask:
    """Replica 0 is asked; how many ids at a time comes into `asked`."""

    def ask(lane: Lane, vain: int, ranges: list[SlotRange]) -> ReplicaId:
        asked.append(sum(r.last + 1 - r.first for r in ranges))
        return 0

    return ask


def arrives(catching_up: CatchUp, slot: int, size_bytes: int) -> None:
    """A decision of lane 0, from replica 0."""
    id_ = InstanceId(0, slot, 0)
    catching_up.state.decided.add(id_)
    catching_up.answered(0, id_)
    catching_up.learned(id_, size_bytes)


def test_a_link_that_comes_up_tells_how_far_the_others_are() -> None:
    cluster = behind()
    status = cluster.sites[2].protocol.status()
    assert status["known"][0] == MISSED
    assert status["catching_up"] == {"missing": MISSED - STEP_IDS - 1, "per_s": 0}


def test_what_was_missed_is_asked_for_step_by_step_and_nothing_waits_for_an_answer() -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    steps = []
    for _ in range(4):
        steps += questions(cluster)
        cluster.drop()
        cluster.wait(STEP_US)
    assert [(r.first, r.last) for r in steps[:3]] == [(1 + n * STEP_IDS, (n + 1) * STEP_IDS) for n in range(1, 4)]


def test_each_answer_is_short() -> None:
    cluster = behind()
    cluster.drop()
    cluster.turn(0, Receive(peer=2, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, MISSED),))))
    assert len(cluster.pick(Commit, source=0)) == STEP_IDS


def test_only_so_much_is_asked_for_ahead_of_what_arrives() -> None:
    cluster = ByHand(3)
    state = cluster.sites[2].protocol.state
    asked: list[int] = []
    catching_up = CatchUp(state, counting(asked))
    state.highest[0] = 100 * STEP_IDS
    for _ in range(50):
        catching_up.learned(InstanceId(0, 1, 1), 100)
    catching_up.begin(0, 100 * STEP_IDS)
    for _ in range(100):
        catching_up.step()
    assert sum(asked) == UNDER_WAY_MIN
    for slot in range(1, 11):
        arrives(catching_up, slot, 100)
    catching_up.step()
    assert sum(asked) == UNDER_WAY_MIN + 10


def test_whoever_learns_fast_asks_for_more_ahead() -> None:
    cluster = ByHand(3)
    state = cluster.sites[2].protocol.state
    asked: list[int] = []
    catching_up = CatchUp(state, counting(asked))
    state.highest[0] = 100 * STEP_IDS
    for _ in range(50):
        catching_up.learned(InstanceId(0, 1, 1), 100)
    catching_up.begin(0, 100 * STEP_IDS)
    told = 0
    for _ in range(60):
        state.now = Now(state.now.mono_us + STEP_US, 0)
        for slot in range(told + 1, sum(asked) + 1):
            arrives(catching_up, slot, 100)
        told = sum(asked)
        catching_up.step()
    for _ in range(100):
        catching_up.step()
    assert sum(asked) - told > UNDER_WAY_MIN


def test_no_more_is_asked_for_at_a_time_than_an_answer_holds() -> None:
    cluster = ByHand(3)
    state = cluster.sites[2].protocol.state
    asked: list[int] = []
    catching_up = CatchUp(state, counting(asked))
    state.highest[0] = 100 * STEP_IDS
    for _ in range(50):
        catching_up.learned(InstanceId(0, 1, 1), 100)
    catching_up.begin(0, 100 * STEP_IDS)
    arrives(catching_up, 1, ANSWER_BYTES_MAX // 3)
    catching_up.step()
    assert asked == [STEP_IDS, 2]


def test_an_answer_that_may_be_under_way_is_not_given_again() -> None:
    """On a link slower than its load, copies would only gather in the queue."""
    cluster = behind()
    cluster.turn(0, PeerUp(peer=2))
    cluster.drop()
    given = []
    for _ in range(40):
        cluster.turn(0, Receive(peer=2, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, STEP_IDS),))))
        given.append(cluster.drop(Commit, source=0))
        cluster.wait(ANSWER_AGAIN_US // 2)
        cluster.drop()
    assert given[0] == STEP_IDS and given[1] == 0
    assert sum(map(bool, given)) == 5, "after a second, and then after two, four and eight"
    cluster.turn(0, PeerUp(peer=2), Receive(peer=2, message=CommitQuery(epoch=0, ranges=(SlotRange(0, 1, STEP_IDS),))))
    assert len(cluster.pick(Commit, source=0)) == STEP_IDS, "what was under way on the old link may be lost"


def test_it_ends_and_everything_is_there() -> None:
    cluster = behind()
    cluster.heal(2_000_000)
    assert cluster.sites[2].engine.executor.executed() == cluster.sites[0].engine.executor.executed()
    assert cluster.sites[2].protocol.status()["catching_up"]["missing"] == 0


def test_people_are_shown_how_fast_it_goes() -> None:
    cluster = behind()
    learned = []
    for _ in range(40):
        cluster.wait(RETRY_US)
        cluster.settle()
        learned.append(cluster.sites[2].protocol.status()["catching_up"]["per_s"])
    assert max(learned) >= MISSED // 4 and learned[-1] == 0


def test_whoever_does_not_answer_is_not_asked_for_ever() -> None:
    cluster = behind()
    targets = set()
    for _ in range(4 * FLOWING_US // RETRY_US):
        cluster.wait(RETRY_US)
        targets |= {f.target for f in cluster.pick(CommitQuery, source=2) if f.message.ranges[0].last != MAX_SLOT}
        cluster.drop()
    assert targets == {0, 1}


def test_whoever_is_far_behind_leads_nothing_new_until_it_has_caught_up() -> None:
    """His commands would hold up everybody who writes the same key, while he has old decisions to take."""
    cluster = behind()
    cluster.wait(2 * RETRY_US)
    late, patient = cluster.submit(2, set_("k", "x"), timeout_us=RETRY_US), cluster.submit(2, set_("k", "y"))
    assert not cluster.pick(PreAccept, source=2)
    cluster.wait(RETRY_US)
    (error,) = late.errors
    assert isinstance(error, Rejected), "certainly not applied"
    cluster.heal(2_000_000)
    assert patient.replies == [b"+OK\r\n"] and late.replies == []


def test_whoever_is_behind_votes_as_ever() -> None:
    cluster = behind()
    cluster.wait(2 * RETRY_US)
    cluster.drop()
    cluster.submit(0, set_("other", "x"))
    cluster.pass_on(PreAccept, target=2)
    assert cluster.pick(PreAcceptOK, source=2)


def test_who_returns_leads_nothing_before_somebody_who_can_answer_has_told_how_far_the_others_are() -> None:
    cluster = ByHand(3)
    cluster.submit(0, set_("k", "x"))
    cluster.settle()
    cluster.crash(2)
    cluster.restart(2)
    waiter = cluster.submit(2, set_("other", "y"))
    assert not cluster.pick(PreAccept, source=2)
    cluster.pass_on(CommitQuery, source=0, target=2)
    assert cluster.pick(PreAccept, source=2)
    cluster.settle()
    assert waiter.replies == [b"+OK\r\n"]


def test_the_first_question_tells_how_far_the_lane_of_its_sender_goes() -> None:
    cluster = ByHand(3)
    cluster.crash(2)
    for number in range(MISSED):
        cluster.submit(0, set_(f"k{number}", "v"), stream=number)
        cluster.settle()
    cluster.drop()
    cluster.restart(2)
    cluster.submit(2, set_("other", "y"))
    cluster.pass_on(CommitQuery, source=0, target=2)
    assert not cluster.pick(PreAccept, source=2), "it lacks all that replica 0 has led"


def test_nobody_is_held_up_for_ever() -> None:
    cluster = ByHand(3)
    cluster.sites[2].protocol.query.catching_up.is_behind = lambda: True
    cluster.wait(SWEEPS_TO_OPEN_END * RETRY_US)
    waiter = cluster.submit(2, set_("k", "x"))
    cluster.heal(HOLD_US - 2 * RETRY_US)
    assert waiter.replies == []
    cluster.heal(2 * SWEEPS_TO_OPEN_END * RETRY_US)
    assert waiter.replies == [b"+OK\r\n"]


def test_what_has_its_turn_is_not_asked_for_in_another_way() -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    query = cluster.sites[2].protocol.query
    last = InstanceId(0, MISSED - 1, 0)
    assert query.catching_up.has_its_turn(last)
    assert query.need([last]) == []


def test_what_an_answer_has_overtaken_is_asked_for_in_another_way() -> None:
    """A link keeps their order, so what is not there by now was lost, or the one that was asked did not know it."""
    cluster = behind()
    cluster.wait(RETRY_US)
    protocol = cluster.sites[2].protocol
    first = protocol.state.decided.low[0] + 1
    cluster.pass_on(CommitQuery, source=2, target=0)
    lost, *come, behind_it = (flight.message for flight in cluster.pick(Commit, source=0))
    cluster.drop(Commit, source=0)
    assert lost.id.slot == first
    for message in come:
        cluster.turn(2, Receive(peer=0, message=message))
    assert protocol.query.catching_up.has_its_turn(behind_it.id)
    assert not protocol.query.catching_up.has_its_turn(lost.id)


def test_answers_that_somebody_else_was_faster_with_are_answers() -> None:
    """What is behind them on that link is still on its way: it is neither asked for in another way nor recovered."""
    cluster = behind()
    cluster.wait(RETRY_US)
    query = cluster.sites[2].protocol.query
    cluster.pass_on(CommitQuery, source=2, target=0)
    *come, behind_them = (flight.message for flight in cluster.pick(Commit, source=0))
    cluster.drop(Commit, source=0)
    for message in come:
        cluster.turn(2, Receive(peer=1, message=message))
    for message in come:
        assert not query.catching_up.is_silent(0)
        cluster.now_us += FLOWING_US - 1
        cluster.turn(2, Receive(peer=0, message=message))
        assert query.catching_up.has_its_turn(behind_them.id)


ALL_LANES = CommitQuery(epoch=0, ranges=(SlotRange(1, 1, MAX_SLOT), SlotRange(2, 1, MAX_SLOT)), fresh=True)
"""What a replica asks whose link has come up."""


@pytest.mark.parametrize(
    ("event", "target"),
    [(PeerDown(peer=0), 1), (PeerUp(peer=0), 0), (Receive(peer=0, message=ALL_LANES), 0)],
    ids=["the link is down", "up again", "up again at the other end only"],
)
def test_what_was_asked_on_a_link_that_broke_is_asked_for_again_at_once(
    event: PeerDown | PeerUp | Receive, target: int
) -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    asked = questions(cluster)[0]
    cluster.pass_on(CommitQuery, source=2, target=0)
    cluster.turn(2, Receive(peer=0, message=cluster.pick(Commit, source=0)[0].message))
    cluster.drop()
    cluster.turn(2, event)
    cluster.wait(STEP_US)
    assert questions(cluster)[0].first == asked.first + 1
    assert {flight.target for flight in cluster.pick(CommitQuery, source=2)} == {target}


def test_a_question_about_all_lanes_is_not_taken_for_a_new_link() -> None:
    """With two replicas, or one of three suspected, every question beyond what was heard of is about all the lanes."""
    cluster = behind()
    cluster.wait(RETRY_US)
    cluster.drop()
    cluster.turn(2, Receive(peer=0, message=replace(ALL_LANES, fresh=False)))
    cluster.wait(STEP_US)
    assert questions(cluster) == [], "all that is missing was asked for a moment ago"


def test_answers_that_stay_away_are_asked_for_again_however_often_the_gap_was_asked_about() -> None:
    cluster = behind()
    cluster.wait(RETRY_US)
    query = cluster.sites[2].protocol.query
    cluster.pass_on(CommitQuery, source=2, target=0)
    cluster.turn(2, Receive(peer=0, message=cluster.pick(Commit, source=0)[0].message))
    cluster.wait(FLOWING_US // 2)
    cluster.drop()
    query._swept[0] = (cluster.sites[2].protocol.state.decided.low[0], 0, 1_000)
    cluster.wait(FLOWING_US // 4)
    assert not questions(cluster)
    cluster.wait(FLOWING_US // 2)
    assert questions(cluster)


def test_a_link_that_only_flapped_costs_a_few_messages() -> None:
    cluster = ByHand(3)
    for number in range(MISSED):
        cluster.submit(0, set_(f"k{number}", "v"), stream=number)
        cluster.settle()
    cluster.turn(2, PeerUp(peer=0))
    cluster.settle()
    cluster.wait(2 * RETRY_US)
    assert questions(cluster) == []
