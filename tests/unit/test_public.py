"""The public surface: what people may rely on, and nothing that slipped in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import epaxos
from epaxos import testing
from epaxos.config import PROTOCOLS
from epaxos.protocols import registry

NAMES = [
    "AsyncioClient",
    "Client",
    "Config",
    "ConfigError",
    "EpaxosError",
    "LogEntry",
    "MachineError",
    "ProtocolError",
    "Rejected",
    "Replica",
    "ResponseError",
    "StateMachine",
    "StorageError",
    "SyncClient",
    "Unknown",
    "__version__",
    "open_replica",
]


def test_the_list_of_public_names() -> None:
    assert epaxos.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(epaxos, name)
    assert name in dir(epaxos)
    assert name == "__version__" or value.__doc__


def test_the_three_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(epaxos.SyncClient) == methods(epaxos.AsyncioClient) == methods(epaxos.Client)


def test_no_other_name_is_found() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Engine'"):
        _ = epaxos.Engine


def test_the_test_kit_has_public_names_of_its_own() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'World'"):
        _ = testing.World


def test_errors_say_whose_fault_it_is() -> None:
    errors = [
        epaxos.ConfigError,
        epaxos.MachineError,
        epaxos.ProtocolError,
        epaxos.Rejected,
        epaxos.StorageError,
        epaxos.Unknown,
    ]
    assert all(issubclass(error, epaxos.EpaxosError) for error in errors)
    assert not issubclass(epaxos.Unknown, epaxos.Rejected)


def test_the_page_says_of_every_reason_what_to_do(repository: Path) -> None:
    page = (repository / "docs" / "how-to" / "embed.md").read_text(encoding="utf-8")
    table = page.partition("## Why a command was rejected")[2].partition("\n## ")[0]
    words = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(words) == sorted(epaxos.Rejected.REASONS)


def test_the_configuration_knows_the_protocols_there_are() -> None:
    assert set(PROTOCOLS) == set(registry.PROTOCOLS)


def test_importing_the_package_waits_for_no_network_stack() -> None:
    code = "import sys, epaxos, epaxos.cli; print(*sorted({'trio', 'lmdb', 'cbor2', 'hiredis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
