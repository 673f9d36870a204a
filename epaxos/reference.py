"""The reference pages, written from the code: keys of `cluster.toml`, the command line, messages between replicas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from epaxos.limits import explain_limits
from epaxos.quorums import MAX_REPLICAS


class KeyDoc(NamedTuple):
    """One key of `cluster.toml`, for people."""

    key: str
    allowed: str
    default: str
    """Empty when the key must be given."""
    about: str
    too_small: str = ""
    """What happens near the low end of a range."""
    too_large: str = ""
    """What happens near the high end of a range."""


_KEYS: Final = (
    KeyDoc(
        "cluster",
        "1 to 64 letters, digits, '-' or '_'",
        "",
        "the name of the cluster: replicas and data of another one are refused",
    ),
    KeyDoc(
        "protocol", '"epaxos" or "raft"', '"epaxos"', "the replication protocol; data cannot move from one to another"
    ),
    KeyDoc(
        "secret",
        "a non-empty string",
        "the name of the cluster",
        "keys the hash by which commands are compared, so that no client can make keys collide on purpose; "
        "the same at every replica, and never changed once there is data",
    ),
    KeyDoc(
        "password",
        "a non-empty string",
        "none",
        "what clients must show with AUTH or HELLO before anything is done for them; the native client does by itself; "
        "it crosses the network as it is",
    ),
    KeyDoc(
        "replica.name",
        "1 to 64 letters, digits, '-' or '_', unique",
        "",
        f"one [[replica]] table a member, 1 to {MAX_REPLICAS}; this is what people see everywhere, "
        "and the position of the table is the member's id: "
        "names and order never change once there is data",
    ),
    KeyDoc("replica.peer", "host:port or [v6]:port, unique", "", "where the other replicas reach it"),
    KeyDoc(
        "replica.client",
        "host:port or [v6]:port, unique; port 0 lets the system choose",
        "",
        "where Redis clients and the native client reach it",
    ),
    KeyDoc(
        "raft.preferred",
        "the name of a replica",
        "none",
        'who should lead, with protocol = "raft": whoever else leads hands over to it when it has nearly all entries; '
        "the best place is the one whose nearest majority is near to most clients (`python -m topology bounds`)",
    ),
    KeyDoc(
        "observe.keys",
        "an array of strings",
        "[]",
        "keys whose commands are counted apart from all others, in what the replica says of itself",
    ),
)


def key_docs() -> tuple[KeyDoc, ...]:
    """Every key, in the order of the file."""
    limits = [
        KeyDoc(
            f"limits.{doc.name}",
            f"{doc.range.low} to {doc.range.high} {doc.range.unit}",
            str(doc.default),
            doc.bounds,
            doc.too_small,
            doc.too_large,
        )
        for doc in explain_limits()
    ]
    return (*_KEYS, *limits)


def key_text(doc: KeyDoc) -> str:
    """One key as a paragraph for a terminal."""
    lines = [doc.key, f"  {doc.about}", f"  allowed: {doc.allowed}", f"  default: {doc.default or '(must be given)'}"]
    if doc.too_small:
        lines += [f"  too small: {doc.too_small}", f"  too large: {doc.too_large}"]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- the pages

_GENERATED: Final = "<!-- Written by `make docs` from the code; a test holds it to that. Edit the code instead. -->\n"


def config_page() -> str:
    """`docs/reference/config.md`."""
    lines = [
        "# cluster.toml\n",
        _GENERATED,
        "One file describes the cluster, the same on every machine; each replica is told only who it is. Any key can",
        "be overridden on the command line: `--set limits.window=512`, `--set replica.CA.client=127.0.0.1:6379`.",
        "`epaxos config check FILE` says whether a file is right.\n",
        "An unknown key and a value out of range are errors, with the line and what is allowed. A `[tls]` table is",
        "refused: TLS between replicas is not in this release.\n",
    ]
    for doc in key_docs():
        lines.append(f"## `{doc.key}`\n")
        lines.append(f"{doc.about[0].upper()}{doc.about[1:]}.\n")
        lines.append(f"- allowed: {doc.allowed}")
        lines.append(f"- default: {doc.default or 'none; it must be given'}")
        if doc.too_small:
            lines += [f"- too small: {doc.too_small}", f"- too large: {doc.too_large}"]
        lines.append("")
    return "\n".join(lines)


def cli_page() -> str:
    """`docs/reference/cli.md`."""
    from epaxos.cli import cli  # the command line imports this module too

    lines = [
        "# The command line\n",
        _GENERATED,
        "| exit code | means |",
        "|---|---|",
        "| 0 | done; for `replica`: stopped because it was asked to |",
        "| 1 | failed: certainly not applied |",
        "| 2 | the command line or the configuration is wrong |",
        "| 3 | the outcome is unknown: it may or may not have been applied |",
        "| 130 | interrupted |\n",
        "With `--json` stdout carries JSON only, and words for people go to stderr. A failure prints an object with",
        "`error`, `kind` and `exit`.\n",
    ]
    for path, command in _commands(cli, ("epaxos",)):
        lines += [f"## {' '.join(path)}\n", *_command(path, command)]
    return "\n".join(lines)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """(words, command) of a command and of all below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    """One command in Markdown; not by click's own layout, which differs from release to release."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    words = [
        *path,
        *(["[OPTIONS]"] if options else []),
        *(each.metavar or str(each.name).upper() for each in arguments),
    ]
    yield f"`{' '.join(words)}{' COMMAND' if isinstance(command, click.Group) else ''}`\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        about, example, line = " ".join(paragraph.split()).partition("Example: ")
        yield f"{about}{example}`{line}`\n" if example else f"{about}\n"
    if options:
        yield "| option | default | |\n|---|---|---|"
        yield from map(_option, options)
        yield ""


def _option(option: click.Option) -> str:
    """One row of the table of options."""
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    default = f"`{option.default}`" if option.show_default else ""
    if isinstance(option.show_default, str):  # words for what is found out when the command runs
        default = option.show_default
    repeated = " May be given again." if option.multiple else ""
    return f"| `{', '.join(option.opts)}{value}` | {default} | {option.help or ''}{repeated} |"


def messages_page() -> str:
    """`docs/reference/messages.md`."""
    from epaxos.messages import FIRST_HINT, TABLE, WIRE_VERSION, kinds

    lines = [
        "# Messages between replicas\n",
        _GENERATED,
        f"Wire version {WIRE_VERSION}. A message is one CBOR array, `[code, field, …]`, followed by the raw bytes of",
        f"its batch when it carries one. Codes from {FIRST_HINT} on are hints: who does not know one ignores it; an",
        "unknown code below is an error. 13 to 15 are kept free for collection and for epochs. Fields that this",
        "release does not use carry their neutral value.\n",
    ]
    for code, cls in sorted(TABLE.items()):
        lines += [
            f"## {code} {cls.__name__}\n",
            f"{' '.join((cls.__doc__ or '').split())}\n",
            "| field | kind | bounds |",
            "|---|---|---|",
        ]
        lines += [f"| {name} | {kind.name} | {kind.bounds or '-'} |" for name, kind in kinds(cls)]
        lines.append("")
    return "\n".join(lines)


def redis_page() -> str:
    """`docs/reference/redis.md`."""
    from epaxos.gateway.table import TABLE, Spec

    lines = [
        "# Commands for Redis clients\n",
        _GENERATED,
        "Types of reply, error texts and argument checks are those of Redis, in RESP2, RESP3 and inline;",
        "[redis-differences.md](redis-differences.md) lists what differs. Commands that touch keys are replicated, and",
        "take effect in one order for each key at all replicas. The replica at hand answers the others by itself. A",
        "watched key is written when the watch begins and when it ends: it has a mark in between.\n",
    ]
    groups: dict[str, list[Spec]] = {}
    for spec in TABLE.values():
        groups.setdefault(spec.group, []).append(spec)
    for group, specs in groups.items():
        lines += [f"## {group.capitalize()}\n", "| command | words | touches | does |", "|---|---|---|---|"]
        for spec in specs:
            words = str(spec.arity) if spec.arity > 0 else f"{-spec.arity} or more"
            lines.append(f"| `{spec.name.upper()}` | {words} | {spec.footprint} | {spec.summary} |")
        lines.append("")
    return "\n".join(lines)


def scenarios_page() -> str:
    """`docs/reference/scenarios.md`."""
    from epaxos.protocols.registry import VIEWS
    from epaxos.testing.vocabulary import ACTION, CLUSTER, VERBS

    lines = [
        "# Commands of scenario files\n",
        _GENERATED,
        "SITE is a letter in lane order, SITES are letters with commas or `*`, FROM->TO likewise. TIME is a number",
        "with `us`, `ms` or `s`. MESSAGE is the name of a [message](messages.md) or `*`; each WORD behind it must",
        "stand in the message as `flights` shows it. How to write a file is in",
        "[write a scenario](../how-to/write-a-scenario.md).\n",
        "| command | does |",
        "|---|---|",
    ]
    usages = (CLUSTER, *(verb.usage for verb in VERBS.values()), ACTION)
    lines += [f"| `{each.words}` | {each.about} |" for each in usages]
    actions = (f"{name}: {' '.join(f'`{verb}`' for verb in view.actions) or 'none'}" for name, view in VIEWS.items())
    return "\n".join([*lines, "", f"Actions, by protocol: {'; '.join(actions)}.", ""])


PAGES: Final[dict[str, Callable[[], str]]] = {
    "config.md": config_page,
    "cli.md": cli_page,
    "messages.md": messages_page,
    "redis.md": redis_page,
    "scenarios.md": scenarios_page,
}
"""File name in `docs/reference/` -> what it must contain."""


def main() -> None:
    """`python -m epaxos.reference`: write the pages into `docs/reference/` of the checkout."""
    folder = Path(__file__).resolve().parent.parent / "docs" / "reference"
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        click.echo(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
