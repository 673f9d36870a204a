"""The command `epaxos`. Each command imports what it runs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, NoReturn

import click
from click.core import ParameterSource

from epaxos._version import VERSION
from epaxos.amount import NOT_NEGATIVE, PERCENT, POSITIVE
from epaxos.config import PROTOCOLS, Config, nearest
from epaxos.console import EXIT_DONE, Console, run_line
from epaxos.quorums import MAX_REPLICAS

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, words to stderr.")
config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    default="cluster.toml",
    show_default=True,
    help="The file that describes the cluster.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the file, such as limits.window=512.",
)


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(_version())
        context.exit()


def _version() -> str:
    """The release, the Python it runs on, and which twins are in use."""
    for module in ("epaxos.replica", "epaxos.gateway.server"):
        importlib.import_module(module)  # everything that has a compiled twin has chosen one now
    from epaxos.accel import in_use, summary

    text = f"epaxos {VERSION}, Python {platform.python_version()}, {summary()}"
    pure = sorted({name.split(".")[0] for name, kind in in_use().items() if kind == "pure"})
    return f"{text} (pure: {', '.join(pure)})" if summary() == "mixed" else text


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the release."
)
def cli() -> None:
    """A leaderless, geo-distributed replication engine and key-value store.

    Exit codes: 0 done, 1 failed (certainly not applied), 2 usage or configuration, 3 outcome unknown, 130 interrupted.

    Example: epaxos demo --seconds 10
    """


@cli.command()
@click.argument("name")
@config_option
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where it keeps its log.")
@set_option
@click.option(
    "--log",
    "log_form",
    type=click.Choice(["auto", "json", "text"]),
    default="auto",
    show_default=True,
    help="auto: text on a terminal, JSON lines elsewhere.",
)
@click.option("--trace", is_flag=True, help="Log what the protocol notes, too: a line for each batch that it commits.")
@click.option("--emulate", metavar="MATRIX", help="Delay what goes to each peer as a matrix says: a name, or a file.")
@click.option("--exit-with-parent", is_flag=True, help="Stop when the process that started this one is gone.")
@json_option
def replica(
    name: str,
    config_path: str,
    data: Path,
    overrides: Sequence[str],
    log_form: Literal["auto", "json", "text"],
    trace: bool,
    emulate: str | None,
    exit_with_parent: bool,
    as_json: bool,
) -> None:
    """Run the replica NAME with the key-value store, and serve Redis clients, until SIGINT or SIGTERM.

    Its log goes to stderr; with --json, as JSON lines, to stdout.

    Example: epaxos replica CA --config cluster.toml --data ./ca
    """
    parent = os.getppid() if exit_with_parent else None
    import trio

    from epaxos.commands.serve import serve
    from epaxos.observe.log import Log

    found = Config.load(config_path, overrides)
    # A replica has no other result than its log: as that it goes to stdout.
    out = sys.stdout if as_json else sys.stderr
    log = Log(name, found.names, out=out, form="json" if as_json else log_form, trace=trace)
    trio.run(partial(serve, found, name, data=data, log=log, matrix=emulate, parent=parent))


@cli.command()
@click.option("--matrix", default="gryff5", show_default=True, help="Round trips: a built-in matrix, or a file.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), default=PROTOCOLS[0], show_default=True, help="What to run.")
@click.option("--seconds", type=POSITIVE, default=48.0, show_default=True, help="How long to measure.")
@click.option(
    "--clients", type=click.IntRange(min=1), default=10, show_default=True, help="Open-loop clients at each site."
)
@click.option("--rate", type=POSITIVE, default=2.5, show_default=True, help="Commands a second of each client.")
@click.option(
    "--conflict", type=PERCENT, default=2.0, show_default=True, help="Percent of the commands on one hot key."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the load.")
@click.option("--leader", metavar="SITE", help="With a protocol that has one: where it should be.")
@click.option("--check", is_flag=True, help="Exit with 1 when a site misses its bound.")
@json_option
def demo(
    matrix: str,
    protocol: str,
    seconds: float,
    clients: int,
    rate: float,
    conflict: float,
    seed: int,
    leader: str | None,
    check: bool,
    as_json: bool,
) -> int:
    """A cluster of real processes on emulated wide-area links on this machine, and a table of what was measured.

    Example: epaxos demo --matrix gryff5 --seconds 10 --conflict 10
    """
    from epaxos import demo as module

    options = module.DemoOptions(
        matrix=matrix,
        protocol=protocol,
        seconds=seconds,
        clients=clients,
        rate_per_s=rate,
        hot_share=conflict / 100,
        seed=seed,
        leader=leader,
        check=check,
    )
    return module.main(options, Console(as_json))


@cli.command()
@click.argument("matrix")
@click.option("--clients", default="", metavar="SITE[=WEIGHT],…", help="Where clients are (default: at every site).")
@click.option(
    "--replicas", "sizes", default="", metavar="N,…", help="How many (default: 3, 5, 7, 9 and 13, if so many)."
)
@click.option(
    "--conflict",
    "conflict_percent",
    default=2.0,
    show_default=True,
    type=PERCENT,
    help="Percent of the commands that conflict.",
)
@json_option
def plan(matrix: str, clients: str, sizes: str, conflict_percent: float, as_json: bool) -> int:
    """What latency to expect of every protocol, number of replicas and placement, and which to take.

    Example: epaxos plan gryff5 --clients CA=3,JP --replicas 3,5
    """
    from epaxos.commands import plan as module

    module.run(matrix, clients, sizes, conflict_percent=conflict_percent, console=Console(as_json))
    return EXIT_DONE


@cli.group()
def config() -> None:
    """The file that describes the cluster.

    Example: epaxos config check cluster.toml
    """


@config.command("explain")
@click.argument("names", nargs=-1, metavar="[KEY]...")
@json_option
def config_explain(names: Sequence[str], as_json: bool) -> None:
    """Every key of the file: unit, range, default, and what happens at both extremes.

    Example: epaxos config explain limits.window
    """
    from epaxos.reference import key_docs, key_text

    known = {doc.key: doc for doc in key_docs()}
    for name in names:
        if name not in known:
            raise click.UsageError(f"no such key: {name}{nearest(name, known)}")
    docs = [doc for key, doc in known.items() if not names or key in names]
    Console(as_json).result([doc._asdict() for doc in docs], "\n\n".join(map(key_text, docs)))


@config.command("new")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--cluster", default="shop", show_default=True, help="What it is called.")
@click.option("--peers", default=7401, show_default=True, help="The first replica's port for the others.")
@click.option("--clients", default=6401, show_default=True, help="The first replica's port for clients.")
@json_option
def config_new(names: Sequence[str], cluster: str, peers: int, clients: int, as_json: bool) -> None:
    """Print a file for replicas of these names on this machine, to start from.

    Example: epaxos config new CA VA IR >cluster.toml
    """
    from epaxos.commands import newconfig

    found = newconfig.text(names, cluster=cluster, peers=peers, clients=clients)
    Console(as_json).result(found, found.removesuffix("\n"))


@config.command("check")
@click.argument("path", type=click.Path(dir_okay=False), metavar="FILE")
@set_option
@json_option
def config_check(path: str, overrides: Sequence[str], as_json: bool) -> None:
    """Is this file right? Says what is wrong, where, and what is allowed.

    Example: epaxos config check cluster.toml
    """
    found = Config.load(path, overrides)
    replicas = ", ".join(f"{each.name} (peers {each.peer}, clients {each.client})" for each in found.replicas)
    value = {"cluster": found.cluster, "protocol": found.protocol, "replicas": list(found.names), "ok": True}
    Console(as_json).result(
        value, f"{path}: cluster {found.cluster!r}, {found.protocol}, {found.n} replicas: {replicas}"
    )


# ---------------------------------------------------------------------------------------------------------- simulation


def _refuse(why: str, *names: str) -> None:
    """Raises UsageError when any of these parameters was given: they would mean nothing."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {why}")


def _seed_range(context: click.Context, option: click.Parameter, text: str | None) -> range | None:
    if text is None:
        return None
    first, dots, last = text.partition("..")
    if not first.isdecimal() or (dots and not last.isdecimal()) or (dots and int(last) < int(first)):
        raise click.BadParameter("expected A..B with A <= B, or one number")
    return range(int(first), int(last if dots else first) + 1)


@cli.command()
@click.option(
    "--seeds",
    metavar="A..B",
    callback=_seed_range,
    default="1..100",
    show_default=True,
    help="Run these, both included.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Run one seed and show what it drew.")
@click.option("--trace", is_flag=True, help="With --seed: print every event.")
@click.option(
    "--shrink",
    is_flag=True,
    help="With --seed: leave out commands, kinds of fault, and at last single events, for as long as it still fails;"
    " what is left is told as a scenario file.",
)
@click.option("--without", multiple=True, metavar="KIND", help="With --seed: leave out this kind of fault.")
@click.option(
    "--commands", type=click.IntRange(min=1), metavar="N", help="With --seed: no more than N commands of clients."
)
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="What to run, rather than a mix of them.")
@click.option(
    "--replicas", type=click.IntRange(1, MAX_REPLICAS), help="How many, rather than mostly five, and three, and seven."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    show_default="one for each processor",
    help="With --seeds: so many processes.",
)
@json_option
def sim(
    seeds: range,
    seed: int | None,
    trace: bool,
    shrink: bool,
    without: Sequence[str],
    commands: int | None,
    protocol: str | None,
    replicas: int | None,
    jobs: int,
    as_json: bool,
) -> int:
    """Run whole clusters in virtual time under faults drawn from a seed; fail when an invariant is violated.

    A seed makes the whole run. Its number also says which protocol and how many replicas, unless they are given.

    Example: epaxos sim --seeds 1..500 --jobs 2
    """
    from epaxos.commands import sim as module

    console = Console(as_json)
    if seed is None:
        _refuse("only with --seed", "trace", "shrink", "without", "commands")
        return module.many(seeds, protocol=protocol, n=replicas, jobs=jobs, console=console)
    _refuse("not with --seed", "seeds", "jobs")
    return module.one(
        seed,
        protocol=protocol,
        n=replicas,
        without=without,
        commands=commands,
        trace=trace,
        shrunk=shrink,
        console=console,
    )


@cli.command()
@click.option("--scope", "scopes", multiple=True, metavar="NAME", help="Explore this one; may be given several times.")
@click.option("--list", "listing", is_flag=True, help="Say what scopes there are.")
@click.option("--states-max", type=click.IntRange(min=1), help="With --scope: stop after about so many states.")
@click.option("--walks", type=click.IntRange(min=1), metavar="N", help="Take N random walks instead.")
@click.option("--replicas", type=click.IntRange(3, 9), default=5, show_default=True, help="With --walks: how many.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="With --walks: of all of them.")
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, help="With --walks: the number of the first."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="With --walks: processes.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=".",
    show_default=True,
    help="Where the scenario file of a violation goes.",
)
@json_option
def model(
    scopes: Sequence[str],
    listing: bool,
    states_max: int | None,
    walks: int | None,
    replicas: int,
    seed: int,
    first: int,
    jobs: int,
    out: Path,
    as_json: bool,
) -> int:
    """Visit every state of small scopes (two commands, three replicas), or walk at random through larger ones.

    A violation comes out as a scenario file, and the command fails.

    Example: epaxos model --scope recovery
    """
    from epaxos.commands import model as module

    console = Console(as_json)
    if walks is not None:
        _refuse("not with --walks", "scopes", "listing", "states_max")
        return module.walk(n=replicas, count=walks, first=first, seed=seed, jobs=jobs, out=out, console=console)
    _refuse("only with --walks", "replicas", "seed", "first", "jobs")
    if listing or not scopes:
        _refuse("not with --list", "scopes")
        _refuse("only with --scope", "states_max")
        return module.describe(console)
    return module.explore(scopes, states_max=states_max, out=out, console=console)


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Only those that every change is checked with.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="Only those of runs of this protocol.")
@click.option(
    "--times", type=click.IntRange(min=1), default=3, show_default=True, help="Hunts of each, for the median."
)
@click.option("--seeds-max", type=click.IntRange(min=1), default=5000, show_default=True, help="Seeds a hunt may take.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option("--tell", is_flag=True, help="Of one: a few steps that show what it breaks, as a scenario file.")
@json_option
def mutants(
    names: Sequence[str],
    quick: bool,
    protocol: str | None,
    times: int,
    seeds_max: int,
    jobs: int,
    tell: bool,
    as_json: bool,
) -> int:
    """Put known bugs in on purpose, one at a time; fail when the simulator does not find one.

    Example: epaxos mutants --quick
    """
    from epaxos.commands import mutants as module

    found = module.chosen(names, quick=quick, protocol=protocol)
    if tell:
        _refuse("not with --tell", "times", "jobs")
        return module.tell(found, seeds_max=seeds_max, console=Console(as_json))
    return module.show(found, times=times, seeds_max=seeds_max, jobs=jobs, console=Console(as_json))


@cli.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--rewrite", is_flag=True, help="Put what really happens into the files, for you to judge.")
@json_option
def scenario(files: Sequence[Path], rewrite: bool, as_json: bool) -> int:
    """Run scenario files: sequences of events told step by step, with everything that should come of them.

    Example: epaxos scenario tests/scenarios/epaxos/*.txt
    """
    from epaxos.commands import scenario as module

    run = module.rewrite if rewrite else module.check
    return run(files, Console(as_json))


# ------------------------------------------------------------------------------------------------ a client for the hand

_WORDS: Final = (
    ("get", "KEY", "The value of a key.", "epaxos get greeting --at CA"),
    ("set", "KEY VALUE [NX|XX] [GET]", "Set the value of a key.", "epaxos set greeting hello"),
    ("del", "KEY...", "Delete keys; how many there were.", "epaxos del greeting farewell"),
    ("exists", "KEY...", "How many of the keys have a value.", "epaxos exists greeting"),
    ("incr", "KEY", "Add one to an integer.", "epaxos incr visits"),
    ("decr", "KEY", "Subtract one from an integer.", "epaxos decr visits"),
    ("incrby", "KEY NUMBER", "Add to an integer.", "epaxos incrby visits -3"),
    ("decrby", "KEY NUMBER", "Subtract from an integer.", "epaxos decrby visits 3"),
    ("append", "KEY VALUE", "Append to a value; its length afterwards.", "epaxos append greeting '!'"),
    ("strlen", "KEY", "The length of a value, in bytes.", "epaxos strlen greeting"),
    ("mget", "KEY...", "The values of keys, all at one moment.", "epaxos mget greeting visits"),
    ("mset", "KEY VALUE [KEY VALUE]...", "Set the values of keys, all at one moment.", "epaxos mset a 1 b 2"),
)
"""name, words, what it does, example: the commands of strings, by their own names."""
_ANY: Final = """Any command that a replica knows, by its words; docs/reference/redis.md lists them.

Words that begin with a dash and are options of `epaxos do` itself stand behind `--`, as in
`epaxos do -- SET key --json`. Transactions take several commands, and a Redis client."""


def _hand_command(name: str, words: str, about: str, example: str, *, begin: tuple[str, ...]) -> None:
    """Add one command that sends `begin` and its words to a replica and shows the reply."""

    @cli.command(name, help=f"{about}\n\nExample: {example}", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, required=True, metavar=words)
    @click.option("--at", metavar="NAME", help="Ask this replica and no other; without it, the first that answers.")
    @click.option(
        "--timeout", type=NOT_NEGATIVE, default=15.0, show_default=True, help="Seconds to wait for the reply."
    )
    @config_option
    @set_option
    @json_option
    def command(
        arguments: tuple[str, ...],
        at: str | None,
        timeout: float,
        config_path: str,
        overrides: tuple[str, ...],
        as_json: bool,
    ) -> None:
        from epaxos.commands import byhand

        reply = byhand.ask(Config.load(config_path, overrides), at, (*begin, *arguments), timeout_s=timeout)
        Console(as_json).result(reply, byhand.shown(reply))


for _each in _WORDS:
    _hand_command(*_each, begin=_each[:1])
_hand_command("do", "WORD...", _ANY, "epaxos do HSET user:1 name Ann", begin=())


@cli.command()
@config_option
@set_option
@click.option("--watch", is_flag=True, help="Again every second, until interrupted.")
@click.option(
    "--wait",
    "wait_s",
    type=NOT_NEGATIVE,
    metavar="SECONDS",
    help="Until all replicas are there, linked, and have executed what any had; exit with 1 when that takes longer.",
)
@click.option("--at", metavar="NAME", help="Ask this replica and no other.")
@click.option("--prometheus", is_flag=True, help="Every figure of the replica --at, in Prometheus's text format.")
@json_option
def status(
    config_path: str,
    overrides: Sequence[str],
    watch: bool,
    wait_s: float | None,
    at: str | None,
    prometheus: bool,
    as_json: bool,
) -> int:
    """One row a replica: what it has executed, how far behind it is, latencies, disk.

    Example: epaxos status --config cluster.toml --watch
    """
    import trio

    from epaxos.commands import status as module

    found, console = Config.load(config_path, overrides), Console(as_json)
    if prometheus:
        if at is None or watch or wait_s is not None:
            raise click.UsageError("--prometheus gives the figures of one replica, once: name it with --at")
        return module.metrics(found, console, at)
    if wait_s is None:
        return trio.run(partial(module.show, found, console, at=at, watch=watch))
    if watch:
        raise click.UsageError("--wait ends when all is well, --watch never: choose one")
    return trio.run(partial(module.wait, found, console, wait_s, at=at))


@cli.command()
@click.argument("path", type=click.Path(file_okay=False, exists=True, path_type=Path), metavar="DIR")
@click.option("--verify", is_flag=True, help="Also read everything as a start does.")
@json_option
def inspect(path: Path, verify: bool, as_json: bool) -> int:
    """What is in a data directory whose replica does not run; exit with 1 when something in it is damaged.

    Every record is read through its checksum. Nothing is changed.

    Example: epaxos inspect ./ca --verify
    """
    from epaxos.commands import inspection

    return inspection.run(path, verify=verify, console=Console(as_json))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    return run_line(cli, "epaxos", arguments)


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
