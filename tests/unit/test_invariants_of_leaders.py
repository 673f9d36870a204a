"""Each invariant of a protocol with a leader says No to a run that breaks it, and nothing to one that does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from epaxos.command import NOP, Payload
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import AppendEntries, Message, RequestVote, Vote
from epaxos.protocols.interface import Frontier
from epaxos.testing.invariants import Watch
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.record import Call, Form, Life, Part, Record, Violation

A, B, C, A2, B2 = Life(0, 1), Life(1, 1), Life(2, 1), Life(0, 2), Life(1, 2)
ALL_BUT = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
Sent = tuple[Life, tuple[ReplicaId, ...], Message]


def asks(life: Life, term: int, *, pre: bool = False, transfer: bool = False) -> Sent:
    ask = RequestVote(term=term, last_index=0, last_term=0, pre=pre, transfer=transfer)
    return life, ALL_BUT[life.replica], ask


def votes(life: Life, candidate: ReplicaId, term: int, *, pre: bool = False) -> Sent:
    return life, (candidate,), Vote(term=term, granted=True, pre=pre)


def elected(life: Life, voter: Life, term: int) -> list[Sent]:
    who = life.replica
    return [votes(voter, who, term, pre=True), asks(life, term), votes(voter, who, term)]


def appends(life: Life, term: int, index: int, entry_term: int, *, prev_term: int = 0, commit: int = 0) -> Sent:
    """The entry at `index`; with `entry_term` 0, a heartbeat behind `index - 1`."""
    payload: Payload | None = NOP if entry_term else None
    message = AppendEntries(
        term=term,
        prev_index=index - 1,
        prev_term=prev_term,
        entry_term=entry_term,
        payload=payload,
        commit=commit,
        round=1,
    )
    return life, ALL_BUT[life.replica], message


def watch() -> Watch:
    return Watch(Record(KvModel(), (b"k",)))


def tell(watching: Watch, sent: Sequence[Sent]) -> None:
    for life, peers, message in sent:
        watching.sends(life, peers, message)


TWO_TERMS = [*elected(A, B, 1), appends(A, 1, 1, 1), *elected(C, B, 2)]


def test_elections_and_entries_as_they_should_be() -> None:
    tell(watch(), [*TWO_TERMS, appends(C, 2, 2, 2, prev_term=1), appends(C, 2, 3, 0, prev_term=2, commit=2)])
    tell(watch(), [*elected(A, B, 1), appends(A, 1, 1, 1), asks(B, 2, transfer=True)])


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("one_leader", [*elected(A, B, 1), appends(A, 1, 1, 1), appends(A2, 1, 1, 0)]),
        ("one_vote", [votes(B, 0, 1), votes(B2, 2, 1)]),
        ("one_vote", [*elected(A, B, 1), votes(A2, 2, 1)]),
        ("one_vote", [votes(B, 0, 1, pre=True), asks(A, 1), appends(A, 1, 1, 1)]),
        ("elections", [asks(A, 1, pre=True), asks(A, 1)]),
        ("log_matching", [*TWO_TERMS, appends(C, 2, 2, 2, prev_term=1), appends(C, 2, 2, 2, prev_term=0)]),
        (
            "leader_completeness",
            [*elected(A, B, 1), appends(A, 1, 1, 1), appends(A, 1, 2, 0, prev_term=1, commit=1)]
            + [*elected(C, B, 2), appends(C, 2, 1, 2)],
        ),
    ],
)
def test_what_leaders_and_voters_say_is_judged(name: str, sent: list[Sent]) -> None:
    with pytest.raises(Violation) as caught:
        tell(watch(), sent)
    assert caught.value.invariant == name


def decide(watching: Watch, life: Life, index: int) -> None:
    for hook in watching.decided:
        hook(life, InstanceId(0, index, 0), NOP, index)


def test_an_old_entry_is_committed_only_by_one_of_the_leaders_own_term() -> None:
    begun = [*TWO_TERMS, appends(C, 2, 1, 1), appends(C, 2, 2, 2, prev_term=1)]
    good = watch()
    tell(good, begun)
    for index in (1, 2):
        decide(good, C, index)
    tell(good, [appends(C, 2, 3, 0, prev_term=2, commit=2)])
    bad = watch()
    tell(bad, begun)
    decide(bad, C, 1)
    with pytest.raises(Violation, match=r"own_term.*commits entry 1, which is of term 1, in term 2"):
        tell(bad, [appends(C, 2, 3, 0, prev_term=2, commit=1)])


@pytest.mark.parametrize(("executed", "stale"), [(2, False), (1, True)])
def test_a_read_sees_what_was_decided_before_it_was_asked(executed: int, stale: bool) -> None:
    watching = watch()
    for index in (1, 2):
        decide(watching, A, index)
    call = Call(0, B, 1, Form((), "get", (Part(b"k", "get"),), pure=True), invoked=1)
    for hook in watching.asked:
        hook(call)
    decide(watching, A, 3)
    reached = Frontier((executed, 0, 0), frozenset())
    if stale:
        with pytest.raises(Violation, match="fresh_reads"):
            [hook(call, reached) for hook in watching.replied]
    else:
        assert [hook(call, reached) for hook in watching.replied] == [None]
