"""One file describes the cluster: what it may say, and what people are told when it is wrong."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, strategies as st

from epaxos.config import Address, Config
from epaxos.errors import ConfigError
from epaxos.limits import LimitDoc, LimitsConfig, explain_limits
from epaxos.submission import Limits
from epaxos.toml_lines import key_lines

FILE = """\
cluster = "shop"
protocol = "epaxos"

[[replica]]
name = "CA"
peer = "10.0.0.1:7400"
client = "10.0.0.1:6379"

[[replica]]
name = "VA"
peer = "[::1]:7400"
client = "[::1]:6379"

[limits]
window = 7
retry_ms = 250
"""


def refusal(text: str, *overrides: str) -> str:
    """The message with which `text` is refused."""
    with pytest.raises(ConfigError) as caught:
        Config.parse(text, overrides=overrides)
    return str(caught.value)


def test_a_file_is_read_whole() -> None:
    config = Config.parse(FILE)
    assert (config.cluster, config.protocol, config.n, config.names) == ("shop", "epaxos", 2, ("CA", "VA"))
    assert config.replica("VA").peer == Address("::1", 7400)
    assert str(config.replica("VA").client) == "[::1]:6379"
    assert config.id_of("VA") == 1
    assert (config.limits.window, config.limits.retry_us) == (7, 250_000)
    assert config.limits.batch_commands == 4096
    assert config.observe.keys == ()


def test_who_should_lead_is_named_in_the_file_and_known_by_id() -> None:
    assert Config.parse(FILE).preferred is None
    assert Config.parse(FILE.replace("[limits]", '[raft]\npreferred = "VA"\n[limits]')).preferred == 1
    assert Config.parse(FILE, overrides=["raft.preferred=CA"]).preferred == 0


def test_the_secret_keys_the_hash_and_is_never_shown() -> None:
    def key(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=16, person=b"epaxos key hash").digest()

    assert Config.parse(FILE).secret == key("shop")
    secret = Config.parse('secret = "hush"\n' + FILE)
    assert secret.secret == key("hush")
    assert "secret" not in repr(secret)


def test_a_config_made_by_hand_is_checked_as_a_file_is() -> None:
    config = Config.parse(FILE)
    made = Config(cluster="shop", replicas=config.replicas, limits=config.limits)
    assert made == config
    with pytest.raises(ConfigError, match="cluster has 1 to 13 replicas"):
        Config(cluster="shop", replicas=())
    with pytest.raises(ConfigError, match="3 bytes, not 16"):
        Config(cluster="shop", replicas=config.replicas, secret=b"abc")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window", "windw", "cluster.toml:15: unknown key limits.windw; did you mean limits.window?"),
        ("protocol =", "protcol =", "cluster.toml:2: unknown key protcol; did you mean protocol?"),
        (
            "window = 7",
            "window = 0",
            "cluster.toml:15: limits.window = 0: must be an integer from 1 to 65536 (batches)",
        ),
        ("window = 7", "window = true", "cluster.toml:15: limits.window = true: must be an integer from 1"),
        ("window = 7", 'window = "7"', 'cluster.toml:15: limits.window = "7": must be an integer from 1'),
        ("window = 7", "batch_bytes = 8192", "cluster.toml:15: limits.batch_bytes = 8192: must be at least 983103"),
        (
            "window = 7",
            "frame_bytes = 1048576",
            "cluster.toml:15: limits.frame_bytes = 1048576: must be at least 1179648",
        ),
        ('"epaxos"', '"zab"', 'cluster.toml:2: protocol = "zab": must be one of: epaxos, raft'),
        ('"shop"', '"a shop"', 'cluster.toml:1: cluster = "a shop": must be 1 to 64 letters, digits'),
        ('"VA"', '"CA"', 'cluster.toml:10: replica.name = "CA": must be unique in the cluster'),
        ('"VA"', '"V.A"', 'cluster.toml:10: replica.name = "V.A": must be 1 to 64 letters, digits'),
        (
            "[::1]:6379",
            "10.0.0.1:7400",
            'cluster.toml:12: replica.client = "10.0.0.1:7400": must be unique; it is CA\'s',
        ),
        ("[::1]:6379", "ca", 'cluster.toml:12: replica.client = "ca": must be an address (expected host:port'),
        ("[::1]:6379", "::1:6379", 'cluster.toml:12: replica.client = "::1:6379": must be an address (an IPv6'),
        (
            "[::1]:6379",
            "h:70000",
            'cluster.toml:12: replica.client = "h:70000": must be an address (expected host:port',
        ),
        ("[::1]:7400", "[::1]:0", 'cluster.toml:11: replica.peer = "[::1]:0": must be an address with a fixed port'),
        ("name =", "nam =", "cluster.toml:5: unknown key replica.nam; did you mean replica.name?"),
        ('client = "10.0.0.1:6379"', "", "cluster.toml:4: replica.client = (absent): must be given"),
        (
            "[limits]",
            "[tls]",
            'cluster.toml:14: tls = "…": must be absent: TLS between replicas is not in this release',
        ),
        ("[limits]", "[limit]", "cluster.toml:14: unknown key limit; did you mean limits?"),
        (
            "[limits]",
            "[observe]\nkeys = [1]\n[limits]",
            "cluster.toml:15: observe.keys = [1]: must be an array of strings",
        ),
        (
            "[limits]",
            '[raft]\npreferred = "AV"\n[limits]',
            'cluster.toml:15: raft.preferred = "AV": must be the name of a replica; did you mean VA?',
        ),
        ("[limits]", "[raft]\npreferred = 1\n[limits]", "cluster.toml:15: raft.preferred = 1: must be a string"),
        ("[limits]", "[raft]\nlease = 1\n[limits]", "cluster.toml:15: unknown key raft.lease"),
        ('protocol = "epaxos"', "observe = 3", "cluster.toml:2: observe = 3: must be a table, written as [observe]"),
        ("window = 7", "window = ", "cluster.toml: Invalid value (at line 15, column 10)"),
        (
            'cluster = "shop"',
            'cluster = "shop"\nsecret = ""',
            'cluster.toml:2: secret = "": must be a non-empty string',
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_what_is_allowed(old: str, new: str, message: str) -> None:
    assert message in refusal(FILE.replace(old, new, 1))


def test_a_cluster_has_one_to_thirteen_replicas() -> None:
    def text(n: int) -> str:
        tables = [f'[[replica]]\nname="r{i}"\npeer="h:{2 * i + 1}"\nclient="h:{2 * i + 2}"\n' for i in range(n)]
        return 'cluster = "many"\n' + "".join(tables)

    assert [Config.parse(text(n)).n for n in (1, 13)] == [1, 13]
    assert "0 [[replica]] tables: a cluster has 1 to 13 replicas" in refusal(text(0))
    assert "14 [[replica]] tables" in refusal(text(14))
    assert "written as [[replica]]" in refusal(text(0) + "[replica]\n")


def test_ports_the_system_chooses_need_not_be_unique() -> None:
    text = 'cluster = "one"\n[[replica]]\nname = "A"\npeer = "127.0.0.1:0"\nclient = "127.0.0.1:0"\n'
    assert Config.parse(text).replica("A").client == Address("127.0.0.1", 0)


def test_overrides_reach_every_key() -> None:
    config = Config.parse(
        FILE,
        overrides=[
            "limits.window=9",
            "cluster=store",
            "replica.VA.client=127.0.0.1:1234",
            "observe.keys=['a', 'b']",
            'secret="x"',
        ],
    )
    assert (config.limits.window, config.limits.retry_ms, config.cluster) == (9, 250, "store")
    assert config.replica("VA").client == Address("127.0.0.1", 1234)
    assert config.observe.keys == ("a", "b")
    assert config.secret == Config.parse('secret = "x"\n' + FILE).secret


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limits.window=0", "--set limits.window=0: limits.window = 0: must be an integer from 1 to 65536 (batches)"),
        ("limits.windo=1", "--set limits.windo=1: unknown key limits.windo; did you mean limits.window?"),
        ("limit.window=1", "--set limit.window=1: unknown key limit; did you mean limits?"),
        ("limits.window", "--set limits.window: expected key=value"),
        ("limits=3", "--set limits=3: expected key=value"),
        ("replica.VB.peer=h:1", "expected replica.NAME.key=value with the name of a replica; did you mean VA?"),
        ("replica.VA.pear=h:1", "--set replica.VA.pear=h:1: unknown key replica.pear; did you mean replica.peer?"),
        ("protocol=zab", '--set protocol=zab: protocol = "zab": must be one of: epaxos, raft'),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    assert message in refusal(FILE, override)


def test_a_replica_that_is_not_there_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no replica 'CB' in cluster 'shop'; did you mean CA\?"):
        Config.parse(FILE).id_of("CB")


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"cannot read /nonexistent/cluster\.toml: No such file"):
        Config.load("/nonexistent/cluster.toml")


def test_the_engine_gets_its_part_of_the_bounds() -> None:
    assert LimitsConfig().engine() == Limits()
    assert LimitsConfig(window=3, lazy_us=17).engine() == Limits(window=3, lazy_us=17)


def test_every_bound_is_explained_and_its_default_stands_inside_its_range() -> None:
    docs = explain_limits()
    assert {doc.name for doc in docs} >= set(Limits._fields)
    for doc in docs:
        assert doc.range.low <= doc.default <= doc.range.high, doc.name
        assert doc.range.unit and doc.bounds and doc.too_small and doc.too_large, doc.name
        suffix = {"bytes": "_bytes", "microseconds": "_us", "milliseconds": "_ms"}.get(doc.range.unit, "")
        assert doc.name.endswith(suffix), f"{doc.name} counts {doc.range.unit}"


@pytest.mark.parametrize("doc", explain_limits(), ids=lambda doc: doc.name)
def test_no_bound_takes_a_value_outside_its_range(doc: LimitDoc) -> None:
    name, low, high = doc.name, doc.range.low, doc.range.high
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=rf"limits\.{name} = {value}: must be an integer from {low} to {high}"):
            LimitsConfig(**{name: value})


@given(st.text(st.sampled_from("abc.-1:"), min_size=1, max_size=12), st.integers(0, 65535))
def test_an_address_is_read_back_as_written(host: str, port: int) -> None:
    address = Address(host, port)
    assert Address.parse(str(address)) == address


def test_lines_of_keys() -> None:
    text = 'a = 1\n"b c".d = 2\n[t]\nx.y = 3\n[[r]]\nz = 4\n[[r]]\n# z = 0\nz = 5\nw = [\n  1,\n]\n[t.u]\nv = 6\n'
    assert key_lines(text) == {
        ("a",): 1,
        ("b c", "d"): 2,
        ("t",): 3,
        ("t", "x", "y"): 4,
        ("r",): 5,
        ("r", 0): 5,
        ("r", 0, "z"): 6,
        ("r", 1): 7,
        ("r", 1, "z"): 9,
        ("r", 1, "w"): 10,
        ("t", "u"): 13,
        ("t", "u", "v"): 14,
    }


def test_a_password_is_a_text_that_is_not_empty_and_is_never_shown() -> None:
    assert Config.parse(FILE).password is None
    config = Config.parse('password = "open"\n' + FILE)
    assert config.password == b"open"
    assert "open" not in repr(config)
    assert 'password = "": must be a non-empty string, or absent' in refusal('password = ""\n' + FILE)
