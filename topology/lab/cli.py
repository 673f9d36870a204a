"""`python -m topology up`, `exec`, `status`, `measure`, `set`, `partition`, `heal` and `down`."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from epaxos.errors import ConfigError
from epaxos.tables import Column, ms, render
from topology.lab import lab as labs, machine, state as lab_state, tun
from topology.lab.lab import Lab
from topology.lab.links import Link
from topology.options import as_json, choose, sites_option

_name = click.option("--name", default="lab", show_default=True, help="Which lab; several can be up at once.")


@click.command()
@click.argument("matrix")
@_name
@sites_option
@click.option(
    "--backend",
    type=click.Choice(["auto", *labs.BACKENDS]),
    default="auto",
    show_default=True,
    help="netem: the kernel's; tun: a router in user space.",
)
@as_json
def up(matrix: str, name: str, sites: str, backend: str, as_json: bool) -> None:
    """Set up a region for each site of a MATRIX, with links as long as it says. Needs root.

    \b
    Example: python -m topology up gryff5
             python -m topology exec CA -- ping 10.77.0.2
    """
    chosen = choose(matrix, sites)
    lab = labs.bring_up(chosen, name=name, backend=backend)
    if as_json:
        click.echo(json.dumps(_described(lab)))
        return
    click.echo(f"lab {name} is up by {lab.state.backend}: {len(lab.sites)} regions of {chosen.name}")
    click.echo(_regions(lab))


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("region")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_name
def exec_(region: str, command: tuple[str, ...], name: str) -> None:
    """Run a COMMAND inside of a REGION, in the place of this one.

    Example: python -m topology exec CA -- epaxos replica CA --config lab.toml --data ./ca
    """
    words = labs.find(name).command_in(region, command)
    os.execvp(words[0], words)


@click.command()
@_name
@as_json
def status(name: str, as_json: bool) -> None:
    """What there is of a lab: its regions and what runs in them, its links where they differ from the matrix.

    Example: python -m topology status
    """
    lab = labs.find(name)
    if as_json:
        click.echo(json.dumps(_described(lab)))
        return
    state = lab.state
    router = (
        "" if state.backend == "netem" else f", router {tun.router_pid(state) or 'GONE: take it down and up again'}"
    )
    click.echo(f"lab {name} by {state.backend}{router}, matrix {state.matrix}")
    click.echo(_regions(lab))
    changed = _changed(lab)
    click.echo("\n".join(changed) if changed else "every link is as the matrix says")


@click.command()
@_name
@as_json
def measure(name: str, as_json: bool) -> None:
    """The round trips of all pairs, of packets; fails when one is off by more than 5 % and 0.5 ms.

    Example: python -m topology measure
    """
    lab = labs.find(name)
    measured = lab.measure()
    off = lab.off(measured)
    if as_json:
        pairs = [{"a": a, "b": b, "rtt_us": rtt_us} for (a, b), rtt_us in measured.items()]
        click.echo(json.dumps({"pairs": pairs, "off": off}))
    else:
        links = lab.state.links
        rows = [
            [f"{a}-{b}", ms(links[a, b].delay_us + links[b, a].delay_us), ms(rtt_us)]
            for (a, b), rtt_us in measured.items()
        ]
        click.echo(render([Column("link", right=False), Column("set, ms"), Column("measured, ms")], rows))
        click.echo("\n".join(off) if off else "every link is as long as it should be")
    raise SystemExit(bool(off))


@click.command("set")
@click.argument("way", metavar="A-B|A>B")
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE...")
@_name
def set_(way: str, words: tuple[str, ...], name: str) -> None:
    """Change a link while it is used: delay (one way), jitter, loss, reorder, rate. A-B is both directions.

    \b
    Example: python -m topology set CA-JP delay=300ms loss=2%
             python -m topology set "CA>VA" rate=10mbit
    """
    values = dict(_pair(word) for word in words)
    labs.find(name).change(way, values)


@click.command()
@click.argument("groups", nargs=-1, required=True, metavar="A,B [C,D]...")
@_name
def partition(groups: tuple[str, ...], name: str) -> None:
    """Cut all links between groups of sites; sites in no group are one more group.

    Example: python -m topology partition CA,VA
    """
    labs.find(name).partition([group.split(",") for group in groups])


@click.command()
@_name
def heal(name: str) -> None:
    """Make every link as the matrix says again.

    Example: python -m topology heal
    """
    labs.find(name).heal()


@click.command()
@_name
@click.option("--all", "everything", is_flag=True, help="Every lab there is.")
def down(name: str, everything: bool) -> None:
    """Take a lab down, with all that runs in it; leaves nothing, also of one whose set-up was killed.

    Example: python -m topology down
    """
    for each in lab_state.names() if everything else [name]:
        click.echo(f"lab {each}: {labs.tear_down(each)} regions taken down")


@click.command("machine", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def machine_(command: tuple[str, ...]) -> None:
    """Run a COMMAND in a user-mode Linux, whose kernel has netem. Its exit code is the command's. Needs root.

    The files of this machine are there too. It has one slow processor: it is for latencies, not for throughput.

    \b
    Example: python -m topology machine -- sh -c "python -m topology up gryff5; python -m topology measure"
    """
    raise SystemExit(machine.run(command))


COMMANDS = (up, exec_, status, measure, set_, partition, heal, down, machine_)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"{word!r} is not KEY=VALUE")
    return key, value


def _regions(lab: Lab) -> str:
    state = lab.state
    rows = [[site, state.address(site), state.namespace(site)] for site in state.sites]
    return render([Column(title, right=False) for title in ("region", "address", "namespace")], rows)


def _changed(lab: Lab) -> list[str]:
    wanted = lab.state.original()
    return [f"{a}>{b}: {_shown(link)}" for (a, b), link in lab.state.links.items() if link != wanted[a, b]]


def _shown(link: Link) -> str:
    if link.cut:
        return "cut"
    jitter = f" jitter {ms(link.jitter_us)} ms" if link.jitter_us else ""
    loss = f" loss {100 * link.loss:g} %" if link.loss else ""
    reorder = f" reorder {100 * link.reorder:g} %" if link.reorder else ""
    rate = f" rate {link.rate_bps / 1e6:g} Mbit/s" if link.rate_bps else ""
    return f"delay {ms(link.delay_us)} ms{jitter}{loss}{reorder}{rate}"


def _described(lab: Lab) -> dict[str, Any]:
    state = lab.state
    return {
        "name": state.name,
        "backend": state.backend,
        "matrix": state.matrix,
        "regions": [
            {"site": site, "address": state.address(site), "namespace": state.namespace(site)} for site in state.sites
        ],
        "links": [{"from": a, "to": b, **link.to_json()} for (a, b), link in state.links.items()],
    }
