"""The commands of the Redis front end: one table, from which everything that knows a command by name is driven.

A line says how the command is called, what Redis says of it, how its words become entries, and which operation of the
key-value machine (`machines.kv.Op`) it is. Its footprint follows: its keys or the whole state, read or written.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from epaxos.command import READ, Command
from epaxos.gateway import encode
from epaxos.gateway.items import Refused
from epaxos.machines.kv import INCREMENT, SET_GET, Op


class Shape(enum.IntEnum):
    """How the words behind the name become entries."""

    LOCAL = 0
    """Not at all: the replica at hand answers."""
    KEY = 1
    """One key; the payload is the same for every such command."""
    KEY_VALUE = 2
    """One key and its payload."""
    KEYS = 3
    """Keys, one or more, without a payload."""
    PAIRS = 4
    """Keys, each with its payload."""
    CUSTOM = 5
    """By a function."""
    WORDS = 6
    """One key; its payload is the other words, packed."""
    WHOLE = 7
    """No key, for the whole state is touched; the payload is the words, packed."""


Encoder = Callable[[int, int, Sequence[bytes]], Command | Refused]
"""(operation, flags, words) -> what becomes of them."""


class Subcommand(NamedTuple):
    """A second word that a command knows."""

    name: str
    arity: int
    """Counts both words."""
    summary: str


class Spec(NamedTuple):
    """One command."""

    name: str
    arity: int
    """The number of words with the name, or its negative when there may be more."""
    flags: tuple[str, ...]
    """As `COMMAND INFO` says them."""
    keys: tuple[int, int, int]
    """The positions of the first and last key and the step between keys; (0, 0, 0) without keys."""
    group: str
    since: str
    summary: str
    shape: Shape = Shape.LOCAL
    op: int = 0
    entry_flags: int = 0
    """Of every entry: `READ` for a command that only reads, and options of the operation."""
    payload: bytes = b""
    """Of a `KEY` command."""
    encode: Encoder | None = None
    """Of a `CUSTOM` command; of a `KEY_VALUE` command, what to do with further words."""
    typed: bool = False
    """Has its reply a type of its own in RESP3?"""
    subcommands: tuple[Subcommand, ...] = ()
    """If there are any, the second word is one of them, or HELP."""
    touches: str = "nothing"
    """Of a `LOCAL` command, in words: what it has replicated all the same, in `transaction.py` or `sessions.py`."""

    @property
    def footprint(self) -> str:
        """What the command touches, in words."""
        if self.shape is Shape.LOCAL:
            return self.touches
        return ("reads " if self.entry_flags & READ else "writes ") + (
            "everything" if self.shape is Shape.WHOLE else "its key" if self.keys == _ONE else "its keys"
        )


_ONE: Final = (1, 1, 1)
_TWO: Final = (1, 2, 1)
_ALL: Final = (1, -1, 1)
_EVERY_OTHER: Final = (1, -1, 2)
_NONE: Final = (0, 0, 0)

_READS_FAST: Final = ("readonly", "fast")
_READS: Final = ("readonly",)
_WRITES_FAST: Final = ("write", "fast")
_WRITES: Final = ("write",)
_GROWS: Final = ("write", "denyoom")
_GROWS_FAST: Final = ("write", "denyoom", "fast")
_STEERS: Final = ("noscript", "loading", "stale", "fast", "allow_busy")
_EXECUTES: Final = ("noscript", "loading", "stale", "skip_slowlog")
_FAST: Final = ("fast",)
_ANSWERS_FAST: Final = ("loading", "stale", "fast")
_GREETS: Final = ("noscript", "loading", "stale", "fast", "no_auth", "allow_busy")
_ANSWERS: Final = ("loading", "stale")
_WAITS: Final = ("noscript",)

_STRING: Final = "string"
_GENERIC: Final = "generic"
_HASH: Final = "hash"
_SET: Final = "set"
_LIST: Final = "list"
_TRANSACTIONS: Final = "transactions"
_CONNECTION: Final = "connection"
_SERVER: Final = "server"

_WATCHED: Final = "writes the watched keys"

# fmt: off
_SPECS: Final = (
    # Strings
    Spec("get", 2, _READS_FAST, _ONE, _STRING, "1.0.0", "Get the value of a key",
         Shape.KEY, Op.GET, READ),
    Spec("set", -3, _GROWS, _ONE, _STRING, "1.0.0", "Set the value of a key (NX, XX, GET)",
         Shape.KEY_VALUE, Op.SET, encode=encode.set_),
    Spec("incr", 2, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Increment the integer value of a key by one",
         Shape.KEY, Op.INCRBY, payload=INCREMENT.pack(1)),
    Spec("setnx", 3, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Set the value of a key that does not exist",
         Shape.KEY_VALUE, Op.SETNX),
    Spec("getset", 3, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Set the value of a key and return the one before",
         Shape.KEY_VALUE, Op.SET, SET_GET),
    Spec("getdel", 2, _WRITES_FAST, _ONE, _STRING, "6.2.0", "Delete a key and return its value",
         Shape.KEY, Op.GETDEL),
    Spec("mget", -2, _READS_FAST, _ALL, _STRING, "1.0.0", "Get the values of keys, all at one moment",
         Shape.KEYS, Op.MGET, READ),
    Spec("mset", -3, _GROWS, _EVERY_OTHER, _STRING, "1.0.1", "Set the values of keys, all at one moment",
         Shape.PAIRS, Op.MSET),
    Spec("msetnx", -3, _GROWS, _EVERY_OTHER, _STRING, "1.0.1", "Set the values of keys if none of them exists",
         Shape.PAIRS, Op.MSETNX),
    Spec("append", 3, _GROWS_FAST, _ONE, _STRING, "2.0.0", "Append to the value of a key",
         Shape.KEY_VALUE, Op.APPEND),
    Spec("strlen", 2, _READS_FAST, _ONE, _STRING, "2.2.0", "Get the length of the value of a key",
         Shape.KEY, Op.STRLEN, READ),
    Spec("setrange", 4, _GROWS, _ONE, _STRING, "2.2.0", "Overwrite a part of the value of a key",
         Shape.WORDS, Op.SETRANGE),
    Spec("getrange", 4, _READS, _ONE, _STRING, "2.4.0", "Get a part of the value of a key",
         Shape.WORDS, Op.GETRANGE, READ),
    Spec("substr", 4, _READS, _ONE, _STRING, "1.0.0", "The old name of GETRANGE",
         Shape.WORDS, Op.GETRANGE, READ),
    Spec("decr", 2, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Decrement the integer value of a key by one",
         Shape.KEY, Op.INCRBY, payload=INCREMENT.pack(-1)),
    Spec("incrby", 3, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Increment the integer value of a key",
         Shape.CUSTOM, Op.INCRBY, encode=encode.incrby),
    Spec("decrby", 3, _GROWS_FAST, _ONE, _STRING, "1.0.0", "Decrement the integer value of a key",
         Shape.CUSTOM, Op.INCRBY, encode=encode.decrby),
    Spec("incrbyfloat", 3, _GROWS_FAST, _ONE, _STRING, "2.6.0", "Increment the value of a key by a decimal number",
         Shape.WORDS, Op.INCRBYFLOAT),
    # Keys
    Spec("del", -2, _WRITES, _ALL, _GENERIC, "1.0.0", "Delete keys",
         Shape.KEYS, Op.DEL),
    Spec("unlink", -2, _WRITES_FAST, _ALL, _GENERIC, "4.0.0", "Delete keys: the same as DEL",
         Shape.KEYS, Op.DEL),
    Spec("exists", -2, _READS_FAST, _ALL, _GENERIC, "1.0.0", "Count the keys that exist",
         Shape.KEYS, Op.EXISTS, READ),
    Spec("touch", -2, _READS_FAST, _ALL, _GENERIC, "3.2.1", "Count the keys that exist: the same as EXISTS",
         Shape.KEYS, Op.EXISTS, READ),
    Spec("type", 2, _READS_FAST, _ONE, _GENERIC, "1.0.0", "Get the type of the value of a key",
         Shape.KEY, Op.TYPE, READ),
    Spec("rename", 3, _WRITES, _TWO, _GENERIC, "1.0.0", "Give a value another key",
         Shape.CUSTOM, Op.RENAME, encode=encode.keys),
    Spec("renamenx", 3, _WRITES_FAST, _TWO, _GENERIC, "1.0.0", "Give a value another key that does not exist",
         Shape.CUSTOM, Op.RENAMENX, encode=encode.keys),
    Spec("dbsize", 1, _READS_FAST, _NONE, _SERVER, "1.0.0", "Count all keys",
         Shape.WHOLE, Op.DBSIZE, READ),
    Spec("scan", -2, _READS, _NONE, _GENERIC, "2.8.0", "List all keys page by page (MATCH, COUNT, TYPE)",
         Shape.WHOLE, Op.SCAN, READ),
    Spec("keys", 2, _READS, _NONE, _GENERIC, "1.0.0", "List the keys that match a pattern",
         Shape.WHOLE, Op.KEYS, READ),
    Spec("randomkey", 1, _READS, _NONE, _GENERIC, "1.0.0", "Get some key: the first in the order of SCAN",
         Shape.WHOLE, Op.RANDOMKEY, READ),
    Spec("flushall", -1, _WRITES, _NONE, _SERVER, "1.0.0", "Delete all keys",
         Shape.WHOLE, Op.FLUSH),
    Spec("flushdb", -1, _WRITES, _NONE, _SERVER, "1.0.0", "Delete all keys: there is one database",
         Shape.WHOLE, Op.FLUSH),
    # Hashes
    Spec("hset", -4, _GROWS_FAST, _ONE, _HASH, "2.0.0", "Set fields of a hash",
         Shape.WORDS, Op.HSET),
    Spec("hmset", -4, _GROWS_FAST, _ONE, _HASH, "2.0.0", "Set fields of a hash: the old form of HSET",
         Shape.WORDS, Op.HMSET),
    Spec("hsetnx", 4, _GROWS_FAST, _ONE, _HASH, "2.0.0", "Set a field of a hash that does not exist",
         Shape.WORDS, Op.HSETNX),
    Spec("hget", 3, _READS_FAST, _ONE, _HASH, "2.0.0", "Get a field of a hash",
         Shape.WORDS, Op.HGET, READ),
    Spec("hmget", -3, _READS_FAST, _ONE, _HASH, "2.0.0", "Get fields of a hash",
         Shape.WORDS, Op.HMGET, READ),
    Spec("hgetall", 2, _READS, _ONE, _HASH, "2.0.0", "Get all fields of a hash and their values",
         Shape.WORDS, Op.HGETALL, READ, typed=True),
    Spec("hkeys", 2, _READS, _ONE, _HASH, "2.0.0", "Get all fields of a hash",
         Shape.KEY, Op.HKEYS, READ),
    Spec("hvals", 2, _READS, _ONE, _HASH, "2.0.0", "Get the values of all fields of a hash",
         Shape.KEY, Op.HVALS, READ),
    Spec("hlen", 2, _READS_FAST, _ONE, _HASH, "2.0.0", "Count the fields of a hash",
         Shape.KEY, Op.HLEN, READ),
    Spec("hexists", 3, _READS_FAST, _ONE, _HASH, "2.0.0", "Does a hash have this field?",
         Shape.WORDS, Op.HEXISTS, READ),
    Spec("hstrlen", 3, _READS_FAST, _ONE, _HASH, "3.2.0", "Get the length of a field of a hash",
         Shape.WORDS, Op.HSTRLEN, READ),
    Spec("hdel", -3, _WRITES_FAST, _ONE, _HASH, "2.0.0", "Delete fields of a hash",
         Shape.WORDS, Op.HDEL),
    Spec("hincrby", 4, _GROWS_FAST, _ONE, _HASH, "2.0.0", "Increment the integer value of a field of a hash",
         Shape.WORDS, Op.HINCRBY),
    Spec("hscan", -3, _READS, _ONE, _HASH, "2.8.0", "List the fields of a hash and their values (MATCH, COUNT)",
         Shape.WORDS, Op.HSCAN, READ),
    # Sets
    Spec("sadd", -3, _GROWS_FAST, _ONE, _SET, "1.0.0", "Add members to a set",
         Shape.WORDS, Op.SADD),
    Spec("srem", -3, _WRITES_FAST, _ONE, _SET, "1.0.0", "Take members out of a set",
         Shape.WORDS, Op.SREM),
    Spec("sismember", 3, _READS_FAST, _ONE, _SET, "1.0.0", "Is this a member of a set?",
         Shape.WORDS, Op.SISMEMBER, READ),
    Spec("smismember", -3, _READS_FAST, _ONE, _SET, "6.2.0", "Which of these are members of a set?",
         Shape.WORDS, Op.SMISMEMBER, READ),
    Spec("smembers", 2, _READS, _ONE, _SET, "1.0.0", "Get all members of a set",
         Shape.WORDS, Op.SMEMBERS, READ, typed=True),
    Spec("scard", 2, _READS_FAST, _ONE, _SET, "1.0.0", "Count the members of a set",
         Shape.KEY, Op.SCARD, READ),
    Spec("spop", -2, _WRITES_FAST, _ONE, _SET, "1.0.0", "Take out the members that came first",
         Shape.WORDS, Op.SPOP, typed=True),
    Spec("sscan", -3, _READS, _ONE, _SET, "2.8.0", "List the members of a set (MATCH, COUNT)",
         Shape.WORDS, Op.SSCAN, READ),
    # Lists
    Spec("lpush", -3, _GROWS_FAST, _ONE, _LIST, "1.0.0", "Add elements at the left of a list",
         Shape.WORDS, Op.LPUSH),
    Spec("rpush", -3, _GROWS_FAST, _ONE, _LIST, "1.0.0", "Add elements at the right of a list",
         Shape.WORDS, Op.RPUSH),
    Spec("lpushx", -3, _GROWS_FAST, _ONE, _LIST, "2.2.0", "Add elements at the left of a list that exists",
         Shape.WORDS, Op.LPUSHX),
    Spec("rpushx", -3, _GROWS_FAST, _ONE, _LIST, "2.2.0", "Add elements at the right of a list that exists",
         Shape.WORDS, Op.RPUSHX),
    Spec("lpop", -2, _WRITES_FAST, _ONE, _LIST, "1.0.0", "Take elements out at the left of a list",
         Shape.WORDS, Op.LPOP),
    Spec("rpop", -2, _WRITES_FAST, _ONE, _LIST, "1.0.0", "Take elements out at the right of a list",
         Shape.WORDS, Op.RPOP),
    Spec("llen", 2, _READS_FAST, _ONE, _LIST, "1.0.0", "Count the elements of a list",
         Shape.KEY, Op.LLEN, READ),
    Spec("lrange", 4, _READS, _ONE, _LIST, "1.0.0", "Get a part of a list",
         Shape.WORDS, Op.LRANGE, READ),
    Spec("lindex", 3, _READS, _ONE, _LIST, "1.0.0", "Get an element of a list",
         Shape.WORDS, Op.LINDEX, READ),
    Spec("lset", 4, _GROWS, _ONE, _LIST, "1.0.0", "Set an element of a list",
         Shape.WORDS, Op.LSET),
    Spec("ltrim", 4, _WRITES, _ONE, _LIST, "1.0.0", "Keep a part of a list only",
         Shape.WORDS, Op.LTRIM),
    # Transactions
    Spec("multi", 1, _STEERS, _NONE, _TRANSACTIONS, "1.2.0", "Queue the commands that follow"),
    Spec("exec", 1, _EXECUTES, _NONE, _TRANSACTIONS, "1.2.0", "Run the queued commands, if no watched key has changed",
         touches="what its commands touch; writes the watched keys"),
    Spec("discard", 1, _STEERS, _NONE, _TRANSACTIONS, "2.0.0", "Forget the queued commands",
         touches=_WATCHED),
    Spec("watch", -2, _STEERS, _ALL, _TRANSACTIONS, "2.2.0", "Have EXEC refused when one of these keys changes",
         touches="writes its keys"),
    Spec("unwatch", 1, _STEERS, _NONE, _TRANSACTIONS, "2.2.0", "Watch no key any more",
         touches=_WATCHED),
    # The connection and the server
    Spec("ping", -1, _FAST, _NONE, _CONNECTION, "1.0.0", "Ping this replica"),
    Spec("echo", 2, _ANSWERS_FAST, _NONE, _CONNECTION, "1.0.0", "Repeat the given string"),
    Spec("auth", -2, _GREETS, _NONE, _CONNECTION, "1.0.0", "Show the password"),
    Spec("hello", -1, _GREETS, _NONE, _CONNECTION, "6.0.0", "Choose the dialect: 2 or 3 (AUTH, SETNAME)"),
    Spec("select", 2, _ANSWERS_FAST, _NONE, _CONNECTION, "1.0.0", "Select the database: there is 0 only"),
    Spec("reset", 1, _GREETS, _NONE, _CONNECTION, "6.2.0", "Begin the connection anew",
         touches=_WATCHED),
    Spec("quit", -1, _GREETS, _NONE, _CONNECTION, "1.0.0", "Close the connection",
         touches=_WATCHED),
    Spec("client", -2, (), _NONE, _CONNECTION, "2.4.0", "About this connection",
         subcommands=(
             Subcommand("getname", 2, "The name of this connection."),
             Subcommand("id", 2, "The number of this connection."),
             Subcommand("info", 2, "What is known of this connection."),
             Subcommand("no-evict", 3, "ON or OFF: no connection is ever evicted."),
             Subcommand("setinfo", 4, "Tell LIB-NAME or LIB-VER of the client's library."),
             Subcommand("setname", 3, "Give this connection a name."),
         )),
    Spec("command", -1, _ANSWERS, _NONE, _SERVER, "2.8.13", "The commands of this server",
         subcommands=(
             Subcommand("count", 2, "How many commands there are."),
             Subcommand("docs", -2, "What the commands of these names do, or all."),
             Subcommand("getkeys", -4, "The keys of a command with its arguments."),
             Subcommand("info", -2, "Arity, flags and keys of the commands of these names, or of all."),
             Subcommand("list", 2, "The names of all commands."),
         )),
    Spec("config", -2, (), _NONE, _SERVER, "2.0.0", "What Redis clients ask of a configuration",
         subcommands=(
             Subcommand("get", -3, "What clients ask of a configuration; `epaxos config explain` says more."),
             Subcommand("resetstat", 2, "Begin the counters anew."),
         )),
    Spec("info", -1, _ANSWERS, _NONE, _SERVER, "1.0.0", "About this replica, for people and dashboards"),
    Spec("time", 1, _ANSWERS_FAST, _NONE, _SERVER, "2.6.0", "The clock of this replica"),
    Spec("wait", 3, _WAITS, _NONE, _GENERIC, "3.0.0", "How many other replicas hold every write answered so far"),
    Spec("latency", -2, (), _NONE, _SERVER, "2.8.13", "What Redis's latency monitor says when it is off",
         subcommands=(
             Subcommand("history", 3, "Nothing: spikes are not recorded; see INFO and the metrics."),
             Subcommand("latest", 2, "Nothing, likewise."),
             Subcommand("reset", -2, "How many events were forgotten: none."),
         )),
    Spec("epaxos", -2, _ANSWERS_FAST, _NONE, _SERVER, "0.1.0", "STATUS, METRICS, RESETSTATS, SESSION, CALL",
         subcommands=(
             Subcommand("call", -6, "A handle, a number, a floor and a command: have it applied exactly once."),
             Subcommand("metrics", 2, "Counters and latencies of this replica, for Prometheus."),
             Subcommand("resetstats", 2, "Begin the counters anew."),
             Subcommand("session", -3, "OPEN [FIFO] gives the handle of a session; CLOSE ends it."),
             Subcommand("status", 2, "Counters and watermarks of this replica, as JSON."),
         ), touches="nothing; `CALL` what its command touches, `SESSION OPEN` its session, `SESSION CLOSE` everything"),
)
# fmt: on

TABLE: Final = {spec.name.encode(): spec for spec in _SPECS}
"""Every command, by its name in lower case. The frequent ones stand first: the compiled parser looks in this order."""
