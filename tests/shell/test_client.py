"""The native client: pipelining, failover, and what is known of a command when something goes wrong."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from epaxos.client import Client, ResponseError, encode
from epaxos.config import Address, Config
from epaxos.errors import ConfigError, ProtocolError, Rejected, Unknown
from epaxos.gateway.server import Gateway, serve_clients
from epaxos.limits import LimitsConfig
from tests.conftest import ClusterText, MakeConfig
from tests.shell.fake_replica import FakeReplica, request

pytestmark = pytest.mark.trio


class Site:
    """Where one replica listens: a gateway, or the raw ends of connections for the test to play the replica."""

    def __init__(self) -> None:
        self.replica = FakeReplica()
        self.limits = LimitsConfig()
        self.down = False
        self.silent = False
        """Connections are not accepted, and not refused either."""
        self.raw = False
        """The test plays the replica."""
        self.lockstep = False
        """A connection holds nothing: who sends waits until it is received."""
        self.accepted: list[trio.abc.Stream] = []


class Cluster:
    """Three sites reached by the addresses of `config`."""

    def __init__(self, config: Config, nursery: trio.Nursery) -> None:
        self.config = config
        self.sites = {replica.name: Site() for replica in config.replicas}
        self._by_address = {replica.client: self.sites[replica.name] for replica in config.replicas}
        self._nursery = nursery
        self.calls: list[str] = []

    async def connect(self, address: Address) -> trio.abc.Stream:
        site = self._by_address[address]
        self.calls.append(next(each.name for each in self.config.replicas if each.client == address))
        await trio.lowlevel.checkpoint()
        if site.silent:
            await trio.sleep_forever()
        if site.down:
            raise ConnectionRefusedError(111, "Connection refused")
        pair_of = trio.testing.lockstep_stream_pair if site.lockstep else trio.testing.memory_stream_pair
        mine, theirs = pair_of()
        site.accepted.append(theirs)
        if not site.raw:
            self._nursery.start_soon(Gateway(site.replica, site.limits).serve, theirs)
        return mine

    def client(self, near: str | None = None, *, retry_ms: int = 0) -> Client:
        return Client(self.config, near, connect=self.connect, retry_ms=retry_ms)


@pytest.fixture
async def cluster(make_config: MakeConfig) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        yield Cluster(make_config(3), nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(cluster: Cluster, near: str = "CA") -> AsyncIterator[tuple[Client, trio.abc.Stream]]:
    """A connected client, and the replica's end of its connection for the test to play the replica."""
    site = cluster.sites[near]
    site.raw = True
    async with cluster.client(near) as kv, trio.open_nursery() as nursery:
        nursery.start_soon(kv.ping)
        await trio.testing.wait_all_tasks_blocked()
        (stream,) = site.accepted
        assert await stream.receive_some() == request(b"PING")
        await stream.send_all(b"+PONG\r\n")
        await trio.testing.wait_all_tasks_blocked()
        yield kv, stream


class Outcome:
    """What became of a command that runs beside the test."""

    def __init__(self) -> None:
        self.value: object = None
        self.error: BaseException | None = None
        self.known = trio.Event()

    async def of(self, client: Client, *words: str) -> None:
        try:
            self.value = await client.execute(*words)
        except (Rejected, Unknown, ResponseError) as error:
            self.error = error
        self.known.set()


async def start(nursery: trio.Nursery, client: Client, *words: str) -> Outcome:
    """Begin a command, and let it get as far as it gets."""
    outcome = Outcome()
    nursery.start_soon(outcome.of, client, *words)
    await trio.testing.wait_all_tasks_blocked()
    return outcome


# ------------------------------------------------------------------------------------------------------------ commands


async def test_every_command_says_what_redis_says_in_words_of_python(cluster: Cluster) -> None:
    async with cluster.client() as kv:
        await kv.ping()
        assert await kv.get("k") is None
        assert await kv.set("k", "v") is True
        assert await kv.set(b"k", b"w", nx=True) is False
        assert await kv.set("none", "w", xx=True) is False
        assert await kv.set("k", "x", xx=True, get=True) == b"v"
        assert await kv.set("fresh", "x", get=True) is None
        assert await kv.get(b"k") == b"x"
        assert await kv.setnx("k", "y") is False
        assert await kv.setnx("new", "y") is True
        assert await kv.getset("new", "z") == b"y"
        assert await kv.getset("newer", "z") is None
        assert await kv.exists("k", "none", "new") == 2
        assert await kv.delete("k", "none", "new") == 2
        assert await kv.incr("n") == 1
        assert await kv.incrby("n", 41) == 42
        assert await kv.decr("n") == 41
        assert await kv.decrby("n", 100) == -59
        assert await kv.append("n", "é") == 5
        assert await kv.strlen("n") == 5
        await kv.mset({"a": "1", "b": 2})
        assert await kv.mget("a", "none", b"b") == [b"1", None, b"2"]
        assert await kv.execute("ECHO", b"\xff\r\n") == b"\xff\r\n"
        assert await kv.execute("COMMAND", "COUNT") > 20


async def test_errors_say_whose_fault_it_is_and_what_is_known(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        replies = (
            b"-ERR value is not an integer or out of range\r\n"
            b"-BUSY try again: not applied\r\n"
            b"-REJECTED deadline: never proposed: not applied\r\n"
            b"-REJECTED something_new: not applied\r\n"
            b"-NOQUORUM 1 of 3: not applied\r\n"
            b"-UNKNOWN the deadline passed: may or may not have been applied\r\n"
        )
        outcomes = [await start(nursery, kv, "INCR", "k") for _ in range(6)]
        await stream.send_all(replies)
        await trio.testing.wait_all_tasks_blocked()
        wrong, busy, late, new, alone, unknown = (outcome.error for outcome in outcomes)
        assert isinstance(wrong, ResponseError) and wrong.code == "ERR"
        assert str(wrong) == "ERR value is not an integer or out of range"
        assert [(each.reason, each.detail) for each in (busy, late, new, alone) if isinstance(each, Rejected)] == [
            ("busy", "try again"),
            ("deadline", "never proposed"),
            ("closed", "something_new"),
            ("no_quorum", "1 of 3"),
        ]
        assert isinstance(unknown, Unknown) and str(unknown) == "the deadline passed"


async def test_a_reply_of_the_wrong_type_is_the_replicas_fault(cluster: Cluster) -> None:
    async def ask(kv: Client) -> None:
        with pytest.raises(ProtocolError, match="a reply of type int where bytes was expected"):
            await kv.get("k")

    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        nursery.start_soon(ask, kv)
        assert await stream.receive_some() == request(b"GET", b"k")
        await stream.send_all(b":1\r\n")


@pytest.mark.parametrize("word", [1.5, None, bytearray(b"x"), ["x"]])
async def test_only_bytes_text_and_integers_are_words(word: object) -> None:
    with pytest.raises(TypeError, match="a word of a command is bytes, text or an integer"):
        encode(("SET", "k", word))  # type: ignore[arg-type]  # what a careless caller does


async def test_a_command_has_words(cluster: Cluster) -> None:
    async with cluster.client() as kv:
        for word in ("MULTI", b"watch", "hello", "reset"):
            with pytest.raises(ValueError, match="everybody who uses this client shares one"):
                await kv.execute(word)
        with pytest.raises(ValueError, match="at least one word"):
            await kv.execute()


# ---------------------------------------------------------------------------------------------------------- pipelining


async def test_tasks_share_the_connection_without_waiting_for_one_another(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        outcomes = [await start(nursery, kv, "GET", str(i)) for i in range(3)]
        assert await stream.receive_some() == b"".join(request(b"GET", b"%d" % i) for i in range(3))
        await stream.send_all(b"$1\r\na\r\n$1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert [outcome.value for outcome in outcomes] == [b"a", None, None]
        await stream.send_all(b"b\r\n$1\r\nc\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert [outcome.value for outcome in outcomes] == [b"a", b"b", b"c"]


async def test_many_tasks_at_once(cluster: Cluster) -> None:
    results: list[int] = []

    async def count(kv: Client) -> None:
        results.append(await kv.incr("n"))

    async with cluster.client() as kv:
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(count, kv)
        assert sorted(results) == list(range(1, 501))
        assert cluster.calls == ["CA"]


async def test_the_reply_to_a_cancelled_command_is_discarded(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await kv.incr("never sent")
        with trio.move_on_after(0.01) as impatient:
            await kv.incr("sent")
        assert impatient.cancelled_caught
        patient = await start(nursery, kv, "GET", "k")
        assert await stream.receive_some() == request(b"INCR", b"sent") + request(b"GET", b"k")
        await stream.send_all(b":1\r\n$1\r\nv\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert patient.value == b"v"


async def test_a_cancelled_command_that_was_not_sent_never_is(cluster: Cluster) -> None:
    cluster.sites["CA"].lockstep = True
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        first = await start(nursery, kv, "GET", "a")
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_settled, scope)
            await kv.incr("n")
        last = await start(nursery, kv, "GET", "b")
        sent = request(b"GET", b"a") + request(b"GET", b"b")
        received = await stream.receive_some() + await stream.receive_some()
        assert received == sent
        await stream.send_all(b"$1\r\n1\r\n$1\r\n2\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert (first.value, last.value) == (b"1", b"2")


async def cancel_when_settled(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


# ------------------------------------------------------------------------------------------------------------ failover


async def test_the_nearest_replica_is_preferred_and_the_next_ones_follow(cluster: Cluster) -> None:
    async with cluster.client("VA") as kv:
        await kv.set("k", "v")
    assert cluster.calls == ["VA"]
    cluster.sites["VA"].down = True
    async with cluster.client("VA") as kv:
        await kv.set("k", "v")
    assert cluster.calls == ["VA", "VA", "IR"]
    cluster.sites["IR"].down = True
    async with cluster.client("VA") as kv:
        await kv.set("k", "v")
    assert cluster.calls[3:] == ["VA", "IR", "CA"]


async def test_when_nobody_can_be_reached_the_command_was_not_applied(cluster: Cluster) -> None:
    for site in cluster.sites.values():
        site.down = True
    async with cluster.client("VA") as kv:
        with pytest.raises(
            Rejected, match=r"no replica can be reached \(VA: .*refused; IR: .*refused; CA: .*refused\)"
        ):
            await kv.get("k")
        cluster.sites["CA"].down = False
        assert await kv.get("k") is None


async def test_a_replica_that_does_not_answer_the_call_is_passed_over(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.sites["CA"].silent = True
    async with cluster.client("CA") as kv:
        assert await kv.get("k") is None
    assert cluster.calls == ["CA", "VA"]
    assert trio.current_time() >= 3


async def test_a_lost_connection_leaves_sent_commands_unknown_and_the_next_go_elsewhere(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        outcomes = [await start(nursery, kv, "INCR", "k") for _ in range(2)]
        await stream.send_all(b":1\r\n")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes[0].value == 1
        assert isinstance(outcomes[1].error, Unknown)
        assert str(outcomes[1].error) == "the connection to CA was lost after the command was sent"
        assert cluster.calls == ["CA"]
        assert await kv.incr("k") == 1
        assert cluster.calls == ["CA", "VA"]
        assert cluster.sites["VA"].replica.commands == 1


async def test_a_command_that_was_not_sent_goes_to_the_next_replica(cluster: Cluster) -> None:
    site = cluster.sites["CA"]
    site.limits = LimitsConfig(connections=1)
    gateway = Gateway(site.replica, site.limits)
    _busy, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, theirs)
        await trio.testing.wait_all_tasks_blocked()
        site.raw = True
        async with cluster.client("CA") as kv:
            outcome = await start(nursery, kv, "INCR", "k")
            await gateway.serve(site.accepted[0])
            await trio.testing.wait_all_tasks_blocked()
            assert outcome.value == 1
        nursery.cancel_scope.cancel()
    assert cluster.calls == ["CA", "VA"]
    assert site.replica.commands == 0
    assert cluster.sites["VA"].replica.commands == 1


async def test_a_command_that_waited_to_be_sent_when_the_connection_broke_goes_to_the_next(cluster: Cluster) -> None:
    cluster.sites["CA"].lockstep = True
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        sent = await start(nursery, kv, "INCR", "k")
        waiting = await start(nursery, kv, "INCR", "k")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(sent.error, Unknown)
        assert waiting.value == 1
        assert cluster.calls == ["CA", "VA"]


async def test_a_command_that_breaks_off_while_it_is_sent_is_unknown(cluster: Cluster) -> None:
    cluster.sites["CA"].lockstep = True
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        outcome = await start(nursery, kv, "INCR", "k")
        assert isinstance(stream, trio.StapledStream)
        await stream.receive_stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(outcome.error, Unknown)


async def test_a_connection_that_is_reset_is_lost(cluster_text: ClusterText) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    config = Config.parse(cluster_text(1, client_port=listener.socket.getsockname()[1]))
    async with listener, Client(config, retry_ms=0) as kv, trio.open_nursery() as nursery:
        outcome = Outcome()
        nursery.start_soon(outcome.of, kv, "INCR", "k")
        server = await listener.accept()
        assert await server.receive_some() == request(b"INCR", b"k")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await server.aclose()
        await outcome.known.wait()
        assert isinstance(outcome.error, Unknown)
        assert isinstance(outcome.error.__cause__, trio.BrokenResourceError)


async def test_a_command_is_not_carried_round_for_ever(cluster: Cluster) -> None:
    for site in cluster.sites.values():
        site.raw = True
    async with cluster.client() as kv, trio.open_nursery() as nursery:
        outcome = await start(nursery, kv, "INCR", "k")
        for name in ("CA", "VA", "IR", "CA"):
            await cluster.sites[name].accepted.pop().send_all(b"-ERR max number of clients reached\r\n")
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(outcome.error, Rejected) and outcome.error.reason == "closed"
        assert cluster.calls == ["CA", "VA", "IR", "CA"]


async def test_a_replica_is_left_once_however_many_commands_it_fails(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        first, second = [await start(nursery, kv, "INCR", "k") for _ in range(2)]
        await stream.send_all(b"-NOQUORUM 1 of 3: not applied\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(first.error, Rejected)
        await kv.incr("k")
        await stream.send_all(b"-UNKNOWN the deadline passed: may or may not have been applied\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(second.error, Unknown)
        await kv.incr("k")
        assert cluster.calls == ["CA", "VA"]
        assert cluster.sites["VA"].replica.commands == 2


async def test_a_replica_that_makes_no_sense_is_left(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        outcome = await start(nursery, kv, "SET", "k", "v")
        await stream.send_all(b"what?\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(outcome.error, Unknown)
        cause = outcome.error.__cause__
        assert isinstance(cause, ProtocolError) and cause.peer == "CA"
        assert await kv.get("k") is None
        assert cluster.calls == ["CA", "VA"]


async def test_a_reply_to_no_command_ends_the_connection(cluster: Cluster) -> None:
    async with pair(cluster) as (kv, stream), trio.open_nursery() as nursery:
        outcome = await start(nursery, kv, "SET", "k", "v")
        await stream.send_all(b"+OK\r\n+OK\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert outcome.value == b"OK"
        assert await kv.get("k") is None
        assert cluster.calls == ["CA", "VA"]


# ---------------------------------------------------------------------------------------------- back to the nearest one


async def test_the_nearest_replica_is_used_again_once_it_serves(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    ca, va = cluster.sites["CA"], cluster.sites["VA"]
    ca.down = True
    async with cluster.client("CA") as kv, trio.open_nursery() as nursery:
        await kv.incr("k")
        va.replica.holding = True
        under_way = await start(nursery, kv, "INCR", "k")
        await trio.sleep(300)
        assert set(cluster.calls) == {"CA", "VA"} and cluster.calls.count("VA") == 1
        ca.down = False
        await trio.sleep(100)
        calls = len(cluster.calls)
        assert await kv.set("k", "v") is True
        assert ca.replica.commands == 2, "a question and the command"
        va.replica.answer(1)
        await under_way.known.wait()
        assert under_way.value == 2, "what is under way ends where it is"
        await trio.sleep(3_600)
        assert len(cluster.calls) == calls, "nobody is asked any more"


async def test_a_nearest_replica_that_is_cut_off_is_not_used_though_it_answers(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    ca, va = cluster.sites["CA"], cluster.sites["VA"]
    ca.replica.holding = True
    ca.down = True
    async with cluster.client("CA") as kv:
        await kv.ping()
        ca.down = False
        await trio.sleep(300)
        assert await kv.incr("k") == 1
        assert va.replica.commands == 1
        ca.replica.holding = False
        await trio.sleep(100)
        await kv.incr("k")
        assert va.replica.commands == 1


async def test_the_nearest_replica_is_asked_ever_more_rarely(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.sites["CA"].down = True
    async with cluster.client("CA") as kv:
        await kv.ping()
        await trio.sleep(15)
        assert 3 <= cluster.calls.count("CA") <= 6
        await trio.sleep(3_600)
        assert 40 <= cluster.calls.count("CA") <= 126, "each pause is between 30 s and 90 s"


# ---------------------------------------------------------------------------------------------------- beginning and end


async def test_what_still_waits_when_the_client_ends_is_unknown_and_later_commands_are_refused(
    cluster: Cluster,
) -> None:
    async with trio.open_nursery() as nursery:
        async with pair(cluster) as (kv, _):
            waiting = await start(nursery, kv, "INCR", "k")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(waiting.error, Unknown)
        with pytest.raises(Rejected, match="outside of its `async with`"):
            await kv.get("k")


async def test_what_the_body_raises_comes_out_as_it_is(cluster: Cluster) -> None:
    with pytest.raises(KeyError):
        async with cluster.client() as kv:
            await kv.ping()
            raise KeyError("the caller's own")


async def test_a_cluster_is_named_by_its_file(cluster_text: ClusterText, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    with pytest.raises(ConfigError, match="no replica 'CX'"):
        Client(path, near="CX")
    with pytest.raises(ConfigError, match="cannot read"):
        Client(tmp_path / "nowhere.toml")
    assert isinstance(Client(str(path), near="IR"), Client)


async def test_over_tcp(cluster_text: ClusterText) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    config = Config.parse(cluster_text(1, client_port=port))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_clients(FakeReplica(), listeners, limits=LimitsConfig()))
        async with Client(config, near="CA", retry_ms=0) as kv:
            assert await kv.set("k", "v" * 200_000) is True
            assert await kv.get("k") == b"v" * 200_000
        nursery.cancel_scope.cancel()
