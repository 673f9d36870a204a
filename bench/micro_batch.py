"""Nanoseconds a command of what every replica does to every batch: `python -m bench.micro_batch [--keys N] [--json]`.

The codec of runs, and the conflict index at a given number of live keys, in both twins. A row is the best of several
rounds over batches of one size: the cost of a call weighs on small batches, that of a command on large ones. 16-byte
keys and values, every command a write of a key chosen at random; `conflicting` meets a batch that shares no key.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from epaxos import packing
from epaxos.accel import choose
from epaxos.command import ENTRY, HEADER, RUN_HEADER, Batch, Command, Entry
from epaxos.ids import BatchNumber, InstanceId, zero
from epaxos.protocols.epaxos.deps import PyConflictIndex
from epaxos.tables import ABSENT, Column, render

SECRET: Final = bytes(range(16))
LANES: Final = 5
SIZES: Final = (1, 32, 1024)
"""Commands a batch: a lone one, a small batch, and what forms under load."""

CODEC: Final = (
    "check_batch",
    "encode_run",
    "decode_run",
    "merge_runs",
    "cut_run",
    "count_commands",
    "read_mask",
    "count_touching",
    "conflicting",
)
TWINS: Final = {
    "pure": (SimpleNamespace(**{name: getattr(packing, f"py_{name}") for name in CODEC}), PyConflictIndex),
    "compiled": (
        SimpleNamespace(**{name: choose("batch", name, None) for name in CODEC}),
        choose("conflicts", "ConflictIndex", None),
    ),
}

Call = Callable[[int], object]
"""What is measured, given the number of the batch to do it to."""


class Row(NamedTuple):
    """One measurement; a twin that was not built, or is forced off, has none."""

    what: str
    commands: int
    pure_ns: float | None
    compiled_ns: float | None


class Workload:
    """Batches of `size` commands on `live` keys, `count` of them, in the forms that the functions take."""

    def __init__(self, size: int, live: int, count: int) -> None:
        choice = random.Random(1)
        self.count = count
        self.commands: list[list[Command]] = []
        for _ in range(count):
            keys = (b"key:%012d" % choice.randrange(live) for _ in range(size))
            self.commands.append([(Entry(1, 0, key, b"0123456789abcdef"),) for key in keys])
        self.runs = [packing.encode_run(SECRET, commands) for commands in self.commands]
        self.batches = [Batch.of(BatchNumber(0, 1, number), run) for number, run in enumerate(self.runs)]
        self.stranger = packing.encode_run(SECRET, [(Entry(1, 0, b"stranger:%d" % i, b""),) for i in range(size)])


def codec_calls(twin: Any, load: Workload) -> Iterator[tuple[str, Call]]:
    """(name, call) for every function of the codec."""
    size = len(load.commands[0])
    pieces = [[twin.cut_run(run, first, 1) for first in range(size)] for run in load.runs[:4]]
    data = [batch.data for batch in load.batches]
    at = HEADER.size
    yield "check_batch", lambda i: twin.check_batch(data[i])
    yield "encode_run", lambda i: twin.encode_run(SECRET, load.commands[i])
    yield "decode_run", lambda i: twin.decode_run(data[i], at)
    yield "merge_runs of 1", lambda i: twin.merge_runs(pieces[i % len(pieces)])
    yield "cut_run of all", lambda i: twin.cut_run(data[i], 0, size, at)
    yield "count_commands", lambda i: twin.count_commands(data[i], at)
    yield "read_mask", lambda i: twin.read_mask(data[i], at)
    yield "count_touching", lambda i: twin.count_touching(data[i], 1, at)
    yield "conflicting", lambda i: twin.conflicting(data[i], load.stranger, at)


def index_calls(index: Any, load: Workload, first_slot: int) -> Iterator[tuple[str, Call]]:
    """(name, call) for every method of a conflict index that has seen the slots before `first_slot`."""
    slots = iter(range(first_slot, 1 << 62))
    init_dep = zero(LANES)
    yield "index.conflicts", lambda i: index.conflicts(load.batches[i])
    yield "index.preaccept", lambda i: index.preaccept(InstanceId(0, next(slots), 1), load.batches[i], init_dep)
    yield "index.register", lambda i: index.register(InstanceId(0, next(slots), 2), load.batches[i])
    yield "index.lead", lambda i: index.lead(InstanceId(0, next(slots), 0), load.batches[i])


def filled(index_class: Any, live: int) -> Any:
    """A conflict index that holds the keys of every `Workload` on `live` keys, in all lanes, up to slot 1."""
    index = index_class(LANES)
    for lane in range(LANES):
        for first in range(0, live, 1000):
            keys = range(first, min(first + 1000, live))
            table = [ENTRY.pack(packing.key_hash(SECRET, b"key:%012d" % key), 0, 0, 1, 0) for key in keys]
            run = RUN_HEADER.pack(len(table), 0) + b"".join(table)
            index.register(InstanceId(0, 1, lane), Batch.of(BatchNumber(0, 1, 0), run))
    return index


def best_ns(call: Call, load: Workload, size: int, rounds: int) -> float:
    """The shortest of `rounds` passes over the batches, in nanoseconds a command."""
    best = 1 << 62
    for _ in range(rounds):
        began = time.perf_counter_ns()
        for i in range(load.count):
            call(i)
        best = min(best, time.perf_counter_ns() - began)
    return best / load.count / size


def measure(live: int, rounds: int) -> list[Row]:
    """Every function at every size, in every twin that is there."""
    costs: dict[tuple[str, int], dict[str, float]] = {}
    loads = {size: Workload(size, live, max(4, 4096 // size)) for size in SIZES}
    for twin, (codec, index_class) in TWINS.items():
        if index_class is None or codec.check_batch is None:
            continue
        index, slot = filled(index_class, live), 2
        for size, load in loads.items():
            for calls in (codec_calls(codec, load), index_calls(index, load, slot)):
                for what, call in calls:
                    costs.setdefault((what, size), {})[twin] = best_ns(call, load, size, rounds)
            slot += 4 * rounds * load.count
    return [Row(what, size, cost.get("pure"), cost.get("compiled")) for (what, size), cost in costs.items()]


def table(rows: Sequence[Row]) -> str:
    """The rows for people: one a function, one column a twin and size."""
    titles = [Column("ns a command", right=False)]
    titles += [Column(f"{twin}\n{size}") for size in SIZES for twin in TWINS]
    found = {(row.what, row.commands): row for row in rows}
    cells = [
        (what, *(_cell(cost) for size in SIZES for cost in found[what, size][2:]))
        for what in dict.fromkeys(row.what for row in rows)
    ]
    return render(titles, cells)


def _cell(cost_ns: float | None) -> str:
    if cost_ns is None:
        return ABSENT
    return f"{cost_ns:.0f}" if cost_ns >= 10 else f"{cost_ns:.1f}"


def main() -> None:
    """Print the table, or the rows as JSON."""
    options = argparse.ArgumentParser(description="cost of the batch codec and of the conflict index")
    options.add_argument("--keys", type=int, default=20_000, help="live keys (the pure twin takes 1 kB for each)")
    options.add_argument("--rounds", type=int, default=3, help="the best of so many passes counts")
    options.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    chosen = options.parse_args()
    rows = measure(chosen.keys, chosen.rounds)
    print(json.dumps([row._asdict() for row in rows]) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
