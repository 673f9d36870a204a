"""Commands that the replica at hand answers by itself: about the connection, the server, and the replica's state.

What Redis clients ask when they connect is answered as Redis does; what makes no sense here is refused, not pretended.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol as Interface

from epaxos._version import VERSION
from epaxos.gateway import replies
from epaxos.gateway.commands import TABLE, Spec, arity_fits, unknown_subcommand, wrong_arity
from epaxos.machines.kv import parse_i64

REDIS_VERSION: Final = "7.0.15"
"""The release of Redis whose replies these are."""

_SYNTAX_ERROR: Final = replies.error(b"ERR syntax error")
_BAD_NAME: Final = replies.error(b"ERR Client names cannot contain spaces, newlines or special characters.")


class Host(Interface):
    """What the answers need of the replica."""

    def status(self) -> Mapping[str, object]:
        """Counters and watermarks for people, JSON-able."""

    def reset_stats(self) -> None:
        """Begin the counters anew."""


@dataclass(slots=True)
class Client:
    """One connection, as its client may see and shape it."""

    id: int
    dialect: int = 2
    """Of the protocol: RESP2 or RESP3."""
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""


class Context(NamedTuple):
    """What an answer is made from."""

    host: Host
    client: Client
    clients: int
    """Connections of this replica."""
    max_clients: int
    args: Sequence[bytes]


Answer = Callable[[Context], bytes]


def answer(context: Context) -> bytes:
    """The reply to a local command whose number of words fits."""
    return _ANSWERS[context.args[0].lower()](context)


# ------------------------------------------------------------------------------------------------------ the connection


def _ping(context: Context) -> bytes:
    if len(context.args) > 2:
        return wrong_arity("ping")
    return replies.bulk(context.args[1]) if len(context.args) == 2 else replies.status(b"PONG")


def _echo(context: Context) -> bytes:
    return replies.bulk(context.args[1])


def _quit(context: Context) -> bytes:
    return replies.OK


def _select(context: Context) -> bytes:
    index = parse_i64(context.args[1])
    if index is None:
        return replies.error(b"ERR value is not an integer or out of range")
    if not -(1 << 31) <= index < 1 << 31:
        return replies.error(b"ERR value is out of range, value must between -2147483648 and 2147483647")
    return replies.OK if index == 0 else replies.error(b"ERR DB index is out of range")


def _hello(context: Context) -> bytes:
    client, args = context.client, context.args
    dialect = parse_i64(args[1]) if len(args) > 1 else client.dialect
    if dialect is None:
        return replies.error(b"ERR Protocol version is not an integer or out of range")
    if dialect not in (2, 3):
        return replies.error(b"NOPROTO unsupported protocol version")
    name = client.name
    at = 2
    while at < len(args):
        if args[at].lower() != b"setname" or at + 1 == len(args):
            return replies.error(b"ERR Syntax error in HELLO option '%b'" % args[at])
        name, at = args[at + 1], at + 2
        if not _nameable(name):
            return _BAD_NAME
    client.dialect, client.name = dialect, name
    return replies.mapping(
        [
            (replies.bulk(b"server"), replies.bulk(b"redis")),
            (replies.bulk(b"version"), replies.bulk(REDIS_VERSION.encode())),
            (replies.bulk(b"proto"), replies.integer(dialect)),
            (replies.bulk(b"id"), replies.integer(client.id)),
            (replies.bulk(b"mode"), replies.bulk(b"standalone")),
            (replies.bulk(b"role"), replies.bulk(b"master")),
            (replies.bulk(b"modules"), replies.array(())),
        ],
        dialect,
    )


def _nameable(name: bytes) -> bool:
    return all(ord("!") <= byte <= ord("~") for byte in name)


def _client_id(context: Context) -> bytes:
    return replies.integer(context.client.id)


def _client_getname(context: Context) -> bytes:
    name = context.client.name
    return replies.bulk(name) if name else replies.null(context.client.dialect)


def _client_setname(context: Context) -> bytes:
    if not _nameable(context.args[2]):
        return _BAD_NAME
    context.client.name = context.args[2]
    return replies.OK


def _client_setinfo(context: Context) -> bytes:
    option, value = context.args[2].lower(), context.args[3]
    if option not in (b"lib-name", b"lib-ver"):
        return replies.error(b"ERR Unrecognized option '%b'" % context.args[2])
    if not _nameable(value):
        return replies.error(b"ERR %b cannot contain spaces, newlines or special characters." % option)
    if option == b"lib-name":
        context.client.library = value
    else:
        context.client.library_version = value
    return replies.OK


def _client_info(context: Context) -> bytes:
    client = context.client
    line = b"id=%d name=%b db=0 resp=%d lib-name=%b lib-ver=%b\n" % (
        *(client.id, client.name, client.dialect),
        *(client.library, client.library_version),
    )
    return replies.text(line, client.dialect)


# ---------------------------------------------------------------------------------------------------------- the server


def _info(context: Context) -> bytes:
    wanted = {word.lower() for word in context.args[1:]}
    every = not wanted or wanted & {b"default", b"all", b"everything"}
    shown = [
        f"# {name}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in lines)
        for name, lines in _sections(context)
        if every or name.lower().encode() in wanted
    ]
    return replies.text("\r\n".join(shown).encode(), context.client.dialect)


def _sections(context: Context) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    yield (
        "Server",
        [
            ("redis_version", REDIS_VERSION),
            ("redis_mode", "standalone"),
            ("epaxos_version", VERSION),
            ("process_id", os.getpid()),
        ],
    )
    yield "Clients", [("connected_clients", context.clients), ("maxclients", context.max_clients)]
    yield "Replication", [("role", "master"), ("connected_slaves", 0)]
    figures: list[tuple[str, object]] = [
        (name, value) for name, value in context.host.status().items() if isinstance(value, int | str | float)
    ]
    yield "Epaxos", figures


def _settings(context: Context) -> dict[str, str]:
    """What Redis's settings of these names would have to be for Redis to behave as this replica does."""
    return {
        "appendfsync": "always",
        "appendonly": "yes",
        "databases": "1",
        "maxclients": str(context.max_clients),
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "save": "",
        "timeout": "0",
    }


def _config_get(context: Context) -> bytes:
    settings = _settings(context)
    found: dict[bytes, str] = {}
    for word in context.args[2:]:
        pattern = word.decode("latin-1").lower()
        if pattern in settings:
            found[word] = settings[pattern]
        else:
            found |= {name.encode(): value for name, value in settings.items() if fnmatch.fnmatchcase(name, pattern)}
    pairs = [(replies.bulk(name), replies.bulk(value.encode())) for name, value in found.items()]
    return replies.mapping(pairs, context.client.dialect)


def _reset_stats(context: Context) -> bytes:
    context.host.reset_stats()
    return replies.OK


def _status(context: Context) -> bytes:
    return replies.bulk(json.dumps(context.host.status(), sort_keys=True).encode())


def _elsewhere(context: Context) -> bytes:
    """These are replicated (`sessions.py`); they are listed here for HELP."""
    raise AssertionError(f"{context.args[1]!r} is not answered locally")


def _command(context: Context) -> bytes:
    return replies.array(_described(spec, context.client.dialect) for spec in TABLE.values())


def _command_count(context: Context) -> bytes:
    return replies.integer(len(TABLE))


def _command_list(context: Context) -> bytes:
    return replies.array(replies.bulk(name) for name in TABLE)


def _command_info(context: Context) -> bytes:
    dialect = context.client.dialect
    found = [TABLE.get(word.lower()) for word in context.args[2:] or TABLE]
    return replies.array(_described(spec, dialect) if spec else replies.null(dialect) for spec in found)


def _command_docs(context: Context) -> bytes:
    dialect = context.client.dialect
    found = [spec for word in context.args[2:] or TABLE if (spec := TABLE.get(word.lower()))]
    return replies.mapping([(replies.bulk(spec.name.encode()), _documented(spec, dialect)) for spec in found], dialect)


def _documented(spec: Spec, dialect: int) -> bytes:
    lines = (("summary", spec.summary), ("since", spec.since), ("group", spec.group))
    return replies.mapping(
        [(replies.bulk(name.encode()), replies.bulk(value.encode())) for name, value in lines], dialect
    )


def _described(spec: Spec, dialect: int) -> bytes:
    """As `COMMAND INFO`: no categories, tips, key specifications or subcommands are given."""
    words = replies.array(replies.status(flag.encode()) for flag in spec.flags)
    flags = b"~" + words[1:] if dialect == 3 else words
    keys = [replies.integer(position) for position in spec.keys]
    empty = b"~0\r\n" if dialect == 3 else b"*0\r\n"
    name, arity = replies.bulk(spec.name.encode()), replies.integer(spec.arity)
    return replies.array((name, arity, flags, *keys, empty, empty, empty, empty))


# --------------------------------------------------------------------------------------------------------- subcommands


class Subcommand(NamedTuple):
    """A second word that a command knows."""

    arity: int
    answer: Answer
    help: str


_SUBCOMMANDS: Final[Mapping[str, Mapping[str, Subcommand]]] = {
    "client": {
        "getname": Subcommand(2, _client_getname, "The name of this connection."),
        "id": Subcommand(2, _client_id, "The number of this connection."),
        "info": Subcommand(2, _client_info, "What is known of this connection."),
        "setinfo": Subcommand(4, _client_setinfo, "Tell LIB-NAME or LIB-VER of the client's library."),
        "setname": Subcommand(3, _client_setname, "Give this connection a name."),
    },
    "command": {
        "count": Subcommand(2, _command_count, "How many commands there are."),
        "docs": Subcommand(-2, _command_docs, "What the commands of these names do, or all."),
        "info": Subcommand(-2, _command_info, "Arity, flags and keys of the commands of these names, or of all."),
        "list": Subcommand(2, _command_list, "The names of all commands."),
    },
    "config": {
        "get": Subcommand(-3, _config_get, "What clients ask of a configuration; `epaxos config explain` says more."),
        "resetstat": Subcommand(2, _reset_stats, "Begin the counters anew."),
    },
    "epaxos": {
        "call": Subcommand(-6, _elsewhere, "A handle, a number, a floor and a command: have it applied exactly once."),
        "resetstats": Subcommand(2, _reset_stats, "Begin the counters anew."),
        "session": Subcommand(-3, _elsewhere, "OPEN [FIFO] gives the handle of a session; CLOSE ends it."),
        "status": Subcommand(2, _status, "Counters and watermarks of this replica, as JSON."),
    },
}


def _container(context: Context) -> bytes:
    """A command whose second word says what is meant."""
    name, word = context.args[0].lower().decode(), context.args[1]
    subcommand = word.lower().decode("latin-1")
    if subcommand == "help" and len(context.args) == 2:
        return _help(name)
    known = _SUBCOMMANDS[name].get(subcommand)
    if known is None:
        return unknown_subcommand(name, word)
    return known.answer(context) if arity_fits(known.arity, len(context.args)) else wrong_arity(f"{name}|{subcommand}")


def _help(name: str) -> bytes:
    lines = [f"{name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for subcommand, known in _SUBCOMMANDS[name].items():
        lines += (subcommand.upper(), "    " + known.help)
    return replies.array(replies.status(line.encode()) for line in (*lines, "HELP", "    Print this help."))


_ANSWERS: Final[Mapping[bytes, Answer]] = {
    b"client": _container,
    b"command": lambda context: _container(context) if len(context.args) > 1 else _command(context),
    b"config": _container,
    b"echo": _echo,
    b"epaxos": _container,
    b"hello": _hello,
    b"info": _info,
    b"ping": _ping,
    b"quit": _quit,
    b"select": _select,
}
