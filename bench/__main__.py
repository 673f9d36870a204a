"""`python -m bench`: measurements of real processes on this machine, or in virtual time. Every command has --json."""

from __future__ import annotations

import sys

import click
import trio

from bench import (
    catchup as catchup_,
    failover as failover_,
    hotkey as hotkey_,
    kill as kill_,
    powercut as powercut_,
    recovery as recovery_,
    redis_load,
    sessions as sessions_,
)
from bench.compare import compare
from bench.diff import diff
from bench.report import report
from epaxos.console import Console, exit_code, foreseen, report as report_error
from epaxos.submission import DEFAULT_LIMITS

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure clusters: of real processes on this machine's loopback, or of whole engines in virtual time.

    \b
    The latency on emulated wide-area links is `epaxos demo`; the parts have benchmarks of their own:
      python -m bench.micro_batch, .micro_executor, .micro_gateway, .micro_storage
    """


@bench.command()
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs of each load.")
@click.option("--protocol", default="epaxos", show_default=True, help="As in cluster.toml.")
@_JSON
def redis(runs: int, protocol: str, as_json: bool) -> None:
    """Requests a second of three durable replicas, as redis-benchmark sees them.

    \b
    Example: python -m bench redis --runs 5
    """
    result = trio.run(lambda: redis_load.run_redis(runs=runs, protocol=protocol))
    click.echo(redis_load.as_json(result) if as_json else redis_load.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--matrix", default="epaxos5", show_default=True, help="A region matrix by name or path.")
@click.option("--protocol", default="epaxos", show_default=True, help="As in cluster.toml.")
@click.option(
    "--victims",
    default="1",
    show_default=True,
    help="So many at a time, in turn; or the sites by name, with commas; or `leader`, whoever leads.",
)
@click.option("--every", "every_s", default=10.0, show_default=True, help="Seconds between kills; half of it down.")
@click.option("--seconds", default=15.0, show_default=True, help="Of load.")
@click.option(
    "--clients", default=1, show_default=True, type=click.IntRange(1, 100), help="At each site, of each kind."
)
@_JSON
def kill(matrix: str, protocol: str, victims: str, every_s: float, seconds: float, clients: int, as_json: bool) -> None:
    """kill -9 of replicas under load: what clients elsewhere notice, and that nothing is lost.

    \b
    Examples: python -m bench kill --matrix gryff5 --victims OR
              python -m bench kill --victims 2 --every 6 --seconds 60
              python -m bench kill --protocol raft --victims leader --every 3 --seconds 60
    """
    console = Console(as_json)
    options = kill_.KillOptions(
        matrix=matrix, protocol=protocol, victims=victims, every_s=every_s, seconds=seconds, clients=clients
    )
    result = trio.run(kill_.run_kill, options, console.progress)
    console.progress_done()
    console.result(kill_.as_json(result), kill_.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--matrix", default="gryff5", show_default=True, help="A region matrix by name or path.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 600), help="Simulated, of load.")
@click.option("--rate", "rate_per_s", default=100.0, show_default=True, help="Commands a second at each site.")
@click.option(
    "--window",
    default=DEFAULT_LIMITS.entangled_window,
    show_default=True,
    type=click.IntRange(1, 1 << 16),
    help="limits.entangled_window.",
)
@click.option("--seed", default=1, show_default=True, help="Another seed, other moments of arrival.")
@_JSON
def hotkey(matrix: str, seconds: float, rate_per_s: float, window: int, seed: int, as_json: bool) -> None:
    """One hot key, open loop at every site, in virtual time: everything executes within a bound.

    \b
    Example: python -m bench hotkey --matrix gryff5
    """
    console = Console(as_json)
    options = hotkey_.HotkeyOptions(matrix=matrix, seconds=seconds, rate_per_s=rate_per_s, window=window, seed=seed)
    result = hotkey_.run_hotkey(options, console.progress)
    console.progress_done()
    console.result(hotkey_.as_json(result), hotkey_.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--protocol", default="epaxos", show_default=True, help="As in cluster.toml.")
@click.option("--seconds", default=60.0, show_default=True, help="How long the load lasts.")
@click.option("--every", "every_s", default=2.0, show_default=True, help="Seconds between two kills.")
@click.option("--clients", default=6, show_default=True, type=click.IntRange(1, 100), help="Of all sites together.")
@_JSON
def sessions(protocol: str, seconds: float, every_s: float, clients: int, as_json: bool) -> None:
    """Increments through three replicas that are killed in turn with -9: every counter must be exact.

    \b
    Example: python -m bench sessions --seconds 20
    """
    options = sessions_.SessionOptions(protocol=protocol, seconds=seconds, every_s=every_s, clients=clients)
    result = trio.run(sessions_.run_sessions, options)
    click.echo(sessions_.as_json(result) if as_json else sessions_.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--matrix", default="gryff5", show_default=True, help="A region matrix by name or path.")
@click.option("--runs", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Crashes, one a cluster.")
@click.option("--detect-ms", default=500, show_default=True, help="From the crash until the others notice.")
@click.option("--seed", default=1, show_default=True, help="Of the first run; the next one has the next.")
@_JSON
def recovery(matrix: str, runs: int, detect_ms: int, seed: int, as_json: bool) -> None:
    """A coordinator dies for ever, in virtual time: how soon the others finish what it left.

    \b
    Example: python -m bench recovery --matrix gryff5 --runs 200
    """
    console = Console(as_json)
    options = recovery_.RecoveryOptions(matrix=matrix, runs=runs, detect_ms=detect_ms, seed=seed)
    result = recovery_.run_recovery(options, console.progress)
    console.progress_done()
    console.result(recovery_.as_json(result), recovery_.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--virtual", is_flag=True, help="In virtual time, which is the only way there is yet.")
@click.option("--matrix", default="gryff5", show_default=True, help="A region matrix by name or path.")
@click.option("--protocol", default="raft", show_default=True, help="One with a leader.")
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Crashes, one a cluster.")
@click.option("--detect-ms", type=click.IntRange(0, 60_000), help="When links break; else only silence tells.")
@click.option("--leader", metavar="SITE", help="Where the leader is; else it is left to chance.")
@click.option("--seed", default=1, show_default=True, help="Of the first run; the next one has the next.")
@_JSON
def failover(
    virtual: bool,
    matrix: str,
    protocol: str,
    runs: int,
    detect_ms: int | None,
    leader: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """A leader dies for ever: how long until another one is able to commit.

    \b
    Example: python -m bench failover --virtual --protocol raft --runs 200
    """
    if not virtual:
        raise click.UsageError("only --virtual is there yet")
    console = Console(as_json)
    options = failover_.FailoverOptions(
        matrix=matrix, protocol=protocol, runs=runs, detect_ms=detect_ms, leader=leader, seed=seed
    )
    result = failover_.run_failover(options, console.progress)
    console.progress_done()
    console.result(failover_.as_json(result), failover_.as_table(result))
    raise SystemExit(bool(result.wrong))


@bench.command()
@click.option("--cuts", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How often the power goes.")
@click.option("--control/--no-control", default=True, show_default=True, help="Also with a store that never syncs.")
@click.option("--seed", default=1, show_default=True, help="Of the moments at which it goes.")
@_JSON
def powercut(cuts: int, control: bool, seed: int, as_json: bool) -> None:
    """Cut the power of a machine with five replicas under load: nothing acknowledged is lost.

    The machine is a user-mode Linux with a disk in an image file (Debian: apt-get install user-mode-linux).

    \b
    Example: python -m bench powercut --cuts 20
    """
    console = Console(as_json)
    options = powercut_.PowercutOptions(cuts=cuts, control=control, seed=seed)
    result = trio.run(powercut_.run_powercut, options, console.progress)
    console.progress_done()
    console.result(powercut_.as_json(result), powercut_.as_table(result))
    raise SystemExit(bool(result.wrong))


for _command in (compare, report, diff):
    bench.add_command(_command)


def main() -> int:
    """Run the command line; what is foreseen to go wrong is told in one line."""
    try:
        bench(prog_name="python -m bench", standalone_mode=False)
    except BaseException as error:
        known = foreseen(error)
        if known is None:
            raise
        report_error(known, "--json" in sys.argv)
        return exit_code(known)
    return 0


@bench.command()
@click.option("--matrix", default="gryff5", show_default=True, help="A region matrix by name or path.")
@click.option(
    "--away", default=20_000, show_default=True, type=click.IntRange(100, 1_000_000), help="Instances missed."
)
@click.option("--seed", default=1, show_default=True, help="Another seed, other moments of arrival.")
@_JSON
def catchup(matrix: str, away: int, seed: int, as_json: bool) -> None:
    """A replica comes back after a while, in virtual time: how soon it has caught up, and what the others notice.

    \b
    Example: python -m bench catchup --away 20000
    """
    console = Console(as_json)
    result = catchup_.run_catchup(catchup_.CatchupOptions(matrix=matrix, away=away, seed=seed), console.progress)
    console.progress_done()
    console.result(catchup_.as_json(result), catchup_.as_table(result))
    raise SystemExit(bool(result.wrong))


if __name__ == "__main__":
    sys.exit(main())
