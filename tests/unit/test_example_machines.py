"""The machines of the examples are what `check_machine` asks for, with the keys that the examples name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from epaxos.testing import check_machine

Made = tuple[bytes, list[bytes], list[bytes]]


def ledger(rng: Random) -> Made:
    account = rng.choice((b"alice", b"bob", b"eve"))
    return (account + b" %d" % rng.randrange(-5, 9), [], [account]) if rng.random() < 0.6 else (account, [account], [])


def jobs(rng: Random) -> Made:
    if rng.random() < 0.2:
        return b"list", [b"jobs"], []
    command = rng.choice((b"put %d", b"put %d", b"take %d", b"done %d"))
    return command % rng.randrange(6), [], [b"jobs"]


def settings(rng: Random) -> Made:
    key = rng.choice((b"colour", b"size", b"shape"))
    return (b"set %b v %d" % (key, rng.randrange(9)), [], [key]) if rng.random() < 0.5 else (b"get " + key, [key], [])


@pytest.mark.parametrize(
    ("module", "name", "commands"),
    [("ledger", "Ledger", ledger), ("jobs", "Jobs", jobs), ("settings", "Settings", settings)],
)
def test_the_machine_is_sound(
    module: str, name: str, commands: Callable[[Random], Made], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "examples"))
    report = check_machine(getattr(importlib.import_module(module), name), commands)
    assert report.hash_seeds == 2 and (report.pairs > 100 or module == "jobs")


def test_two_jobs_of_one_name_are_two_jobs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "examples"))
    machine = importlib.import_module("jobs").Jobs()
    for command in (b"put wash", b"put wash"):
        machine.apply(command)
    assert [machine.apply(b"take %b" % worker) for worker in (b"alice", b"bob")] == [b"1 wash", b"2 wash"]
    machine.apply(b"done 1")
    assert json.loads(machine.apply(b"list")) == [[], 2, {"2": ["wash", "bob"]}]
