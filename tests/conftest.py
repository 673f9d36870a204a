"""Fixtures that several rooms of tests share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from epaxos.config import Config

NAMES = ("CA", "VA", "IR", "OR", "JP", "SG", "NL", "BR", "AU", "UK", "IN", "SC", "TW")

settings.register_profile("suite", deadline=None)  # a slow machine is not a wrong program
settings.load_profile("suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that names its twin is the same in either build: the pure one need not run it once more."""
    if os.environ.get("EPAXOS_PURE"):
        same = [item for item in items if isinstance(item, pytest.Function) and names_its_twin(item)]
        config.hook.pytest_deselected(items=same)
        items[:] = [item for item in items if item not in set(same)]


def names_its_twin(item: pytest.Function) -> bool:
    """Is a compiled module, or its pure twin, among what it is parametrised with?"""
    return hasattr(item, "callspec") and not {"pure", "compiled"}.isdisjoint(item.callspec.id.split("-"))


class ClusterText(Protocol):
    """(n, first ports, all ports, text behind the tables) -> the text of a `cluster.toml`."""

    def __call__(
        self,
        n: int = 3,
        *,
        peer_port: int = 7400,
        client_port: int = 6400,
        ports: Sequence[int] = (),
        extra: str = "",
    ) -> str: ...


class MakeConfig(Protocol):
    """As `ClusterText`, parsed."""

    def __call__(self, n: int = 3) -> Config: ...


@pytest.fixture(scope="session")
def cluster_text() -> ClusterText:
    """A function that writes a `cluster.toml` of `n` replicas on the loopback, with consecutive ports, or with `ports`:
    those of the peers, then those of the clients."""

    def text(
        n: int = 3,
        *,
        peer_port: int = 7400,
        client_port: int = 6400,
        ports: Sequence[int] = (),
        extra: str = "",
    ) -> str:
        chosen = ports or [*range(peer_port, peer_port + n), *range(client_port, client_port + n)]
        tables = [
            f'[[replica]]\nname = "{name}"\npeer = "127.0.0.1:{peer}"\nclient = "127.0.0.1:{client}"\n'
            for name, peer, client in zip(NAMES[:n], chosen[:n], chosen[n:], strict=True)
        ]
        return 'cluster = "test"\n' + "".join(tables) + extra

    return text


@pytest.fixture(scope="session")
def make_config(cluster_text: ClusterText) -> MakeConfig:
    """A function that makes the `Config` of `n` replicas on the loopback."""
    return lambda n=3: Config.parse(cluster_text(n))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
