"""The graph executor, both twins: against the definition, against each other, and where naive ones break."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from epaxos.command import HEADER, NOP, READ, WHOLE, Batch
from epaxos.errors import ProtocolError
from epaxos.execution.interface import Group
from epaxos.execution.lanes import GAPS_MAX
from epaxos.ids import MAX_SLOT, InstanceId, zero
from epaxos.packing import barrier_run, footprint
from tests.unit.graphs import (
    A1,
    A2,
    B1,
    B2,
    C1,
    C2,
    NAME,
    SLOTS,
    TWINS,
    Scenario,
    arranged,
    batch,
    both,
    chain,
    component,
    id_at,
    read,
    run,
    scenario,
    some_batch,
    some_deps,
    some_touches,
    write,
)
from tests.unit.oracle import Oracle, order_of

# ----------------------------------------------------------------------------------------------- against the definition


def play(
    executor: Any, case: Scenario, call: list[tuple[str, InstanceId]], oracle: Oracle | None = None
) -> list[Group]:
    """One call of a scenario: first what is learned, then what is decided."""
    for kind, id_ in call:
        payload = case.payloads[id_]
        if kind == "learn":
            assert isinstance(payload, Batch)
            executor.learn(id_, payload)
            if oracle:
                oracle.learn(id_, payload)
        elif oracle:
            oracle.decide(*case.decision(id_))
    groups: list[Group] = executor.decide([case.decision(id_) for kind, id_ in call if kind == "decide"])
    return groups


def check(executor: Any, oracle: Oracle, groups: list[Group], rng: random.Random, keys: int) -> None:
    """Everything an executor says is what follows from what it was told."""
    executable = oracle.executable()
    assert {tuple(group) for group in groups} == oracle.groups()
    assert executor.waiting() == len(oracle.decided) - len(executable)
    assert {id_ for id_ in oracle.known.keys() | oracle.decided.keys() if id_ in executor.executed()} == executable
    assert executor.missing() == tuple(sorted(oracle.missing()))
    commands = run(*(some_touches(rng, keys) for _ in range(4)))
    assert executor.entangled(commands) == oracle.entangled(commands)
    order = tuple(rng.randrange(SLOTS + 2) for _ in range(oracle.n))
    some = some_batch(rng, keys)
    assert executor.reached(order, some) == oracle.reached(order, some)


@both
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_after_every_call_all_is_as_the_definition_says(twin: Any, seed: int) -> None:
    case, rng = scenario(seed), random.Random(seed)
    executor, oracle, groups = twin(case.n), Oracle(case.n), list[Group]()
    for call in case.calls:
        groups += play(executor, case, call, oracle)
        check(executor, oracle, groups, rng, case.keys)
    places = order_of(groups)
    group_of = {id_: at for at, group in enumerate(groups) for id_ in group}
    for id_ in places:
        assert all(group_of[other] <= group_of[id_] for other in oracle.edges(id_))


@pytest.mark.parametrize("seed", range(0, 300, 100))
def test_both_twins_return_the_same_groups_in_the_same_order(seed: int) -> None:
    for each in range(seed, seed + 100):
        case = scenario(each)
        executors = [twin(case.n) for twin in TWINS.values()]
        for call in case.calls:
            returned = [play(executor, case, call) for executor in executors]
            assert all(groups == returned[0] for groups in returned)
            assert len({executor.missing() for executor in executors}) == 1


@both
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), shuffles=st.lists(st.integers(0, 1 << 32), min_size=4, max_size=4))
def test_conflicting_ids_execute_in_one_order_however_they_arrive(twin: Any, seed: int, shuffles: list[int]) -> None:
    case = scenario(seed, whole=True)
    oracle = Oracle(case.n)
    for id_ in case.payloads:
        oracle.decide(*case.decision(id_))
    pairs, seen = list(oracle.conflicting_pairs()), set()
    for shuffle in shuffles:
        rng = random.Random(shuffle)
        events = [event for call in case.calls for event in call]
        rng.shuffle(events)
        executor = twin(case.n)
        places = order_of(group for event in events for group in play(executor, case, [event]))
        assert places.keys() == case.payloads.keys()
        seen.add(tuple(places[a] < places[b] for a, b in pairs))
        assert_nothing_left(executor, case.n)
    assert len(seen) == 1


@both
@pytest.mark.parametrize("seed", range(12))
def test_every_arrival_order_of_a_small_set_gives_the_same_order(twin: Any, seed: int) -> None:
    rng = random.Random(seed)
    ids = [A1, B1, C1, A2, B2]
    batches = {id_: some_batch(rng, 2) for id_ in ids}
    deps = some_deps(rng, 3, {id_: footprint(payload.data, HEADER.size) for id_, payload in batches.items()}, 0.2)
    deps = {id_: (min(a, 2), min(b, 2), min(c, 1)) for id_, (a, b, c) in deps.items()}
    oracle = Oracle(3)
    for id_ in ids:
        oracle.decide(id_, batches[id_], deps[id_])
    pairs, seen = list(oracle.conflicting_pairs()), set()
    for order in itertools.permutations(ids):
        executor = twin(3)
        places = order_of(group for id_ in order for group in executor.decide([(id_, batches[id_], deps[id_])]))
        assert len(places) == len(ids)
        seen.add(tuple(places[a] < places[b] for a, b in pairs))
    assert len(seen) == 1


def assert_nothing_left(executor: Any, n: int) -> None:
    """Nothing is known any more but what has executed."""
    assert executor.waiting() == 0
    assert executor.missing() == ()
    whole = batch(((0, WHOLE),))
    assert executor.entangled(whole.run) == b"\0"
    assert executor.reached(executor.executed().watermark, whole)
    assert executor.executed().beyond == frozenset()


# -------------------------------------------------------------------------------------------- scenarios from the design


@both
def test_s21_a_nop_in_the_middle_leaves_the_outer_ones_ordered(twin: Any) -> None:
    executor = twin(3)
    assert executor.decide([(C1, write(7), (1, 1, 0))]) == []
    assert executor.missing() == (A1, B1)
    assert executor.decide([(B1, NOP, zero(3))]) == [[B1]]
    assert executor.decide([(A1, write(7), zero(3))]) == [[A1], [C1]]


@both
@pytest.mark.parametrize("start", range(4))
def test_s22_every_start_gives_the_order_of_ids(twin: Any, start: int) -> None:
    a, b, c, d = ids = [id_at(lane, 1) for lane in range(4)]
    deps = {a: (0, 0, 1, 1), b: (1, 0, 1, 1), c: (0, 1, 0, 1), d: (1, 1, 1, 0)}
    order = ids[start:] + ids[:start]
    executor = twin(4)
    assert [executor.decide([(id_, write(7), deps[id_])]) for id_ in order] == [[], [], [], [[a, b, c, d]]]


@both
def test_s23_with_a_window_components_stay_small_and_all_executes(twin: Any) -> None:
    """Each new command enters the dependencies of the one before it, which is decided only then."""
    n, window, rounds = 3, 4, 50
    executor, groups = twin(n), list[Group]()
    submitted, executed = [0] * n, [0] * n
    open_: InstanceId | None = None
    for turn in itertools.cycle(range(n)):
        new = None
        if submitted[turn] < min(rounds, executed[turn] + window):
            submitted[turn] += 1
            new = id_at(turn, submitted[turn])
        if open_ is not None:
            deps = tuple(open_.slot - 1 if lane == open_.lane else slot for lane, slot in enumerate(submitted))
            groups += (ran := executor.decide([(open_, write(7), deps)]))
            for id_ in itertools.chain(*ran):
                executed[id_.lane] += 1
        open_ = new
        if min(executed) == rounds:
            break
    assert 1 < max(map(len, groups)) <= n * window
    assert len(order_of(groups)) == n * rounds


@both
def test_s39_what_ran_as_whole_groups_leaves_the_order_of_the_rest(twin: Any) -> None:
    x, y, z, later = A1, C1, B1, A2
    decisions = [
        (x, write(1, 3), (0, 1, 0)),
        (y, write(1, 2), (1, 0, 0)),
        (z, write(2, 3), (0, 0, 1)),
        (later, write(1), (1, 1, 1)),
    ]
    groups = twin(3).decide(decisions)
    assert groups == [[x, z, y], [later]]
    for cut in range(len(groups) + 1):
        executor = twin(3)
        executor.restore(id_ for group in groups[:cut] for id_ in group)
        assert executor.decide(decisions) == groups[cut:]


@both
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1 << 32), data=st.data())
def test_a_restart_between_groups_changes_no_order(twin: Any, seed: int, data: st.DataObject) -> None:
    case = scenario(seed, whole=True)
    decisions = [case.decision(id_) for id_ in sorted(case.payloads)]
    groups = twin(case.n).decide(decisions)
    cut = data.draw(st.integers(0, len(groups)))
    again = data.draw(st.permutations(decisions))
    executor = twin(case.n)
    executor.restore([id_ for group in groups[:cut] for id_ in group])
    rest = executor.decide(again)
    assert sorted(rest) == sorted(groups[cut:])
    oracle = Oracle(case.n)
    for decision in decisions:
        oracle.decide(*decision)
    before, after = order_of(groups), order_of(groups[:cut] + rest)
    assert all((before[a] < before[b]) == (after[a] < after[b]) for a, b in oracle.conflicting_pairs())


# -------------------------------------------------------------------------------------------------------------- waiting


@both
def test_a_known_id_that_does_not_conflict_is_not_waited_for(twin: Any) -> None:
    executor = twin(2)
    executor.learn(A1, write(1))
    assert executor.decide([(B1, write(2), (1, 0))]) == [[B1]]


@both
def test_what_learning_sets_free_comes_out_of_the_next_decide(twin: Any) -> None:
    executor = twin(2)
    assert executor.decide([(B1, write(2), (1, 0))]) == []
    assert executor.missing() == (A1,)
    executor.learn(A1, write(1))
    assert executor.missing() == ()
    assert executor.waiting() == 1
    assert executor.decide([]) == [[B1]]


@both
def test_an_unknown_id_that_turns_out_to_conflict_is_waited_for_by_name(twin: Any) -> None:
    executor = twin(2)
    assert executor.decide([(B1, write(2), (1, 0))]) == []
    executor.learn(A1, write(2))
    assert executor.missing() == (A1,)
    assert executor.decide([]) == []
    assert executor.decide([(A1, NOP, zero(2))]) == [[A1], [B1]]


@both
def test_everything_waited_for_directly_is_missing_at_once(twin: Any) -> None:
    executor = twin(3)
    executor.learn(A1, write(7))
    executor.learn(A2, write(8))
    executor.learn(id_at(0, 3), read(7))
    assert executor.decide([(B1, write(7), (4, 0, 2))]) == []
    assert executor.missing() == (A1, C1, C2, id_at(0, 3), id_at(0, 4))


@both
def test_only_the_lowest_gaps_of_a_lane_are_named_and_the_next_ones_follow(twin: Any) -> None:
    executor, far = twin(2), 3 * GAPS_MAX
    assert executor.decide([(B1, write(7), (far, 0))]) == []
    assert executor.missing() == tuple(id_at(0, slot) for slot in range(1, GAPS_MAX + 1))
    executor.decide([(id_at(0, slot), NOP, zero(2)) for slot in range(1, 11)])
    assert executor.missing() == tuple(id_at(0, slot) for slot in range(11, GAPS_MAX + 11))


@both
def test_a_cycle_that_waits_in_its_middle_is_not_stuck(twin: Any) -> None:
    """Both wait for the same unknown id, each parked through the other."""
    executor = twin(3)
    assert executor.decide([(A1, write(1), (0, 1, 0))]) == []
    assert executor.decide([(B1, write(1, 2), (1, 0, 1))]) == []
    executor.learn(C1, write(2))
    assert executor.decide([]) == []
    assert executor.decide([(C1, write(2), (0, 1, 0))]) == [[A1, B1, C1]]


@both
def test_a_component_met_again_in_the_same_walk_is_over(twin: Any) -> None:
    """The walk from A2 executes {A1, B1}, which saw each other on its stack; then C1 comes upon them once more."""
    decisions = [
        (A2, write(7), (1, 1, 1)),
        (C1, write(7), (1, 1, 0)),
        (A1, write(7), (0, 1, 0)),
        (B1, write(7), (1, 0, 0)),
    ]
    assert twin(3).decide(decisions) == [[A1, B1], [C1], [A2]]


@both
def test_reads_commute(twin: Any) -> None:
    executor = twin(3)
    executor.learn(A1, read(7))
    assert executor.decide([(B1, read(7), (1, 0, 0))]) == [[B1]]
    assert executor.decide([(C1, write(7), (1, 1, 0))]) == []
    assert executor.missing() == (A1,)
    assert executor.decide([(A1, read(7), zero(3))]) == [[A1], [C1]]


@both
@pytest.mark.parametrize(
    ("flags", "other", "conflict"),
    [
        (WHOLE, write(1), True),
        (WHOLE, read(1), True),
        (WHOLE | READ, write(1), True),
        (WHOLE | READ, read(1), False),
        (WHOLE | READ, batch(((0, WHOLE | READ),)), False),
        (WHOLE | READ, Batch.of(NAME, barrier_run()), True),
    ],
)
def test_what_touches_the_whole_state_meets_everything_both_ways(
    twin: Any, flags: int, other: Batch, conflict: bool
) -> None:
    whole = batch(((0, flags),))
    for first, second in ((whole, other), (other, whole)):
        executor = twin(2)
        executor.learn(A1, first)
        assert executor.entangled(second.run) == bytes([conflict])
        assert executor.reached((1, 0), second) is not conflict
        assert executor.decide([(B1, second, (1, 0))]) == ([] if conflict else [[B1]])
        assert executor.decide([(A1, first, zero(2))]) == ([[A1], [B1]] if conflict else [[A1]])
        assert_nothing_left(executor, 2)


@both
def test_a_repeated_decision_is_ignored(twin: Any) -> None:
    executor = twin(2)
    assert executor.decide([(B1, write(7), (1, 0)), (B1, write(7), (1, 0))]) == []
    assert executor.decide([(B1, write(7), (1, 0))]) == []
    assert executor.waiting() == 1
    assert executor.decide([(A1, write(7), zero(2))]) == [[A1], [B1]]
    executor.learn(A1, write(7))
    assert executor.decide([(A1, write(7), zero(2)), (B1, write(7), (1, 0))]) == []
    assert_nothing_left(executor, 2)


@both
def test_the_executed_set_is_a_watermark_and_a_tail(twin: Any) -> None:
    executor = twin(2)
    executor.decide([(A2, write(1), zero(2)), (B1, write(2), zero(2)), (id_at(0, 4), NOP, zero(2))])
    assert executor.executed().watermark == (0, 1)
    assert executor.executed().beyond == {A2, id_at(0, 4)}
    executor.decide([(A1, write(1), zero(2))])
    assert executor.executed().watermark == (2, 1)
    assert executor.executed().beyond == {id_at(0, 4)}


@both
def test_entangled_is_one_byte_a_command(twin: Any) -> None:
    executor = twin(2)
    executor.learn(A1, batch(((1, 0),), ((2, READ), (3, 0))))
    commands = run(((1, READ),), ((9, 0),), ((2, READ),), ((2, 0),), ((9, 0), (3, READ)), ((0, WHOLE | READ),))
    assert executor.entangled(commands) == bytes([1, 0, 0, 1, 1, 1])


@both
def test_a_key_named_twice_in_a_batch_counts_as_written_if_either_writes(twin: Any) -> None:
    executor = twin(2)
    twice = batch(((5, READ),), ((5, 0),), ((5, READ),))
    executor.learn(A1, read(5))
    executor.learn(A2, twice)
    assert executor.entangled(run(((5, READ),))) == b"\1"
    assert executor.decide([(A1, read(5), zero(2))]) == [[A1]]
    assert executor.decide([(A2, twice, (1, 0))]) == [[A2]]
    assert_nothing_left(executor, 2)


# -------------------------------------------------------------------------------------------------------- what is wrong


@both
@pytest.mark.parametrize("order", [(0,), (0, 0, 0), (0, -1), (0, MAX_SLOT + 1), (0, 1 << 64), 1, ()])
def test_an_order_that_is_no_vector_is_refused_before_anything_is_taken(twin: Any, order: Any) -> None:
    executor = twin(2)
    with pytest.raises(ValueError, match="no vector of 2"):
        executor.decide([(A1, write(7), zero(2)), (B1, write(7), order)])
    with pytest.raises(ValueError, match="no vector of 2"):
        executor.decide([(A1, NOP, order)])
    with pytest.raises(ValueError, match="no vector of 2"):
        executor.reached(order, write(7))
    assert executor.decide([(A1, write(7), zero(2))]) == [[A1]]


@both
@pytest.mark.parametrize("id_", [id_at(2, 1), id_at(-1, 1), id_at(0, 0), id_at(0, 1 << 64), InstanceId(1, 1, 0)])
def test_an_id_without_a_place_is_refused(twin: Any, id_: InstanceId) -> None:
    executor = twin(2)
    executor.learn(B1, write(7))
    with pytest.raises(ValueError, match=r"no place|not of epoch 0"):
        executor.learn(id_, write(7))
    with pytest.raises(ValueError, match=r"no place|not of epoch 0"):
        executor.decide([(id_, NOP, zero(2))])


@both
def test_ids_of_any_one_epoch_are_taken(twin: Any) -> None:
    executor = twin(2)
    first, second = InstanceId(3, 1, 0), InstanceId(3, 1, 1)
    assert executor.decide([(second, write(7), (1, 0))]) == []
    assert executor.missing() == (first,)
    assert executor.decide([(first, write(7), zero(2))]) == [[first], [second]]


@both
def test_nothing_is_restored_after_the_first_decision(twin: Any) -> None:
    executor = twin(2)
    executor.restore([A1, A1])
    executor.decide([])
    with pytest.raises(ValueError, match="after the first decision"):
        executor.restore([A2])


@both
def test_bytes_that_are_no_run_are_refused(twin: Any) -> None:
    executor = twin(2)
    cut = run(((1, 0),), ((2, 0),))[:-1]
    with pytest.raises(ProtocolError):
        executor.entangled(cut)
    with pytest.raises(ProtocolError):
        executor.learn(A1, Batch.of(NAME, cut))


@both
def test_an_executor_has_at_least_one_lane(twin: Any) -> None:
    with pytest.raises(ValueError, match="0 lanes"):
        twin(0)


# --------------------------------------------------------------------------------------------------------- large graphs


def run_chain(twin: Any, kind: str, length: int, n: int, arrival: str, learned: bool) -> None:
    decisions = chain(kind, length, n)
    executor, groups = twin(n), list[Group]()
    if learned:
        for id_, payload, _ in decisions:
            executor.learn(id_, payload)
    for decision in arranged(arrival, decisions):
        groups += executor.decide([decision])
    assert groups == [[id_] for id_, _, _ in decisions]
    assert_nothing_left(executor, n)


ARRIVALS = ["forward", "backward", "shuffled"]
LONG = 100_000
"""Deeper than any recursion, and so long that work which grows with the square of the length does not end."""


@pytest.mark.parametrize("learned", [False, True], ids=["unknown before", "learned before"])
@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("kind", ["hot", "links"])
@pytest.mark.parametrize("n", [1, 5])
@both
def test_a_chain_executes_in_order_however_it_arrives(
    twin: Any, n: int, kind: str, arrival: str, learned: bool
) -> None:
    run_chain(twin, kind, 3_000, n, arrival, learned)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hot", "links"])
@both
def test_a_long_chain_executes_in_order(twin: Any, kind: str) -> None:
    """Backward: the last id to arrive sets all of them free, in one walk."""
    run_chain(twin, kind, LONG, 5, "backward", learned=False)


def run_component(twin: Any, kind: str, size: int, arrival: str) -> None:
    decisions = component(kind, size, 5)
    executor, groups = twin(5), list[Group]()
    for decision in arranged(arrival, decisions):
        groups += executor.decide([decision])
    assert groups == [[id_ for id_, _, _ in decisions]]
    assert_nothing_left(executor, 5)


@both
@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("kind", ["hot", "ring"])
def test_a_component_is_one_group_however_it_arrives(twin: Any, kind: str, arrival: str) -> None:
    run_component(twin, kind, 2_000, arrival)


@pytest.mark.slow
@both
@pytest.mark.parametrize("kind", ["hot", "ring"])
def test_a_component_of_20_000_ids_is_one_group(twin: Any, kind: str) -> None:
    run_component(twin, kind, 20_000, "shuffled")


@both
def test_ids_of_many_keys_come_and_go(twin: Any) -> None:
    """The keys of a blocked batch are known, and forgotten once it has executed."""
    executor, many = twin(2), 5_000
    big = batch(*(((key, 0),) for key in range(many)))
    executor.learn(A1, big)
    assert executor.decide([(B1, write(many + 1), (1, 0))]) == [[B1]]
    assert executor.entangled(big.run) == bytes([1]) * many
    assert executor.decide([(B2, big, (1, 1))]) == []
    assert executor.missing() == (A1,)
    assert executor.decide([(A1, big, zero(2))]) == [[A1], [B2]]
    assert executor.entangled(big.run) == bytes(many)
    assert_nothing_left(executor, 2)
