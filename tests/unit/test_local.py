"""What the replica at hand answers by itself: as Redis where Redis has such a thing, honest where it has not."""

from __future__ import annotations

import json

import hiredis
import pytest

from epaxos.gateway.commands import plan
from epaxos.gateway.context import Client, Context, Server, Traffic
from epaxos.gateway.items import Local, ParseLimits, Refused
from epaxos.gateway.local import answer
from epaxos.gateway.table import TABLE
from epaxos.limits import LimitsConfig

LIMITS = ParseLimits.of(LimitsConfig())
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"


class Host:
    def __init__(self) -> None:
        self.resets = 0
        self.clock_us = 0

    def now_us(self) -> int:
        return self.clock_us

    def status(self) -> dict[str, object]:
        return {"name": "CA", "executed": 7, "lanes": [1, 2]}

    def prometheus(self) -> str:
        return "epaxos_executed_commands_total 7\n"

    def reset_stats(self) -> None:
        self.resets += 1


class Conversation:
    """One connection that asks and is answered."""

    def __init__(self) -> None:
        self.host = Host()
        self.client = Client(id=42)
        self.server = Server(self.host, None, 10_000, lambda: 5, 6379, Traffic())

    def ask(self, *words: str | bytes) -> bytes:
        planned = plan([word.encode() if isinstance(word, str) else word for word in words], LIMITS)
        if isinstance(planned, Refused):
            return planned.reply
        assert isinstance(planned, Local)
        return answer(Context(self.server, self.client, 3, planned.args))

    def understand(self, *words: str) -> object:
        reader = hiredis.Reader()
        reader.feed(self.ask(*words))
        return reader.gets()


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


# What Redis 7.0.15 answered to each of these.
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("ping", b"+PONG\r\n"),
        ("PING x", b"$1\r\nx\r\n"),
        ("ping x y", b"-ERR wrong number of arguments for 'ping' command\r\n"),
        ("echo x", b"$1\r\nx\r\n"),
        ("quit", b"+OK\r\n"),
        ("select 0", b"+OK\r\n"),
        ("select 99", b"-ERR DB index is out of range\r\n"),
        ("select -1", b"-ERR DB index is out of range\r\n"),
        ("select x", b"-ERR value is not an integer or out of range\r\n"),
        (
            "select 99999999999",
            b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        ),
        ("hello 4", b"-NOPROTO unsupported protocol version\r\n"),
        ("hello x", b"-ERR Protocol version is not an integer or out of range\r\n"),
        ("hello 2 foo", b"-ERR Syntax error in HELLO option 'foo'\r\n"),
        ("hello 2 setname", b"-ERR Syntax error in HELLO option 'setname'\r\n"),
        ("client id", b":42\r\n"),
        ("client getname", b"$-1\r\n"),
        ("client setname ab", b"+OK\r\n"),
        ("client setname a\x01", BAD_NAME),
        ("client foo", b"-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"),
        ("client", b"-ERR wrong number of arguments for 'client' command\r\n"),
        ("client id x", b"-ERR wrong number of arguments for 'client|id' command\r\n"),
        ("client setinfo lib-name redis-py", b"+OK\r\n"),
        ("config get save", b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("config get SAVE", b"*2\r\n$4\r\nSAVE\r\n$0\r\n\r\n"),
        ("config get nosuch", b"*0\r\n"),
        ("config get", b"-ERR wrong number of arguments for 'config|get' command\r\n"),
        ("CONFIG foo\r\nx", b"-ERR unknown subcommand 'foo  x'. Try CONFIG HELP.\r\n"),
        ("config resetstat", b"+OK\r\n"),
        ("command foo", b"-ERR unknown subcommand 'foo'. Try COMMAND HELP.\r\n"),
        ("command count x", b"-ERR wrong number of arguments for 'command|count' command\r\n"),
        ("command info nosuch", b"*1\r\n$-1\r\n"),
        ("command docs nosuch", b"*0\r\n"),
        ("info nosuch", b"$0\r\n\r\n"),
    ],
)
def test_as_redis(talk: Conversation, text: str, reply: bytes) -> None:
    assert talk.ask(*text.split(" ")) == reply


def test_hello_says_what_redis_says_in_the_dialect_that_was_chosen(talk: Conversation) -> None:
    said = (
        b"$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:42\r\n"
        b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    )
    assert talk.ask("HELLO") == b"*14\r\n" + said % 2
    assert talk.ask("HELLO", "3") == b"%7\r\n" + said % 3
    assert talk.client.dialect == 3
    assert talk.ask("client", "getname") == b"_\r\n"
    assert talk.ask("config", "get", "save") == b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n"
    assert talk.ask("info", "nosuch") == b"=4\r\ntxt:\r\n"
    assert talk.ask("command", "docs", "nosuch") == b"%0\r\n"
    assert talk.ask("HELLO", "2") == b"*14\r\n" + said % 2


def test_a_hello_that_fails_leaves_the_dialect_and_what_its_first_options_did(talk: Conversation) -> None:
    assert talk.ask("hello", "3", "setname", "a b") == BAD_NAME
    assert talk.ask("client", "getname") == b"$-1\r\n"
    assert talk.ask("hello", "3", "setname", "x", "foo") == b"-ERR Syntax error in HELLO option 'foo'\r\n"
    assert talk.ask("client", "getname") == b"$1\r\nx\r\n"
    assert talk.ask("hello", "2", "setname", "me").startswith(b"*14\r\n")
    assert talk.ask("client", "getname") == b"$2\r\nme\r\n"


def test_what_a_connection_is_told_it_remembers(talk: Conversation) -> None:
    talk.ask("client", "setname", "me")
    talk.ask("client", "setinfo", "LIB-NAME", "redis-py")
    talk.ask("client", "setinfo", "lib-ver", "8.1")
    assert talk.ask("client", "setinfo", "colour", "red") == b"-ERR Unrecognized option 'colour'\r\n"
    assert talk.ask("client", "setinfo", "lib-ver", "8 1").startswith(b"-ERR lib-ver cannot contain spaces")
    assert talk.understand("client", "info") == b"id=42 name=me db=0 resp=2 lib-name=redis-py lib-ver=8.1\n"


def test_redis_benchmark_learns_that_writes_are_durable(talk: Conversation) -> None:
    assert talk.understand("config", "get", "appendonly", "sav?") == [b"appendonly", b"yes", b"save", b""]
    assert talk.understand("config", "get", "max*") == [
        *(b"maxclients", b"10000", b"maxmemory", b"0"),
        *(b"maxmemory-policy", b"noeviction"),
    ]


def test_info_has_sections(talk: Conversation) -> None:
    everything = talk.understand("info")
    assert isinstance(everything, bytes)
    lines = everything.split(b"\r\n")
    assert [line for line in lines if line.startswith(b"#")] == [
        *(
            b"# Server",
            b"# Clients",
            b"# Memory",
            b"# Persistence",
            b"# Stats",
            b"# Replication",
            b"# CPU",
            b"# Cluster",
        ),
        *(b"# Keyspace", b"# Epaxos"),
    ]
    assert b"connected_clients:3" in lines and b"executed:7" in lines and b"name:CA" in lines
    assert talk.understand("info", "KEYSPACE") == b"# Keyspace\r\ndb0:keys=5,expires=0,avg_ttl=0\r\n"


def test_info_counts_what_dashboards_read(talk: Conversation) -> None:
    def told() -> dict[str, str]:
        text = talk.understand("info")
        assert isinstance(text, bytes)
        return dict(line.split(":", 1) for line in text.decode().split("\r\n") if ":" in line)

    traffic = talk.server.traffic
    traffic.connections, traffic.turned_away, traffic.input_bytes, traffic.output_bytes = 9, 1, 100, 200
    for second, commands in ((0, 5), (1, 20), (1, 30)):
        traffic.count(commands, second * 1_000_000 + 7)
    for second, per_s in ((1, 5), (2, 50), (3, 0)):
        talk.host.clock_us = second * 1_000_000
        assert told()["instantaneous_ops_per_sec"] == str(per_s)
    names = ("total_connections_received", "rejected_connections", "total_net_input_bytes", "total_net_output_bytes")
    assert [told()[name] for name in names] == ["9", "1", "100", "200"]
    assert told()["tcp_port"] == "6379"
    assert told()["used_memory_human"][-1] in "KMG"
    talk.ask("config", "resetstat")
    assert [told()[name] for name in names] == ["0"] * 4


def test_the_commands_are_those_of_the_table(talk: Conversation) -> None:
    assert talk.understand("command", "count") == len(TABLE)
    assert talk.understand("command", "list") == list(TABLE)
    described = talk.understand("command")
    assert isinstance(described, list)
    assert [each[0] for each in described] == list(TABLE)
    assert talk.understand("command", "info", "mset") == [
        [b"mset", -3, [b"write", b"denyoom"], 1, -1, 2, [], [], [], []],
    ]
    assert talk.understand("command", "docs", "GET") == [
        b"get",
        [b"summary", b"Get the value of a key", b"since", b"1.0.0", b"group", b"string"],
    ]


@pytest.mark.parametrize("name", ["client", "command", "config", "epaxos"])
def test_help_names_every_subcommand(talk: Conversation, name: str) -> None:
    listing = talk.understand(name, "help")
    assert isinstance(listing, list)
    first, *lines = listing
    assert first == f"{name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".encode()
    assert lines[-2:] == [b"HELP", b"    Print this help."]
    for subcommand in (line.decode() for line in lines[:-2:2]):
        assert not talk.ask(name, subcommand).startswith(b"-ERR unknown subcommand")


def test_epaxos_status_is_json_and_the_counters_can_be_reset(talk: Conversation) -> None:
    status = talk.understand("EPAXOS", "STATUS")
    assert isinstance(status, bytes)
    assert json.loads(status) == talk.host.status()
    assert talk.understand("EPAXOS", "METRICS") == b"epaxos_executed_commands_total 7\n"
    assert talk.ask("EPAXOS", "RESETSTATS") == talk.ask("config", "resetstat") == b"+OK\r\n"
    assert talk.host.resets == 2
    assert talk.ask("epaxos", "foo") == b"-ERR unknown subcommand 'foo'. Try EPAXOS HELP.\r\n"
