"""Embedding: `open_replica`, `propose`, `read`, the log and its cursor, and what callers learn when it goes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import epaxos
from bench.cluster import free_ports
from epaxos.config import Config
from epaxos.machines.kv import Kv
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
        assert "epaxos_commit_seconds" in replica.prometheus()
        replica.reset_stats()
        assert replica.status()["commands"] == {"fast": 0, "slow": 0}
