"""The conflict index, both twins, against a list of everything that was registered (protocol.md 2.5, 2.6)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest
from hypothesis import given, strategies as st

from epaxos.command import ENTRY, READ, RUN_HEADER, WHOLE, Batch
from epaxos.errors import ProtocolError
from epaxos.ids import MAX_SLOT, BatchNumber, InstanceId, Vector, join
from epaxos.packing import barrier_run, footprint
from epaxos.protocols.epaxos.deps import NO_LANE, PyConflictIndex

N = 3
A, B, C = 11, 22, (1 << 64) - 1
NAME = BatchNumber(0, 1, 1)

TWINS = [pytest.param(PyConflictIndex, id="pure")]
if importlib.util.find_spec("epaxos._ext.conflicts"):
    TWINS.append(pytest.param(importlib.import_module("epaxos._ext.conflicts").ConflictIndex, id="compiled"))
both = pytest.mark.parametrize("index_class", TWINS)

REGISTERING: list[tuple[str, tuple[Vector, ...]]] = [("lead", ()), ("register", ()), ("preaccept", ((0, 0, 0),))]
"""The methods that register a batch, with what they take behind it."""

Row = tuple[int, int]
"""(key hash, flags) of one entry."""


def touching(*rows: Row) -> Batch:
    """A batch of commands of one entry each."""
    table = [ENTRY.pack(key_hash, 0, 0, 1, flags) for key_hash, flags in rows]
    return Batch.of(NAME, RUN_HEADER.pack(len(rows), 0) + b"".join(table))


def writes(*hashes: int) -> Batch:
    return touching(*((key_hash, 0) for key_hash in hashes))


def reads(*hashes: int) -> Batch:
    return touching(*((key_hash, READ) for key_hash in hashes))


def at(lane: int, slot: int) -> InstanceId:
    return InstanceId(0, slot, lane)


class Registered:
    """The definition: remember every id, and compare footprints."""

    def __init__(self) -> None:
        self.all: list[tuple[InstanceId, Batch]] = []

    def conflicts(self, batch: Batch, skip_lane: int = NO_LANE) -> Vector:
        mine = footprint(batch.run)
        slots = [[0] for _ in range(N)]
        for id_, other in self.all:
            if id_.lane != skip_lane and mine.conflicts(footprint(other.run)):
                slots[id_.lane].append(id_.slot)
        return tuple(map(max, slots))

    def top(self, lane: int) -> int:
        return max((id_.slot for id_, _ in self.all if id_.lane == lane), default=0)


ROWS = st.tuples(st.sampled_from([0, 1, A, B, C]), st.sampled_from([0, 0, READ, READ, READ, WHOLE | READ, WHOLE]))
BATCHES = st.lists(ROWS, min_size=1, max_size=4).map(lambda rows: touching(*rows))
LANES = st.integers(0, N - 1)
VECTORS = st.tuples(*(st.integers(0, 40) for _ in range(N)))
KINDS = st.sampled_from(["lead", "preaccept", "register", "conflicts"])
STEPS = st.lists(st.tuples(KINDS, LANES, st.integers(1, 30), BATCHES, VECTORS), max_size=12)


@both
@given(steps=STEPS)
def test_every_answer_is_that_of_the_definition(
    index_class: Any, steps: list[tuple[str, int, int, Batch, Vector]]
) -> None:
    index, known = index_class(N), Registered()
    for kind, lane, slot, batch, vector in steps:
        id_ = at(lane, known.top(lane) + slot if kind == "lead" else slot)
        if kind == "lead":
            assert index.lead(id_, batch) == known.conflicts(batch)
        elif kind == "preaccept":
            assert index.preaccept(id_, batch, vector) == join(vector, known.conflicts(batch, lane))
        elif kind == "register":
            index.register(id_, batch)
        else:
            assert index.conflicts(batch, lane) == known.conflicts(batch, lane)
            assert index.conflicts(batch) == known.conflicts(batch)
            continue
        known.all.append((id_, batch))
    keys = [footprint(batch.run) for _, batch in known.all]
    assert len(index) == len(frozenset().union(*(one.reads | one.writes for one in keys)))


@both
def test_a_read_takes_the_writes_and_a_write_takes_both(index_class: Any) -> None:
    index = index_class(N)
    index.register(at(0, 5), writes(A))
    index.register(at(1, 6), reads(A))
    index.register(at(2, 7), writes(B))
    assert index.conflicts(reads(A)) == (5, 0, 0)
    assert index.conflicts(writes(A)) == (5, 6, 0)
    assert index.conflicts(writes(A, B)) == (5, 6, 7)
    assert index.conflicts(writes(C)) == (0, 0, 0)


@both
def test_what_touches_the_whole_state_conflicts_with_everything(index_class: Any) -> None:
    index = index_class(N)
    index.register(at(0, 1), reads(A))
    index.register(at(1, 2), writes(B))
    barrier = Batch.of(NAME, barrier_run())
    assert index.conflicts(barrier) == (1, 2, 0)
    assert index.conflicts(touching((0, WHOLE | READ))) == (0, 2, 0)
    index.register(at(2, 3), touching((0, WHOLE | READ)))
    assert index.conflicts(reads(C)) == (0, 0, 0)
    assert index.conflicts(writes(C)) == (0, 0, 3)
    index.register(at(2, 4), barrier)
    assert index.conflicts(reads(C)) == (0, 0, 4)
    assert index.conflicts(touching((0, WHOLE | READ))) == (0, 2, 4)
    assert len(index) == 2


@both
@pytest.mark.parametrize("rows", [[(A, 0), (A, 0)], [(A, READ), (A, 0)], [(A, 0), (A, READ)], [(A, 0), (0, WHOLE)]])
def test_a_batch_that_names_a_key_twice_does_not_depend_on_itself(index_class: Any, rows: list[Row]) -> None:
    index = index_class(N)
    index.register(at(0, 1), reads(A))
    index.register(at(1, 9), reads(A))
    assert index.lead(at(0, 2), touching(*rows)) == (1, 9, 0)
    assert index.preaccept(at(1, 7), touching(*rows), (0, 3, 0)) == (2, 3, 0)


@both
def test_the_own_lane_is_the_coordinators_word(index_class: Any) -> None:
    """Lane rule, protocol.md 2.6: a reordered (1, 7), (1, 5) gives (1, 5) no dependency on (1, 7)."""
    index = index_class(N)
    assert index.preaccept(at(1, 7), writes(A), (0, 5, 0)) == (0, 5, 0)
    assert index.preaccept(at(1, 5), writes(A), (0, 2, 0)) == (0, 2, 0)
    assert index.preaccept(at(0, 1), writes(A), (0, 0, 0)) == (0, 7, 0)


@both
def test_leading_out_of_order_is_refused_and_changes_nothing(index_class: Any) -> None:
    index = index_class(N)
    index.register(at(0, 5), reads(A))
    for slot in (4, 5):
        with pytest.raises(ValueError, match="not above"):
            index.lead(at(0, slot), writes(B))
    assert len(index) == 1
    assert index.lead(at(0, 6), writes(A)) == (5, 0, 0)


@both
def test_registration_is_idempotent_and_takes_any_order(index_class: Any) -> None:
    index = index_class(N)
    for slot in (8, 3, 8, 5):
        index.register(at(2, slot), writes(A))
    assert index.conflicts(reads(A)) == (0, 0, 8)
    assert len(index) == 1


@both
def test_a_copy_goes_its_own_way(index_class: Any) -> None:
    index = index_class(N)
    for slot in range(1, 1_200):
        index.register(at(0, slot), writes(slot))
    index.register(at(1, 1), touching((A, WHOLE)))
    twin = index.copy()
    twin.register(at(2, 7), reads(17))
    index.register(at(2, 5), writes(18))
    assert len(twin) == 1_199 and index.conflicts(writes(17)) == (17, 1, 0) and twin.conflicts(writes(17)) == (17, 1, 7)
    assert index.conflicts(reads(18)) == (18, 1, 5) and twin.conflicts(reads(18)) == (18, 1, 0)
    assert [twin.conflicts(writes(slot)) for slot in range(20, 1_200)] == [
        index.conflicts(writes(slot)) for slot in range(20, 1_200)
    ]


@both
def test_looking_registers_nothing(index_class: Any) -> None:
    index = index_class(N)
    assert index.conflicts(writes(A)) == (0, 0, 0)
    assert len(index) == 0


@both
def test_the_largest_slot_is_held_exactly(index_class: Any) -> None:
    index = index_class(N)
    index.register(at(0, MAX_SLOT), writes(A))
    index.register(at(1, MAX_SLOT - 1), reads(A))
    assert index.conflicts(writes(A)) == (MAX_SLOT, MAX_SLOT - 1, 0)
    assert index.preaccept(at(2, 1), writes(B), (0, 0, MAX_SLOT)) == (0, 0, MAX_SLOT)


@both
@pytest.mark.parametrize("id_", [at(-1, 1), at(N, 1), at(0, 0), at(0, -3), at(0, MAX_SLOT + 1), at(0, 1 << 70)])
def test_ids_that_cannot_be_are_refused(index_class: Any, id_: InstanceId) -> None:
    index = index_class(N)
    for name, vector in REGISTERING:
        with pytest.raises(ValueError, match="no place"):
            getattr(index, name)(id_, writes(A), *vector)
    assert len(index) == 0


@both
@pytest.mark.parametrize("vector", [(), (0, 0), (0, 0, 0, 0), (0, -1, 0), (0, MAX_SLOT + 1, 0), (0, 1 << 70, 0)])
def test_vectors_of_another_shape_are_refused(index_class: Any, vector: Vector) -> None:
    index = index_class(N)
    with pytest.raises(ValueError, match="not a vector of 3 lanes"):
        index.preaccept(at(0, 1), writes(A), vector)
    assert len(index) == 0


@both
def test_a_batch_without_a_run_is_refused(index_class: Any) -> None:
    index, broken = index_class(N), Batch(writes(A).data + b"!")
    for name, vector in REGISTERING:
        with pytest.raises(ProtocolError, match="by its header"):
            getattr(index, name)(at(0, 1), broken, *vector)
    with pytest.raises(ProtocolError, match="by its header"):
        index.conflicts(broken)
    assert len(index) == 0


@both
@pytest.mark.parametrize("n", [0, -1])
def test_an_index_has_lanes(index_class: Any, n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} lanes"):
        index_class(n)


@both
@pytest.mark.parametrize("n", [1, 2, 7, 13])
def test_any_number_of_lanes(index_class: Any, n: int) -> None:
    index = index_class(n)
    for lane in range(n):
        index.register(at(lane, lane + 1), reads(A) if lane % 2 else writes(A))
    assert index.conflicts(writes(A)) == tuple(range(1, n + 1))
    assert index.conflicts(reads(A)) == tuple(0 if lane % 2 else lane + 1 for lane in range(n))


@both
def test_growing_loses_nothing(index_class: Any) -> None:
    """Keys are looked up at every stage of the growth, in batches that mix known and new ones."""
    index, last = index_class(N), dict[int, int]()
    for slot in range(1, 401):
        new = range(len(last), len(last) + 50)
        old = [key * 7919 % len(last) for key in new if last]
        assert index.lead(at(0, slot), writes(*old, *new))[0] == max((last[key] for key in old), default=0)
        last.update(dict.fromkeys([*old, *new], slot))
        assert len(index) == len(last)
    assert [index.conflicts(reads(key))[0] for key in last] == list(last.values())


@both
def test_hashes_that_fall_on_one_place_stay_apart(index_class: Any) -> None:
    """The mix of ext/layout.pxd inverted: hashes that start probing at one word and share the half that it keeps."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    hashes = [((0xFFFFFFFF << 32) + i) * inverse % (1 << 64) for i in range(200)]
    index = index_class(N)
    for slot, key_hash in enumerate(hashes, 1):
        index.register(at(0, slot), writes(key_hash))
    assert [index.conflicts(reads(key_hash))[0] for key_hash in hashes] == list(range(1, 201))
    assert len(index) == 200
