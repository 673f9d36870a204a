"""What ordering costs, in both twins: `python -m bench.micro_executor [--json]`.

Three lanes take turns. In the first rows nobody meets anybody: that is the cost of a batch without conflict, decided
when nothing was known of it, or learned first and decided later, beside 64 instances under way. In the last rows every
instance writes one hot key: each after all before it, decided last to first; and all after each other, in one group.
Times are the best of several rounds; the nanoseconds a command are what a command adds to a lone one's instance.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from epaxos.accel import choose
from epaxos.command import ENTRY, RUN_HEADER, Batch
from epaxos.execution.graph import PyGraphExecutor
from epaxos.ids import BatchNumber, InstanceId, Vector
from epaxos.tables import ABSENT, Column, render

LANES: Final = 3
UNDER_WAY: Final = 64
SIZES: Final = (1, 32, 1024)
"""Commands a batch."""
COMMANDS: Final = 1 << 15
"""Commands a round, at least; as many instances as they make."""
INSTANCES: Final = 64
"""Instances a round, at least."""
TWINS: Final[dict[str, Any]] = {"pure": PyGraphExecutor, "compiled": choose("scc", "GraphExecutor", None)}

Decision = tuple[InstanceId, Batch, Vector]
Load = Callable[[Any, Sequence[Decision]], object]


class Row(NamedTuple):
    """One measurement."""

    twin: str
    load: str
    commands: int
    """In each batch."""
    instance_us: float
    command_ns: float | None
    """Every command but the first of a batch; None where there is only one."""


def packed(keys: Sequence[int]) -> bytes:
    """A run that writes these keys."""
    return RUN_HEADER.pack(len(keys), 0) + b"".join(ENTRY.pack(key, 0, 0, 1, 0) for key in keys)


def in_turn(runs: Sequence[bytes]) -> list[Decision]:
    """Instances of all lanes in turn, each after all before it."""
    seen, decisions = [0] * LANES, list[Decision]()
    for at, run in enumerate(runs):
        id_ = InstanceId(0, at // LANES + 1, at % LANES)
        decisions.append((id_, Batch.of(BatchNumber(id_.lane, 1, at), run), tuple(seen)))
        seen[id_.lane] = id_.slot
    return decisions


def in_a_ring(runs: Sequence[bytes]) -> list[Decision]:
    """The same, each after all others."""
    decisions = in_turn(runs)
    last = {id_.lane: id_.slot for id_, _, _ in decisions}
    return [
        (id_, batch, tuple(id_.slot - 1 if lane == id_.lane else last[lane] for lane in range(LANES)))
        for id_, batch, _ in decisions
    ]


def decide_fresh(executor: Any, decisions: Sequence[Decision]) -> None:
    """Decide what nothing is known of, beside `UNDER_WAY` others."""
    decide(executor, decisions[UNDER_WAY:])


def decide(executor: Any, decisions: Sequence[Decision]) -> None:
    """Decide one by one."""
    for decision in decisions:
        executor.decide((decision,))


def learn_and_decide(executor: Any, decisions: Sequence[Decision]) -> None:
    """Know of `UNDER_WAY` instances at a time before they are decided."""
    for at in range(len(decisions) + UNDER_WAY):
        if at < len(decisions):
            executor.learn(*decisions[at][:2])
        if at >= UNDER_WAY:
            executor.decide((decisions[at - UNDER_WAY],))


def look(executor: Any, decisions: Sequence[Decision]) -> None:
    """What a batcher asks before it closes a batch, beside `UNDER_WAY` other instances."""
    for _, batch, _ in decisions[UNDER_WAY:]:
        executor.entangled(batch.run)


def measure(twin: str, executor: Callable[[int], Any], rounds: int) -> Iterator[Row]:
    """All rows of a twin."""
    rng = random.Random(1)

    def best_us(load: Load, decisions: Sequence[Decision], known: int = 0) -> float:
        best = float("inf")
        for _ in range(rounds):
            fresh = executor(LANES)
            for id_, batch, _ in decisions[:known]:
                fresh.learn(id_, batch)
            began = time.perf_counter_ns()
            load(fresh, decisions)
            best = min(best, (time.perf_counter_ns() - began) / (len(decisions) - known) / 1000)
        return best

    loads: tuple[tuple[str, Load, int], ...] = (
        ("decide", decide_fresh, UNDER_WAY),
        ("learn, then decide", learn_and_decide, 0),
        ("entangled", look, UNDER_WAY),
    )
    for name, load, known in loads:
        alone_us = 0.0
        for size in SIZES:
            count = known + max(COMMANDS // size, INSTANCES)
            decisions = in_turn([packed([rng.getrandbits(64) for _ in range(size)]) for _ in range(count)])
            us = best_us(load, decisions, known)
            alone_us = alone_us or us
            yield Row(twin, name, size, us, None if size == 1 else (us - alone_us) * 1000 / (size - 1))
    hot = [packed([7])] * 5000
    yield Row(twin, "hot key, backward", 1, best_us(decide, in_turn(hot)[::-1]), None)
    yield Row(twin, "hot key, one group", 1, best_us(decide, in_a_ring(hot)), None)


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    columns = (
        Column("twin", right=False),
        Column("load", right=False),
        Column("commands\na batch"),
        Column("us an\ninstance"),
        Column("ns a\ncommand"),
    )
    cells = [
        (
            row.twin,
            row.load,
            str(row.commands),
            f"{row.instance_us:.2f}",
            ABSENT if row.command_ns is None else f"{row.command_ns:.0f}",
        )
        for row in rows
    ]
    return render(columns, cells)


def main() -> None:
    """Print the table, or the rows as JSON."""
    options = argparse.ArgumentParser(description="what the graph executor costs")
    options.add_argument("--rounds", type=int, default=5, help="the best one counts")
    options.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    chosen = options.parse_args()
    rows = [row for twin, executor in TWINS.items() if executor for row in measure(twin, executor, chosen.rounds)]
    print(json.dumps([row._asdict() for row in rows]) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
