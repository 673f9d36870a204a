"""Fixtures that several rooms of tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from epaxos.config import Config

NAMES = ("CA", "VA", "IR", "OR", "JP", "SG", "NL", "BR", "AU", "UK", "IN", "SC", "TW")


class ClusterText(Protocol):
    """(n, first ports, text behind the tables) -> the text of a `cluster.toml`."""

    def __call__(self, n: int = 3, *, peer_port: int = 7400, client_port: int = 6400, extra: str = "") -> str: ...


class MakeConfig(Protocol):
    """As `ClusterText`, parsed."""

    def __call__(self, n: int = 3, *, peer_port: int = 7400, client_port: int = 6400, extra: str = "") -> Config: ...


@pytest.fixture(scope="session")
def cluster_text() -> ClusterText:
    """A function that writes a `cluster.toml` of `n` replicas on the loopback, with consecutive ports."""

    def text(n: int = 3, *, peer_port: int = 7400, client_port: int = 6400, extra: str = "") -> str:
        tables = [
            f'[[replica]]\nname = "{name}"\n'
            f'peer = "127.0.0.1:{peer_port + at}"\nclient = "127.0.0.1:{client_port + at}"\n'
            for at, name in enumerate(NAMES[:n])
        ]
        return 'cluster = "test"\n' + "".join(tables) + extra

    return text


@pytest.fixture(scope="session")
def make_config(cluster_text: ClusterText) -> MakeConfig:
    """A function that makes the `Config` of `n` replicas on the loopback."""

    def make(n: int = 3, *, peer_port: int = 7400, client_port: int = 6400, extra: str = "") -> Config:
        return Config.parse(cluster_text(n, peer_port=peer_port, client_port=client_port, extra=extra))

    return make


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
