"""The command line: help, exit codes, JSON, and what is said when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from epaxos import cli, demo
from epaxos._version import VERSION
from epaxos.client import Client
from epaxos.config import Config
from epaxos.console import exit_code, foreseen
from epaxos.errors import ConfigError, MachineError, Rejected, StorageError, Unknown
from epaxos.reference import PAGES, key_docs
from tests.conftest import ClusterText

Capture = pytest.CaptureFixture[str]


def commands(
    command: click.Command = cli.cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """(words, command) of every command there is."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_has_an_example(path: tuple[str, ...], capsys: Capture) -> None:
    assert cli.run([*path, "--help"]) == 0
    assert "Example: epaxos" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", [path for path, found in ALL.items() if not isinstance(found, click.Group)], ids=" ".join
)
def test_every_command_has_json(path: tuple[str, ...]) -> None:
    assert "--json" in [name for parameter in ALL[path].params for name in parameter.opts]


def test_version_says_release_python_and_build(capsys: Capture) -> None:
    assert cli.run(["--version"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"epaxos {VERSION}, Python 3.")
    assert any(word in said for word in ("compiled", "pure", "mixed"))


@pytest.mark.parametrize("line", [["nonsense"], ["config", "check"], ["config", "explain", "nonsense"], ["--nonsense"]])
def test_wrong_usage_is_exit_code_2(line: list[str], capsys: Capture) -> None:
    assert cli.run(line) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        ["get", "k", "--timeout"],
        ["status", "--wait"],
        ["demo", "--seconds"],
        ["demo", "--rate"],
        ["demo", "--conflict"],
        ["plan", "gryff5", "--conflict"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("number", ["-1", "nan", "inf"])
def test_amounts_are_finite_and_not_negative(line: list[str], number: str, capsys: Capture) -> None:
    assert cli.run([*line, number]) == 2
    assert line[-1] in capsys.readouterr().err


@pytest.mark.parametrize("weight", ["nan", "inf", "-1"])
def test_weights_are_finite_and_not_negative(weight: str, capsys: Capture) -> None:
    assert cli.run(["plan", "gryff5", "--clients", f"CA={weight}"]) == 2
    assert "the weight of CA is a number from 0 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (["sim", "--without", "crash", "--seeds", "1..2"], "--without: only with --seed"),
        (["sim", "--trace", "--shrink"], "--trace, --shrink: only with --seed"),
        (["sim", "--commands", "3"], "--commands: only with --seed"),
        (["sim", "--seed", "1", "--seeds", "1..2", "--jobs", "1"], "--seeds, --jobs: not with --seed"),
        (["sim", "--seed", "-1"], "-1 is not in the range x>=0"),
        (["model", "--walks", "1", "--scope", "recovery"], "--scope: not with --walks"),
        (["model", "--walks", "1", "--list", "--states-max", "9"], "--list, --states-max: not with --walks"),
        (["model", "--states-max", "9"], "--states-max: only with --scope"),
        (["model", "--scope", "recovery", "--replicas", "5"], "--replicas: only with --walks"),
        (["model", "--scope", "recovery", "--list"], "--scope: not with --list"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(line: list[str], why: str, capsys: Capture) -> None:
    assert cli.run(line) == 2
    assert why in capsys.readouterr().err


def test_a_key_that_is_not_there_is_explained_with_its_nearest(capsys: Capture) -> None:
    assert cli.run(["config", "explain", "limits.window", "limits.windw"]) == 2
    assert "no such key: limits.windw; did you mean limits.window?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        ["kill", "--protocol", "nope"],
        ["sessions", "--protocol", "nope"],
        ["redis", "--protocol", "nope"],
        ["failover", "--virtual", "--protocol", "nope"],
        ["kill", "--every", "nan"],
        ["sessions", "--every", "0"],
        ["compare", "--rate", "nan"],
        ["hotkey", "--rate", "-1"],
    ],
    ids=" ".join,
)
def test_the_bench_starts_nothing_that_cannot_be(line: list[str]) -> None:
    result = CliRunner().invoke(bench, line)
    assert result.exit_code == 2
    assert line[-2] in result.output and line[-1] in result.output


def test_the_words_of_a_command_are_sent_as_they_are(
    tmp_path: Path, cluster_text: ClusterText, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(Client, "execute", lambda self, *words: _note(sent, words))
    config = ["--config", str(path)]
    assert cli.run(["do", "LRANGE", "list", "0", "-1", *config]) == 0
    assert cli.run(["do", *config, "--", "SET", "k", "--json"]) == 0
    assert cli.run(["set", "k", "\udcff", *config]) == 0
    assert sent == [(b"LRANGE", b"list", b"0", b"-1"), (b"SET", b"k", b"--json"), (b"set", b"k", b"\xff")]
    assert cli.run(["do", *config]) == 2


async def _note(sent: list[tuple[object, ...]], words: tuple[object, ...]) -> None:
    sent.append(words)


def test_config_check_takes_a_right_file(tmp_path: Path, cluster_text: ClusterText, capsys: Capture) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    assert cli.run(["config", "check", str(path)]) == 0
    assert "cluster 'test', epaxos, 3 replicas: CA (peers 127.0.0.1:7400" in capsys.readouterr().out
    assert cli.run(["config", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replicas"] == ["CA", "VA", "IR"]


def test_config_check_says_what_is_wrong(tmp_path: Path, cluster_text: ClusterText, capsys: Capture) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3, extra="[limits]\nwindw = 1\n"))
    assert cli.run(["config", "check", str(path)]) == 2
    assert capsys.readouterr().err == f"epaxos: {path}:15: unknown key limits.windw; did you mean limits.window?\n"


def test_a_new_file_is_right(tmp_path: Path, capsys: Capture) -> None:
    assert (
        cli.run(["config", "new", "CA", "VA", "IR", "--cluster", "mine", "--peers", "9000", "--clients", "8000"]) == 0
    )
    text = capsys.readouterr().out
    found = Config.parse(text)
    assert (found.cluster, found.names) == ("mine", ("CA", "VA", "IR"))
    assert [(str(each.peer), str(each.client)) for each in found.replicas] == [
        (f"127.0.0.1:{9000 + at}", f"127.0.0.1:{8000 + at}") for at in range(3)
    ]
    assert cli.run(["config", "new", "CA", "VA", "IR", "--json"]) == 0
    assert Config.parse(json.loads(capsys.readouterr().out)).cluster == "shop"


@pytest.mark.parametrize(
    ("words", "why"), [(["CA", "CA"], "must be unique"), (["CA", "VA", "--peers", "65535"], "port from 0 to 65535")]
)
def test_there_is_no_new_file_that_is_wrong(words: list[str], why: str, capsys: Capture) -> None:
    assert cli.run(["config", "new", *words]) == 2
    said = capsys.readouterr()
    assert (said.out, why in said.err) == ("", True)


def test_status_waits_or_watches(tmp_path: Path, cluster_text: ClusterText, capsys: Capture) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    assert cli.run(["status", "--config", str(path), "--watch", "--wait", "1"]) == 2
    assert "choose one" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--at", "CA", "--watch"], ["--at", "CA", "--wait", "1"]])
def test_the_figures_are_those_of_one_replica(
    words: list[str], tmp_path: Path, cluster_text: ClusterText, capsys: Capture
) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(cluster_text(3))
    assert cli.run(["status", "--config", str(path), "--prometheus", *words]) == 2
    assert "name it with --at" in capsys.readouterr().err


def test_with_json_a_failure_is_an_object_on_stdout_and_words_on_stderr(capsys: Capture) -> None:
    assert cli.run(["config", "check", "/nonexistent", "--json"]) == 2
    said = capsys.readouterr()
    text = "cannot read /nonexistent: No such file or directory"
    assert json.loads(said.out) == {"error": text, "kind": "ConfigError", "exit": 2}
    assert said.err == f"epaxos: {text}\n"


def test_config_explain_shows_every_key_with_both_extremes(capsys: Capture) -> None:
    assert cli.run(["config", "explain", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in shown] == [doc.key for doc in key_docs()]
    assert cli.run(["config", "explain", "limits.batch_bytes"]) == 0
    text = capsys.readouterr().out
    assert "allowed: 4096 to 33554432 bytes" in text
    assert "too small:" in text
    assert "too large:" in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("busy"), 1),
        (StorageError("full"), 1),
        (MachineError("raised"), 1),
        (OSError("in use"), 1),
        (ConfigError("wrong"), 2),
        (click.UsageError("wrong"), 2),
        (Unknown("lost"), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    found = foreseen(error)
    assert found is not None
    assert exit_code(found) == code


def test_a_group_of_foreseen_errors_is_the_gravest_of_them() -> None:
    found = foreseen(BaseExceptionGroup("several", [Rejected("busy"), ExceptionGroup("more", [Unknown("lost")])]))
    assert isinstance(found, Unknown)


def test_a_bug_is_not_taken_for_a_foreseen_error() -> None:
    assert foreseen(ExceptionGroup("several", [Rejected("busy"), KeyError("bug")])) is None
    assert foreseen(ZeroDivisionError()) is None


def test_the_demo_without_options_is_the_default_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(demo, "main", lambda options, console: asked.append(options) or 0)
    assert cli.run(["demo"]) == 0
    assert asked == [demo.DemoOptions()]


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_current(name: str, repository: Path) -> None:
    written = (repository / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), f"docs/reference/{name} is not what the code says: run `make docs`"
