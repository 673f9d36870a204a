"""Commands that the replica at hand answers by itself: about the connection, the server, and the replica's state.

What Redis clients ask when they connect is answered as Redis does; what makes no sense here is refused, not pretended.
"""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Mapping, Sequence
from typing import Final

from epaxos import replies
from epaxos.gateway.commands import arity_fits, wrong_arity
from epaxos.gateway.context import Answer, Client, Context
from epaxos.gateway.encode import SYNTAX_ERROR
from epaxos.gateway.information import REDIS_VERSION, info
from epaxos.gateway.items import Broken, Foreign, Item, Local, Refused, Run
from epaxos.gateway.table import TABLE, Spec
from epaxos.machines.kv import NOT_AN_INTEGER
from epaxos.machines.numbers import parse_i64

_USER: Final = b"default"
_WRONG_PASSWORD: Final = replies.error(b"WRONGPASS invalid username-password pair or user is disabled.")
_LOCKED: Final = Refused(replies.error(b"NOAUTH Authentication required."))
_LOCKED_EXEC: Final = Refused(
    replies.error(b"EXECABORT Transaction discarded because of: NOAUTH Authentication required.")
)
_HELLO_FIRST: Final = replies.error(
    b"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> "
    b"option can be used to authenticate the client and select the RESP protocol version at the same time"
)
_FREE: Final = frozenset(name for name, spec in TABLE.items() if "no_auth" in spec.flags)
"""Commands for everybody."""
_BAD_NAME: Final = replies.error(b"ERR Client names cannot contain spaces, newlines or special characters.")


def admit(client: Client, item: Item) -> Sequence[Item]:
    """The item, or its refusal while the client has not shown the password."""
    if client.authenticated or isinstance(item, Broken | Foreign) or (isinstance(item, Refused) and item.fatal):
        return (item,)
    if isinstance(item, Run):
        return [_LOCKED] * item.commands
    name = item.args[0].lower() if isinstance(item, Local) else b""
    return (item if name in _FREE else _LOCKED_EXEC if name == b"exec" else _LOCKED,)


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
        return NOT_AN_INTEGER
    if not -(1 << 31) <= index < 1 << 31:
        return replies.error(b"ERR value is out of range, value must between -2147483648 and 2147483647")
    return replies.OK if index == 0 else replies.error(b"ERR DB index is out of range")


def _auth(context: Context) -> bytes:
    server, args = context.server, context.args
    if len(args) > 3:
        return SYNTAX_ERROR
    if len(args) == 2 and server.password is None:
        return replies.error(
            b"ERR AUTH <password> called without any password configured for the default user. "
            b"Are you sure your configuration is correct?"
        )
    return replies.OK if _log_in(context, args[1] if len(args) == 3 else _USER, args[-1]) else _WRONG_PASSWORD


def _log_in(context: Context, user: bytes, password: bytes) -> bool:
    """Is this the user, and the password if there is one? Then the connection may do everything."""
    if user != _USER or not (context.server.password is None or context.server.is_password(password)):
        return False
    context.client.authenticated = True
    return True


def _hello(context: Context) -> bytes:
    """Its options take effect one after the other, as in Redis, also in front of one that is wrong."""
    client, args = context.client, context.args
    dialect = parse_i64(args[1]) if len(args) > 1 else client.dialect
    if dialect is None:
        return replies.error(b"ERR Protocol version is not an integer or out of range")
    if dialect not in (2, 3):
        return replies.error(b"NOPROTO unsupported protocol version")
    at = 2
    while at < len(args):
        option, more = args[at].lower(), len(args) - at - 1
        if option == b"auth" and more >= 2:
            if not _log_in(context, args[at + 1], args[at + 2]):
                return _WRONG_PASSWORD
            at += 3
        elif option == b"setname" and more:
            if not _nameable(args[at + 1]):
                return _BAD_NAME
            client.name = args[at + 1]
            at += 2
        else:
            return replies.error(b"ERR Syntax error in HELLO option '%b'" % args[at])
    if not client.authenticated:
        return _HELLO_FIRST
    client.dialect = dialect
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


def _reset(context: Context) -> bytes:
    """The transaction is forgotten elsewhere (`transaction.py`)."""
    client = context.client
    client.dialect, client.name, client.authenticated = 2, b"", context.server.password is None
    return replies.status(b"RESET")


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


def _client_no_evict(context: Context) -> bytes:
    return replies.OK if context.args[2].lower() in (b"on", b"off") else SYNTAX_ERROR


def _client_info(context: Context) -> bytes:
    client = context.client
    line = b"id=%d name=%b db=0 resp=%d lib-name=%b lib-ver=%b\n" % (
        *(client.id, client.name, client.dialect),
        *(client.library, client.library_version),
    )
    return replies.text(line, client.dialect)


# ---------------------------------------------------------------------------------------------------------- the server


def _time(context: Context) -> bytes:
    now_us = time.time_ns() // 1_000
    return replies.array(replies.bulk(b"%d" % part) for part in divmod(now_us, 1_000_000))


def _wait(context: Context) -> bytes:
    """A write was answered when a quorum held it: so many others at least, without any waiting."""
    if parse_i64(context.args[1]) is None:
        return NOT_AN_INTEGER
    timeout = parse_i64(context.args[2])
    if timeout is None:
        return replies.error(b"ERR timeout is not an integer or out of range")
    if timeout < 0:
        return replies.error(b"ERR timeout is negative")
    peers = context.server.host.status().get("peers")
    return replies.integer((len(peers) + 1) // 2 if isinstance(peers, Mapping) else 0)


def _latency_none(context: Context) -> bytes:
    return replies.array(())


def _latency_reset(context: Context) -> bytes:
    return replies.integer(0)


def _settings(context: Context) -> dict[str, str]:
    """What Redis's settings of these names would have to be for Redis to behave as this replica does."""
    return {
        "appendfsync": "always",
        "appendonly": "yes",
        "databases": "1",
        "maxclients": str(context.server.max_clients),
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
    context.server.host.reset_stats()
    context.server.traffic.reset()
    return replies.OK


def _status(context: Context) -> bytes:
    return replies.bulk(json.dumps(context.server.host.status(), sort_keys=True).encode())


def _metrics(context: Context) -> bytes:
    return replies.bulk(context.server.host.prometheus().encode())


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


def _command_getkeys(context: Context) -> bytes:
    words = context.args[2:]
    spec = TABLE.get(words[0].lower())
    if spec is None:
        return replies.error(b"ERR Invalid command specified")
    first, last, step = spec.keys
    if not first:
        return replies.error(b"ERR The command has no key arguments")
    if not arity_fits(spec.arity, len(words)):
        return replies.error(b"ERR Invalid number of arguments specified for command")
    return replies.array(map(replies.bulk, words[first : last + 1 if last > 0 else None : step]))


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


def _container(context: Context) -> bytes:
    """A command whose second word says what is meant: one that it knows, as `plan` has found."""
    name, word = (each.lower() for each in context.args[:2])
    return _help(TABLE[name]) if word == b"help" else _ANSWERS[name + b"|" + word](context)


def _help(spec: Spec) -> bytes:
    lines = [f"{spec.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for subcommand in spec.subcommands:
        lines += (subcommand.name.upper(), "    " + subcommand.summary)
    return replies.array(replies.status(line.encode()) for line in (*lines, "HELP", "    Print this help."))


_ANSWERS: Final[Mapping[bytes, Answer]] = {
    b"auth": _auth,
    b"client": _container,
    b"command": lambda context: _container(context) if len(context.args) > 1 else _command(context),
    b"config": _container,
    b"echo": _echo,
    b"epaxos": _container,
    b"hello": _hello,
    b"info": info,
    b"latency": _container,
    b"ping": _ping,
    b"quit": _quit,
    b"reset": _reset,
    b"select": _select,
    b"time": _time,
    b"wait": _wait,
    b"client|getname": _client_getname,
    b"client|id": _client_id,
    b"client|info": _client_info,
    b"client|no-evict": _client_no_evict,
    b"client|setinfo": _client_setinfo,
    b"client|setname": _client_setname,
    b"command|count": _command_count,
    b"command|docs": _command_docs,
    b"command|getkeys": _command_getkeys,
    b"command|info": _command_info,
    b"command|list": _command_list,
    b"config|get": _config_get,
    b"config|resetstat": _reset_stats,
    b"epaxos|metrics": _metrics,
    b"epaxos|resetstats": _reset_stats,
    b"epaxos|status": _status,
    b"latency|history": _latency_none,
    b"latency|latest": _latency_none,
    b"latency|reset": _latency_reset,
}
"""What answers each command of the table that is `Shape.LOCAL`; those of transactions are in `transaction.py`."""
