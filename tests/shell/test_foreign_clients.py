"""The clients with a thread of their own, when something goes wrong in it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

import epaxos
from epaxos.client import Client
from epaxos.client.route import Route
from tests.conftest import ClusterText

WITHIN_S = 60.0


class Bug(Exception):
    """What nobody expects."""


@pytest.fixture
def path(cluster_text: ClusterText, tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    return path


async def _break() -> None:
    raise Bug


def test_what_nobody_expects_comes_out_of_the_command_that_met_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def execute(self: Client, *words: object) -> object:
        if words[0] == "PING":
            return b"PONG"
        raise Bug

    monkeypatch.setattr(Client, "execute", execute)
    with epaxos.SyncClient(path, timeout_s=WITHIN_S) as kv:
        with pytest.raises(Bug):
            kv.get("k")
        kv.ping()


def test_a_client_that_breaks_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(self: Route, words: object, *, until_s: float = 0.0) -> object:
        assert self._nursery is not None
        self._nursery.start_soon(_break)
        await trio.sleep_forever()

    monkeypatch.setattr(Route, "ask", ask)
    died: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: died.append(args.exc_value))
    with epaxos.SyncClient(path, timeout_s=WITHIN_S) as kv:
        with pytest.raises(epaxos.Unknown, match="was closed before there was a reply"):
            kv.get("k")
        with pytest.raises(epaxos.Rejected, match="closed"):
            kv.get("k")
    (error,) = died
    assert isinstance(error, BaseExceptionGroup) and error.subgroup(Bug) is not None, "and it is not hidden"
