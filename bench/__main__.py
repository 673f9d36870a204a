"""`python -m bench`: measurements of real processes on this machine, or in virtual time. Every command has --json."""

from __future__ import annotations

import sys

import click

from bench.catchup import catchup
from bench.compare import compare
from bench.diff import diff
from bench.failover import failover
from bench.hotkey import hotkey
from bench.kill import kill
from bench.powercut import powercut
from bench.recovery import recovery
from bench.redis_load import redis
from bench.report import report
from bench.sessions import sessions
from bench.throughput import throughput
from epaxos.console import run_line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure clusters: of real processes on this machine's loopback, or of whole engines in virtual time.

    \b
    The latency on emulated wide-area links is `epaxos demo`; the parts have benchmarks of their own:
      python -m bench.micro_batch, .micro_executor, .micro_gateway, .micro_storage
    """


for _command in (
    *(compare, failover, throughput, report, diff),
    *(kill, sessions, powercut, redis),
    *(hotkey, recovery, catchup),
):
    bench.add_command(_command)


if __name__ == "__main__":
    sys.exit(run_line(bench, "python -m bench"))
