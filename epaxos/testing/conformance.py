"""Does a store keep its promises? The checks behind `epaxos.storage.interface`, for anybody's store.

Give `check_store` a function that makes a `StoreBench` around a fresh, empty disk:

    check_store(MyBench)                          # all of it; raises AssertionError at the first broken promise

or, one test a check:

    @pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
    def test_my_store(check, tmp_path):
        check(MyBench(tmp_path))

What no suite can see from inside a process is whether a synced group survives a power cut; `StoreBench.cut_power`
is as close to one as the bench can come.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Final

from epaxos.errors import StorageError
from epaxos.storage.interface import Store, WriteGroup
from epaxos.storage.records import END_OF_KEYS, KEY_BYTES_MAX


class StoreBench(abc.ABC):
    """One disk, and what the suite needs done to it. At most one store is open on it at a time."""

    @abc.abstractmethod
    def open(self) -> Store:
        """A store on this disk, which keeps what earlier stores made durable."""

    @abc.abstractmethod
    def settle(self, store: Store) -> None:
        """Return once everything written to `store` is durable, or `store.failure` is set."""

    @abc.abstractmethod
    def cut_power(self, store: Store) -> None:
        """End `store` as a power cut would, or as nearly as can be: what is not durable may be lost."""

    @abc.abstractmethod
    def break_disk(self, store: Store) -> None:
        """From now on no write to `store` succeeds. Durable records stay."""

    @abc.abstractmethod
    def damage(self, key: bytes) -> None:
        """While no store is open: change a bit of the stored value of `key`, behind the store's back."""


Check = Callable[[StoreBench], None]


def group(mark: int, puts: Iterable[tuple[bytes, bytes]] = (), drops: Iterable[bytes] = ()) -> WriteGroup:
    """A `WriteGroup`, briefly."""
    return WriteGroup(tuple(puts), tuple(drops), mark)


def check_store(make: Callable[[], StoreBench]) -> None:
    """Run every check, each on a fresh bench. Raises AssertionError when a promise is broken."""
    for check in STORE_CHECKS:
        check(make())


# ----------------------------------------------------------------------------------------- promise 1: groups, in order


def a_group_becomes_durable(bench: StoreBench) -> None:
    store = bench.open()
    _equal(store.durable, 0, "durable before the first group")
    _equal(store.get(b"k"), None, "a key never written")
    store.write(group(7, [(b"k", b"v"), (b"empty", b"")]))
    bench.settle(store)
    _equal(store.durable, 7, "durable")
    _equal(store.get(b"k"), b"v", "k")
    _equal(store.get(b"empty"), b"", "an empty value is a value")
    store.close()


def a_group_without_records_carries_its_mark(bench: StoreBench) -> None:
    store = bench.open()
    store.write(group(3))
    bench.settle(store)
    _equal(store.durable, 3, "durable")
    store.close()


def the_last_word_on_a_key_holds(bench: StoreBench) -> None:
    store = bench.open()
    for mark in range(1, 101):
        store.write(group(mark, [(b"same", b"%d" % mark), (b"own/%03d" % mark, b"x")]))
    store.write(group(101, [(b"twice", b"1"), (b"twice", b"2")]))
    bench.settle(store)
    _equal(store.get(b"same"), b"100", "the key written by every group")
    _equal(store.get(b"twice"), b"2", "the key written twice in one group")
    _equal(len(list(store.scan(b"own/", b"own0"))), 100, "how many groups left their own key")
    store.close()


def deletions_come_after_puts_in_a_group_and_in_order_between_groups(bench: StoreBench) -> None:
    store = bench.open()
    store.write(group(1, [(b"a", b"1"), (b"b", b"1")], drops=[b"a", b"never there"]))
    store.write(group(2, drops=[b"b"]))
    store.write(group(3, [(b"b", b"3"), (b"c", b"3")]))
    store.write(group(4, drops=[b"c"]))
    bench.settle(store)
    _equal(_everything(store), [(b"b", b"3")], "what is left")
    store.write(group(5, drops=[b"b"]))
    bench.settle(store)
    _equal(_everything(store), [], "what is left in the end")
    store.close()


def a_power_cut_leaves_whole_groups_of_a_prefix(bench: StoreBench) -> None:
    store = bench.open()
    groups = 12
    for mark in range(1, groups + 1):
        puts = [(b"%s/%d" % (side, mark), b"x") for side in (b"a", b"m", b"z")]
        store.write(group(mark, puts, drops=[b"a/%d" % (mark - 3)]))
        if mark == groups // 2:
            bench.settle(store)
    acknowledged = store.durable
    bench.cut_power(store)

    store = bench.open()
    found = dict(_everything(store))
    survived = max((mark for mark in range(groups + 1) if b"m/%d" % mark in found), default=0)
    _true(acknowledged <= survived, f"group {acknowledged} was reported durable, and group {survived} is the last one")
    expected = {b"%s/%d" % (side, mark) for side in (b"m", b"z") for mark in range(1, survived + 1)}
    expected |= {b"a/%d" % mark for mark in range(max(1, survived - 2), survived + 1)}
    _equal(set(found), expected, f"the records after exactly {survived} groups")
    store.close()


def what_no_group_may_be_is_refused_at_once(bench: StoreBench) -> None:
    store = bench.open()
    _raises(ValueError, "mark 0, which stands for nothing", store.write, group(0))
    store.write(group(5, [(b"k", b"5")]))
    for mark in (5, 4):
        _raises(ValueError, f"mark {mark} after mark 5", store.write, group(mark, [(b"k", b"?")]))
    for key in (b"", b"k" * (KEY_BYTES_MAX + 1)):
        _raises(ValueError, f"a put under {len(key)} bytes of key", store.write, group(6, [(key, b"?")]))
        _raises(ValueError, f"a drop of {len(key)} bytes of key", store.write, group(6, drops=[key]))
        _raises(ValueError, f"a get of {len(key)} bytes of key", store.get, key)
    store.write(group(6, [(b"l", b"6")]))
    bench.settle(store)
    _equal(store.durable, 6, "durable: a refused group leaves the store as it was")
    _equal(_everything(store), [(b"k", b"5"), (b"l", b"6")], "the records")
    store.close()


# ---------------------------------------------------------------------------------------------- promise 2: the mark


def durable_only_grows_and_begins_at_zero_in_every_life(bench: StoreBench) -> None:
    store = bench.open()
    seen = [store.durable]
    for mark in (1, 2, 1000, 10**15):
        store.write(group(mark, [(b"mark", b"%d" % mark)]))
        seen.append(store.durable)
        bench.settle(store)
        seen.append(store.durable)
    _equal(seen, sorted(seen), "durable, in the order in which it was read")
    _equal(seen[-1], 10**15, "durable in the end")
    store.close()

    store = bench.open()
    _equal(store.durable, 0, "durable after opening again")
    store.write(group(1, [(b"mark", b"again")]))
    bench.settle(store)
    _equal(store.durable, 1, "durable: marks begin again")
    _equal(store.get(b"mark"), b"again", "the record")
    store.close()


# -------------------------------------------------------------------------------------------- promise 3: the records


def a_scan_is_in_key_order_and_half_open(bench: StoreBench) -> None:
    store = bench.open()
    keys = [b"a", b"a\x00", b"a\x00\x00", b"a\x01", b"aa", b"b", b"b\xff", b"b\xff\xff", b"c", b"\xff" * KEY_BYTES_MAX]
    store.write(group(1, [(key, b"=" + key) for key in reversed(keys)]))
    bench.settle(store)
    _equal(_everything(store), [(key, b"=" + key) for key in keys], "everything")
    bounds = [b"", *keys, b"a\x00\x00\x00", b"ab", b"d", END_OF_KEYS]
    for first in bounds:
        for last in bounds:
            expected = [key for key in keys if first <= key < last]
            _equal([key for key, _ in store.scan(first, last)], expected, f"the keys from {first!r} to {last!r}")
    store.close()


def a_long_scan_misses_nothing_and_may_be_left(bench: StoreBench) -> None:
    store = bench.open()
    records = [(b"%06d" % number, b"%d" % number) for number in range(5000)]
    records.append((b"large", b"\x5a" * 3_000_000))
    records.append((b"later", b"end"))
    store.write(group(1, records))
    bench.settle(store)
    _true(_everything(store) == records, "a scan of everything differs from what was written")
    half_read = store.scan(b"", END_OF_KEYS)
    _equal(next(half_read), records[0], "the first record of a scan")
    store.write(group(2, [(b"later", b"changed")], drops=[key for key, _ in records[2000:5000]]))
    bench.settle(store)
    _equal(next(half_read), records[1], "the second record, after a group was written")
    _equal(store.get(b"later"), b"changed", "a get while a scan is half read")
    store.close()


def records_survive_opening_again(bench: StoreBench) -> None:
    store = bench.open()
    keys = [bytes([byte]) * length for byte in (0, 7, 255) for length in (1, KEY_BYTES_MAX)]
    records = [(key, bytes(key[0] * len(key))) for key in keys]
    store.write(group(1, records))
    store.write(group(2, [(b"gone", b"")]))
    store.write(group(3, drops=[b"gone"]))
    store.close()
    for _ in range(2):
        store = bench.open()
        _equal(_everything(store), records, "the records of an earlier life")
        store.close()


def a_damaged_record_is_never_returned(bench: StoreBench) -> None:
    store = bench.open()
    store.write(group(1, [(b"before", b"1"), (b"damaged record", b"2"), (b"other", b"3")]))
    store.close()
    bench.damage(b"damaged record")

    store = bench.open()
    error = _raises(StorageError, "a get of a damaged record", store.get, b"damaged record")
    _true("damaged record" in str(error), f"the error does not name the key: {error}")
    scan = store.scan(b"", END_OF_KEYS)
    _equal(next(scan), (b"before", b"1"), "the record before the damaged one")
    _raises(StorageError, "a scan that meets a damaged record", next, scan)
    _equal(store.get(b"other"), b"3", "a sound record beside a damaged one")
    store.write(group(1, [(b"damaged record", b"new")]))
    bench.settle(store)
    _equal(store.get(b"damaged record"), b"new", "the damaged record, written anew")
    store.close()


# ---------------------------------------------------------------------------------------------- promise 4: the end


def close_makes_durable_what_is_queued_and_may_be_called_again(bench: StoreBench) -> None:
    store = bench.open()
    for mark in range(1, 51):
        store.write(group(mark, [(b"%02d" % mark, b"x" * 1000)]))
    store.close()
    _equal(store.durable, 50, "durable after close")
    _equal(store.failure, None, "failure after close")
    store.close()
    _raises(StorageError, "a write after close", store.write, group(51))
    _raises(StorageError, "a get after close", store.get, b"01")
    _raises(StorageError, "a scan after close", store.scan, b"", END_OF_KEYS)

    store = bench.open()
    _equal(len(_everything(store)), 50, "how many records survived close")
    store.close()


def a_failed_store_stands_still_for_good(bench: StoreBench) -> None:
    store = bench.open()
    store.write(group(1, [(b"k", b"acknowledged")]))
    bench.settle(store)
    _equal(store.failure, None, "failure of a sound store")
    bench.break_disk(store)
    try:
        store.write(group(2, [(b"k", b"lost"), (b"l", b"lost" * 1000)]))
        store.write(group(3, [(b"m", b"lost")]))
    except StorageError:
        _true(store.failure is not None, "a write was refused by a store that says it has not failed")
    bench.settle(store)
    _true(isinstance(store.failure, StorageError), f"failure is {store.failure!r} after the disk broke")
    _equal(store.durable, 1, "durable after the failure")
    error = _raises(StorageError, "a write to a failed store", store.write, group(4, [(b"n", b"?")]))
    _true(str(store.failure) in str(error), f"the refused write says {error!r}, not why the store failed")
    _equal(store.get(b"k"), b"acknowledged", "a durable record, read from a failed store")
    store.close()
    store.close()
    _equal(store.durable, 1, "durable after the failed store was closed")
    _true(store.failure is not None, "closing took the failure back")

    store = bench.open()
    _equal(store.failure, None, "failure of the next life")
    _equal(_everything(store), [(b"k", b"acknowledged")], "the records of the next life")
    store.close()


STORE_CHECKS: Final[tuple[Check, ...]] = (
    a_group_becomes_durable,
    a_group_without_records_carries_its_mark,
    the_last_word_on_a_key_holds,
    deletions_come_after_puts_in_a_group_and_in_order_between_groups,
    a_power_cut_leaves_whole_groups_of_a_prefix,
    what_no_group_may_be_is_refused_at_once,
    durable_only_grows_and_begins_at_zero_in_every_life,
    a_scan_is_in_key_order_and_half_open,
    a_long_scan_misses_nothing_and_may_be_left,
    records_survive_opening_again,
    a_damaged_record_is_never_returned,
    close_makes_durable_what_is_queued_and_may_be_called_again,
    a_failed_store_stands_still_for_good,
)
"""Every promise, one check each."""


# ------------------------------------------------------------------------------------------------------------ inside


def _everything(store: Store) -> list[tuple[bytes, bytes]]:
    return list(store.scan(b"", END_OF_KEYS))


def _true(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssertionError(complaint)


def _equal(found: object, expected: object, what: str) -> None:
    _true(found == expected, f"{what}: found {found!r}, expected {expected!r}")


def _raises(kind: type[Exception], what: str, act: Callable[..., object], *arguments: object) -> Exception:
    try:
        result = act(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{what}: gave {result!r}, and should raise {kind.__name__}")
