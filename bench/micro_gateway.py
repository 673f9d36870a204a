"""Nanoseconds a command, in both twins: `python -m bench.micro_gateway [--json]`.

Parsing turns the bytes of a pipelining client into packed runs; applying runs them on the key-value machine, with and
without somebody who waits for the replies. 16-byte keys and values, 1 024 commands a call; the best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from epaxos.accel import choose
from epaxos.command import Batch
from epaxos.gateway.items import ParseLimits, Run
from epaxos.gateway.resp import PyParser
from epaxos.ids import BatchNumber
from epaxos.limits import LimitsConfig
from epaxos.machines.kv import PyKv

COMMANDS: Final = 1024
SECRET: Final = bytes(range(16))
LIMITS: Final = ParseLimits.of(LimitsConfig())
TWINS: Final[dict[str, tuple[Any, Any]]] = {
    "pure": (PyParser, PyKv),
    "compiled": (choose("resp", "Parser", None), choose("kv", "Kv", None)),
}


class Row(NamedTuple):
    """One measurement."""

    twin: str
    command: str
    parse_ns: float
    apply_ns: float
    apply_unheard_ns: float
    """Applying a batch whose replies nobody here waits for: what the other replicas pay."""


def request(*words: bytes) -> bytes:
    """One command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def pipelines() -> Iterator[tuple[str, bytes]]:
    """(name, the bytes of `COMMANDS` commands)."""
    keys = [b"key:%012d" % i for i in range(COMMANDS)]
    value = b"0123456789abcdef"
    yield "SET", b"".join(request(b"SET", key, value) for key in keys)
    yield "GET", b"".join(request(b"GET", key) for key in keys)
    yield "SET NX", b"".join(request(b"SET", key, value, b"NX") for key in keys)
    yield "MGET 10", b"".join(request(b"MGET", *keys[:10]) for _ in keys)
    yield "INCR", b"".join(request(b"INCR", key) for key in keys)


def best_ns(call: Callable[[], object], rounds: int) -> float:
    """The shortest of `rounds` calls, in nanoseconds a command."""
    best = min(_timed(call) for _ in range(rounds))
    return best / COMMANDS


def _timed(call: Callable[[], object]) -> int:
    began = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - began


def measure(rounds: int) -> Iterator[Row]:
    """Every command in every twin that is there, on one machine a twin: later commands find what earlier ones left."""
    for twin, (parser, machine) in TWINS.items():
        if parser is None or machine is None:
            continue
        kv = machine()
        for command, buffer in pipelines():
            (run,) = parser(SECRET).feed(buffer, LIMITS)
            assert isinstance(run, Run) and run.commands == COMMANDS
            yield Row(
                twin, command, *_costs(parser(SECRET), kv, buffer, Batch.of(BatchNumber(0, 1, 1), run.run), rounds)
            )


def _costs(parser: Any, kv: Any, buffer: bytes, batch: Batch, rounds: int) -> tuple[float, float, float]:
    return (
        best_ns(lambda: parser.feed(buffer, LIMITS), rounds),
        best_ns(lambda: kv.apply_batch(batch, (COMMANDS,)), rounds),
        best_ns(lambda: kv.apply_batch(batch, ()), rounds),
    )


def main() -> None:
    """Print the table, or the rows as JSON."""
    options = argparse.ArgumentParser(description="nanoseconds a command in the front end and the key-value machine")
    options.add_argument("--rounds", type=int, default=200, help="calls of 1 024 commands each; the best one counts")
    options.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    chosen = options.parse_args()
    rows = list(measure(chosen.rounds))
    if chosen.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print(f"{'twin':<10}{'command':<10}{'parse':>8}{'apply':>8}{'unheard':>9}   nanoseconds a command")
    for row in rows:
        print(f"{row.twin:<10}{row.command:<10}{row.parse_ns:8.0f}{row.apply_ns:8.0f}{row.apply_unheard_ns:9.0f}")


if __name__ == "__main__":
    main()
