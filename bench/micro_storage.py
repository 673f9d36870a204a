"""What durability costs on this disk: `python -m bench.micro_storage [--dir DIR] [--json]`.

The store of a replica, alone. With one group outstanding a row is the latency of a lone command's record; with many,
the committer gathers, and a row is what group commit makes of the same disk. The last column is the share of one
core that both threads took: what is left for the protocol. DIR should be on the disk that replicas will use.
"""

from __future__ import annotations

import argparse
import json
import select
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from epaxos.storage.interface import WriteGroup
from epaxos.storage.lmdb import LmdbStore
from epaxos.tables import Column, ms, percent, render

SHAPES: Final = ((1, 64), (1, 1024), (3, 200), (3, 20_000), (30, 200))
"""(records a group, bytes a value): a lone command, a small batch, and what a loaded replica writes in a turn."""

OUTSTANDING: Final = (1, 8, 64)

TITLES: Final = (
    "records\na group",
    "value\nbytes",
    "groups\nahead",
    "commits\n/s",
    "groups\n/s",
    "records\n/s",
    "MB/s",
    "p50\nms",
    "p99\nms",
    "max\nms",
    "CPU",
)

KEYS: Final = 100_000
"""After so many records the same keys are written again, as in a log whose tail is collected."""


class Row(NamedTuple):
    """One measurement. Latencies are from `write` to the wake-up that reports the group durable."""

    records_a_group: int
    value_bytes: int
    outstanding: int
    commits_a_second: float
    groups_a_second: float
    records_a_second: float
    megabytes_a_second: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu_share: float


def measure(path: Path, records: int, value_bytes: int, outstanding: int, seconds: float) -> Row:
    """Keep `outstanding` groups under way for `seconds`, on a new store in `path`."""
    store = LmdbStore.open(path)
    value = bytes(value_bytes)
    written: deque[int] = deque()
    latencies_us: list[float] = []
    mark = done = 0
    cpu_began, began = time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        while mark < done + outstanding:
            first = mark * records
            puts = tuple((b"record/%08d" % ((first + number) % KEYS), value) for number in range(records))
            mark += 1
            written.append(time.perf_counter_ns())
            store.write(WriteGroup(puts, (), mark))
        select.select([store], [], [])
        durable = store.acknowledge()
        woken_ns = time.perf_counter_ns()
        if store.failure is not None:
            raise store.failure
        latencies_us.extend((woken_ns - written.popleft()) / 1000 for _ in range(durable - done))
        done = durable
    took, cpu = now - began, time.process_time() - cpu_began
    commits = store.counters.syncs
    store.close()
    latencies_us.sort()
    return Row(
        records,
        value_bytes,
        outstanding,
        commits / took,
        done / took,
        done * records / took,
        done * records * value_bytes / took / 1e6,
        latencies_us[len(latencies_us) // 2],
        latencies_us[len(latencies_us) * 99 // 100],
        latencies_us[-1],
        cpu / took,
    )


def measure_all(directory: Path, seconds: float) -> Iterator[Row]:
    """Every shape with every number outstanding, each on a store of its own, removed afterwards."""
    for records, value_bytes in SHAPES:
        for outstanding in OUTSTANDING:
            with tempfile.TemporaryDirectory(dir=directory, prefix="micro-storage-") as scratch:
                yield measure(Path(scratch) / "records", records, value_bytes, outstanding, seconds)


def table(rows: list[Row]) -> str:
    """The rows for people."""
    cells = [
        (
            f"{row.records_a_group}",
            f"{row.value_bytes}",
            f"{row.outstanding}",
            f"{row.commits_a_second:.0f}",
            f"{row.groups_a_second:.0f}",
            f"{row.records_a_second:.0f}",
            f"{row.megabytes_a_second:.1f}",
            f"{row.p50_us / 1000:.2f}",
            f"{row.p99_us / 1000:.2f}",
            ms(row.max_us),
            percent(row.cpu_share),
        )
        for row in rows
    ]
    return render([Column(title) for title in TITLES], cells)


def main() -> None:
    """Print the table, or the rows as JSON."""
    options = argparse.ArgumentParser(description="commits, records and latency of a replica's store")
    options.add_argument("--dir", type=Path, default=Path(), help="where to write (default: the current directory)")
    options.add_argument("--seconds", type=float, default=0.5, help="how long each of the 15 rows is measured")
    options.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    chosen = options.parse_args()
    rows = list(measure_all(chosen.dir, chosen.seconds))
    print(json.dumps([row._asdict() for row in rows]) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
