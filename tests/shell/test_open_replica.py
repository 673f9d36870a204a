"""Embedding: `open_replica`, `propose`, `read`, the log and its cursor, and what callers learn when it goes wrong."""

from __future__ import annotations

import gc
import io
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import epaxos
from bench.cluster import free_ports
from epaxos.commands.status import table
from epaxos.config import Config
from epaxos.machines.kv import Kv
from epaxos.net.tcp import TcpNetwork
from epaxos.observe import progress
from epaxos.observe.log import Log
from epaxos.protocols.registry import PROTOCOLS
from epaxos.tables import ABSENT
from tests.conftest import ClusterText

pytestmark = pytest.mark.trio


class Register(epaxos.StateMachine):
    """`key=value` sets, `key` reads, `boom` raises."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, command: bytes) -> bytes:
        key, _, value = command.decode().partition("=")
        if key == "boom":
            raise ZeroDivisionError("boom")
        if value:
            self.values[key] = value
        return self.values.get(key, "").encode()

    def save(self) -> Iterable[bytes]:
        return [repr(sorted(self.values.items())).encode()]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.values = dict(eval(b"".join(chunks)))


@pytest.fixture
def alone(cluster_text: ClusterText) -> Config:
    return Config.parse(cluster_text(1, ports=free_ports(2)), source="test")


@pytest.fixture
def one_of_three(cluster_text: ClusterText) -> Config:
    """Nobody listens at the other two."""
    text = cluster_text(3, ports=free_ports(6), extra="[limits]\nrequest_timeout_ms = 200\n")
    return Config.parse(text, source="test")


async def test_what_was_proposed_is_read_and_survives_a_restart(alone: Config, tmp_path: Path) -> None:
    for expected, machine in ((b"", Register()), (b"1", Register())):
        async with epaxos.open_replica(alone, "CA", machine, data=tmp_path) as replica:
            assert await replica.read(b"a", reads=[b"a"]) == expected
            assert await replica.propose(b"a=1", writes=[b"a"]) == b"1"
            assert await replica.propose(b"a") == b"1", "no keys named: ordered against everything"
            assert replica.status()["executed"] >= 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_log_is_read_before_anybody_is_served(
    alone: Config, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SAY_S", 0.0)
    config = replace(alone, protocol=protocol)
    async with epaxos.open_replica(config, "CA", Register(), data=tmp_path) as replica:
        for value in (b"a=1", b"a=2"):
            await replica.propose(value, writes=[b"a"])
    said, listens = io.StringIO(), _Listens(config, said=lambda: said.write("listening\n"))
    log = Log("CA", out=said, form="text")
    async with epaxos.open_replica(config, "CA", Register(), data=tmp_path, log=log, network=listens) as replica:
        found = replica.status()["detail"]
        said_first = said.getvalue()
        assert await replica.read(b"a", reads=[b"a"]) == b"2"
    assert found["executed"] not in (0, [0])
    begins = said_first.index("listening")
    assert begins > said_first.rindex("reading 1 records so far") and begins > said_first.rindex("commands so far")
    assert begins < said_first.index("serving")


class _Listens(TcpNetwork):
    """Says when the others may come."""

    def __init__(self, config: Config, *, said: Callable[[], object]) -> None:
        super().__init__(config, 0)
        self._said = said

    async def listen(self) -> Sequence[trio.SocketListener]:
        self._said()
        return await super().listen()


async def test_the_log_is_resumable_across_restarts(alone: Config, tmp_path: Path) -> None:
    cursor = 0
    for value in (b"a=1", b"b=2", b"c=3"):
        async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path) as replica:
            await replica.propose(value, writes=[value[:1]])
            async for entry in replica.log(after=cursor):
                assert (entry.payload, entry.keys) == (value, (value[:1],))
                assert entry.cursor > cursor
                cursor = entry.cursor
                break


async def test_without_a_quorum_the_outcome_is_unknown(one_of_three: Config, tmp_path: Path) -> None:
    async with epaxos.open_replica(one_of_three, "CA", Register(), data=tmp_path) as replica:
        with pytest.raises(epaxos.Unknown):
            await replica.propose(b"a=1", writes=[b"a"])
        with trio.move_on_after(0.05) as scope:
            await replica.propose(b"a=2", writes=[b"a"])
        assert scope.cancelled_caught, "the caller's own deadline is the caller's"


async def test_a_replica_that_ends_answers_everybody(one_of_three: Config, tmp_path: Path) -> None:
    outcomes: list[Exception] = []

    async def propose(replica: object) -> None:
        try:
            await replica.propose(b"a=1", writes=[b"a"])  # type: ignore[attr-defined]  # the class is not public
        except (epaxos.Unknown, epaxos.Rejected) as error:
            outcomes.append(error)

    async with trio.open_nursery() as nursery:
        async with epaxos.open_replica(one_of_three, "CA", Register(), data=tmp_path) as replica:
            nursery.start_soon(propose, replica)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(epaxos.Rejected, match="closed"):
            await replica.propose(b"a=1")
    assert len(outcomes) == 1


async def test_a_directory_in_use_and_a_foreign_one_are_refused(
    alone: Config, one_of_three: Config, tmp_path: Path
) -> None:
    async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path):
        with pytest.raises(epaxos.StorageError, match="in use"):
            async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path):
                raise AssertionError("opened twice")
    with pytest.raises(epaxos.StorageError, match="CA"):
        async with epaxos.open_replica(one_of_three, "VA", Register(), data=tmp_path):
            raise AssertionError("another replica's directory")


async def test_a_file_with_other_members_or_another_secret_is_refused(
    cluster_text: ClusterText, tmp_path: Path
) -> None:
    ports = free_ports(8)
    three = Config.parse(cluster_text(3, ports=[*ports[:3], *ports[4:7]]))
    four = Config.parse(cluster_text(4, ports=ports))
    swapped = replace(three, replicas=(three.replicas[1], three.replicas[0], three.replicas[2]))
    async with epaxos.open_replica(three, "CA", Register(), data=tmp_path):
        pass
    for changed, complaint in (
        (four, "when the cluster was CA VA IR; the file says CA VA IR OR: members cannot change in this release"),
        (swapped, "when the cluster was CA VA IR; the file says VA CA IR: members cannot change in this release"),
        (replace(three, secret=bytes(16)), "written under another secret"),
    ):
        with pytest.raises(epaxos.StorageError, match=complaint):
            async with epaxos.open_replica(changed, "CA", Register(), data=tmp_path):
                raise AssertionError("opened with what was not written")
    text = (tmp_path / "identity").read_text()
    assert three.secret.hex() not in text
    async with epaxos.open_replica(three, "CA", Register(), data=tmp_path) as replica:
        assert replica.incarnation == 2


async def test_a_machine_that_raises_stops_the_replica(alone: Config, tmp_path: Path) -> None:
    with pytest.raises(epaxos.MachineError, match="boom"):
        async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path) as replica:
            with pytest.raises(epaxos.Unknown):
                await replica.propose(b"boom")
            await trio.sleep_forever()


async def test_opaque_commands_need_a_state_machine(alone: Config, tmp_path: Path) -> None:
    async with epaxos.open_replica(alone, "CA", Kv(), data=tmp_path) as replica:
        with pytest.raises(TypeError, match="StateMachine"):
            await replica.propose(b"a=1")


async def test_the_cluster_may_be_named_by_its_file(cluster_text: ClusterText, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(1, ports=free_ports(2)))
    for config in (path, str(path)):
        async with epaxos.open_replica(config, "CA", Register(), data=tmp_path / "ca") as replica:
            assert await replica.propose(b"a=1", writes=[b"a"]) == b"1"
    with pytest.raises(epaxos.ConfigError, match="cannot read"):
        async with epaxos.open_replica(tmp_path / "nowhere.toml", "CA", Register(), data=tmp_path / "ca"):
            raise AssertionError("opened")


async def test_a_class_is_not_a_machine(alone: Config, tmp_path: Path) -> None:
    machine: Any = Register
    with pytest.raises(TypeError, match=r"machine is an instance, Register\(\), not the class"):
        async with epaxos.open_replica(alone, "CA", machine, data=tmp_path):
            raise AssertionError("opened")
    machine = "Register"
    with pytest.raises(TypeError, match="machine is a StateMachine, not str"):
        async with epaxos.open_replica(alone, "CA", machine, data=tmp_path):
            raise AssertionError("opened")


@pytest.mark.parametrize("after", [-1, 1 << 63])
async def test_a_cursor_is_that_of_an_entry(alone: Config, tmp_path: Path, after: int) -> None:
    async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path) as replica:
        with pytest.raises(ValueError, match=f"a cursor is that of an entry, or 0 for all of them, not {after}"):
            replica.log(after=after)


async def test_the_key_value_store_may_be_embedded(
    alone: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """The program of the page, while a client asks."""
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "how-to" / "embed.md").read_text(encoding="utf-8")
    program = page.partition("## Embed the key-value store")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"epaxos": epaxos, "config": alone}
    exec("async def program():\n" + textwrap.indent(program, "    "), names)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names["program"])
        async with epaxos.Client(alone, near="CA") as kv:
            with trio.fail_after(30):
                while True:
                    try:
                        assert await kv.incr("k") == 1
                        break
                    except epaxos.Rejected:  # it does not listen yet
                        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_not_in_the_file_is_refused(alone: Config, tmp_path: Path) -> None:
    with pytest.raises(epaxos.ConfigError, match="CB"):
        async with epaxos.open_replica(alone, "CB", Register(), data=tmp_path):
            raise AssertionError("no such replica")


async def test_a_barrier_is_ordered_against_everything_and_has_no_effect(alone: Config, tmp_path: Path) -> None:
    machine = Register()
    async with epaxos.open_replica(alone, "CA", machine, data=tmp_path) as replica:
        await replica.propose(b"a=1", writes=[b"a"])
        before = list(machine.save())
        await replica.barrier()
        assert list(machine.save()) == before
        assert replica.status()["executed"] == 2


async def test_statistics_begin_anew(alone: Config, tmp_path: Path) -> None:
    async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path) as replica:
        await replica.propose(b"a=1", writes=[b"a"])
        assert replica.status()["commands"]["fast"] == 1
        disk = replica.status()["disk"]
        assert 0 < disk["used_bytes"] < disk["max_bytes"] == alone.limits.map_bytes
        assert "epaxos_commit_seconds" in replica.prometheus()
        replica.reset_stats()
        assert replica.status()["commands"] == {"fast": 0, "slow": 0, "log": 0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_at_rest_all_that_is_known_has_executed(alone: Config, protocol: str, tmp_path: Path) -> None:
    async with epaxos.open_replica(replace(alone, protocol=protocol), "CA", Register(), data=tmp_path) as replica:
        for value in (b"a=1", b"a=2"):
            await replica.propose(value, writes=[b"a"])
        detail = replica.status()["detail"]
    assert detail["executed"] == detail["known"] not in (0, [0])


async def test_under_raft_commands_are_counted_too_and_status_says_who_leads(alone: Config, tmp_path: Path) -> None:
    config = replace(alone, protocol="raft")
    async with epaxos.open_replica(config, "CA", Register(), data=tmp_path) as replica:
        assert table([replica.status()], config.names).splitlines()[-1].split()[:3] == ["CA", "raft", ABSENT]
        await replica.propose(b"a=1", writes=[b"a"])
        assert 'epaxos_commands_total{path="log"} 1\n' in replica.prometheus()
        found = replica.status()
    row = table([found], config.names).splitlines()[-1].split()
    assert row[:3] == ["CA", "raft", "CA"] and "0.0 %" not in " ".join(row), "no command had a fast path to miss"
    other = {**found, "detail": {**found["detail"], "leader": 2}}
    assert table([other], ("CA", "VA", "IR")).splitlines()[-1].split()[:3] == ["CA", "raft", "IR"], (
        "asked of one replica"
    )


async def test_a_log_that_traces_has_what_the_protocol_notes(alone: Config, tmp_path: Path) -> None:
    said = io.StringIO()
    log = Log("CA", alone.names, out=said, form="text", trace=True)
    async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path, log=log) as replica:
        await replica.propose(b"a=1", writes=[b"a"])
    assert " CA fast_commit CA.1\n" in said.getvalue()


async def test_the_process_around_a_replica_stays_as_it_is(alone: Config, tmp_path: Path) -> None:
    before = sys.getswitchinterval(), gc.get_freeze_count(), gc.get_threshold()
    async with epaxos.open_replica(alone, "CA", Register(), data=tmp_path):
        assert (sys.getswitchinterval(), gc.get_freeze_count(), gc.get_threshold()) == before
