"""Batches and their names, and the conflict relation against its definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from epaxos.command import HEADER, READ, WHOLE, Batch, Entry, Footprint
from epaxos.errors import ProtocolError
from epaxos.ids import BatchNumber
from epaxos.packing import barrier_run, encode_run, footprint

NAME = BatchNumber(3, 1 << 40, (1 << 64) - 1)
RUN = encode_run(bytes(16), [(Entry(1, 0, b"key", b"value"),)])

Touch = tuple[int, int]
"""(key hash, flags) of one entry."""

FLAGS = st.sampled_from([0, READ, READ, WHOLE, WHOLE | READ])
TOUCHES = st.lists(st.tuples(st.integers(1, 4), FLAGS), min_size=1, max_size=4)


def of_touches(touches: list[Touch]) -> Footprint:
    keys = {mode: frozenset(key for key, flags in touches if flags == mode) for mode in (0, READ)}
    flags = {flags for _, flags in touches}
    return Footprint(keys[READ], keys[0], WHOLE | READ in flags, WHOLE in flags)


def test_the_name_is_read_back_from_the_header() -> None:
    batch = Batch.of(NAME, RUN)
    again = Batch(batch.data)
    assert (again.name, again.run, again.data) == (NAME, RUN, batch.data)
    assert batch.data[: HEADER.size] == HEADER.pack(1, 0, 3, 0, 1 << 40, (1 << 64) - 1)


def test_batches_are_equal_when_their_bytes_are() -> None:
    batch = Batch.of(NAME, RUN)
    assert batch == Batch(batch.data)
    assert len({batch, Batch(batch.data)}) == 1
    assert batch != Batch.of(NAME, RUN + b"!")
    assert batch != batch.data
    assert repr(batch) == f"Batch(3/{1 << 40}/{(1 << 64) - 1}, {len(batch.data)} bytes)"


@pytest.mark.parametrize(("at", "words"), [(0, "version 0"), (1, "flags 1")])
def test_a_header_that_this_release_does_not_know_is_refused(at: int, words: str) -> None:
    data = bytearray(Batch.of(NAME, RUN).data)
    data[at] ^= 1
    with pytest.raises(ProtocolError, match=words):
        Batch(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 31])
def test_bytes_too_short_for_a_header_are_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"batch of {size} bytes"):
        Batch(Batch.of(NAME, RUN).data[:size])


def test_a_barrier_is_told_from_commands() -> None:
    assert Batch.of(NAME, barrier_run()).is_barrier
    assert not Batch.of(NAME, RUN).is_barrier


@given(a=TOUCHES, b=TOUCHES)
def test_runs_conflict_when_two_entries_meet_and_not_both_read(a: list[Touch], b: list[Touch]) -> None:
    met = any(
        (key == other or (flags | others) & WHOLE) and not flags & others & READ
        for (key, flags), (other, others) in itertools.product(a, b)
    )
    assert of_touches(a).conflicts(of_touches(b)) == of_touches(b).conflicts(of_touches(a)) == met


@given(a=TOUCHES)
def test_a_footprint_is_what_the_packed_entries_touch(a: list[Touch]) -> None:
    entries = [Entry(1, flags, b"" if flags & WHOLE else b"k" * key, b"") for key, flags in a]
    found = footprint(encode_run(bytes(16), [tuple(entries)]))
    named = of_touches(a)
    assert (len(found.reads), len(found.writes)) == (len(named.reads), len(named.writes))
    assert (found.whole_read, found.whole_write) == (named.whole_read, named.whole_write)
    assert len(found.reads & found.writes) == len(named.reads & named.writes)
