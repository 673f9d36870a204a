"""The examples run as their texts say, and are what the first page shows."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from bench.cluster import free_ports
from tests.conftest import ClusterText
from tests.field.pages import Block, blocks

pytestmark = pytest.mark.field

ROOT = Path(__file__).parents[2]
PAGES = [str(page.relative_to(ROOT)) for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])]

WITHIN_S = 60.0
"""A test gives up after this; nothing asserts how long anything took."""


@pytest.fixture
def folder(tmp_path: Path, repository: Path, cluster_text: ClusterText) -> Path:
    """A copy of `examples/` whose ports are free."""
    folder = tmp_path / "examples"
    shutil.copytree(repository / "examples", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "cluster.toml").write_text(cluster_text(3, ports=free_ports(6)))
    return folder


class Program:
    """A running example, and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._printed = b""

    async def lines(self, count: int) -> list[str]:
        """The next so many lines that it prints."""
        assert self.process.stdout is not None
        with trio.fail_after(WITHIN_S):
            while self._printed.count(b"\n") < count:
                received = await self.process.stdout.receive_some()
                assert received, f"it ended and printed only {self._printed.decode()!r}"
                self._printed += received
        *found, self._printed = self._printed.split(b"\n", count)
        return [line.decode() for line in found]


@asynccontextmanager
async def running(folder: Path, *words: str) -> AsyncIterator[Program]:
    """An example, until the block is left."""
    process = await trio.lowlevel.open_process(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.trio
async def test_a_ledger_and_its_tail(folder: Path) -> None:
    async with (
        running(folder, "ledger.py", "CA", "alice", "30") as ca,
        running(folder, "ledger.py", "VA", "alice", "12") as va,
    ):
        balances = {(await each.lines(1))[0] for each in (ca, va)}
        assert balances in ({"alice has 30", "alice has 42"}, {"alice has 12", "alice has 42"})
        async with running(folder, "tail.py", "IR") as tail:
            (first, one), (second, other) = [line.split(maxsplit=1) for line in await tail.lines(2)]
            assert int(first) < int(second)
            assert {one, other} == {"alice 30", "alice 12"}
            tail.process.send_signal(signal.SIGINT)
            await tail.process.wait()
        async with running(folder, "ledger.py", "IR", "bob", "5") as ir:
            assert await ir.lines(1) == ["bob has 5"]
        async with running(folder, "tail.py", "IR") as tail:
            line = (await tail.lines(1))[0]
            if line == f"{second} {other}":  # it was stopped after it had shown this one and before it kept the cursor
                line = (await tail.lines(1))[0]
            third, command = line.split(maxsplit=1)
            assert int(third) > int(second)
            assert command == "bob 5"


@pytest.mark.trio
async def test_a_ledger_goes_on_after_everybody_was_killed(folder: Path) -> None:
    for amount, sums in (("1", {1, 2}), ("1", {3, 4})):
        async with (
            running(folder, "ledger.py", "CA", "a", amount) as ca,
            running(folder, "ledger.py", "VA", "a", amount) as va,
        ):
            assert {int((await each.lines(1))[0].split()[-1]) for each in (ca, va)} == sums


@pytest.mark.trio
async def test_a_queue_hands_out_each_job_once_though_a_worker_is_killed(folder: Path) -> None:
    put = ("jobs.py", "CA", "put")
    handed: list[str] = []

    async def hand_out(*workers: Program, count: int) -> None:
        async def follow(worker: Program) -> None:
            while True:
                handed.append((await worker.lines(1))[0].split()[-1])
                if len(handed) == count:
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(follow, worker)

    async with running(folder, "jobs.py", "IR", "work", "bob") as bob:
        async with running(folder, "jobs.py", "VA", "work", "alice") as alice:
            async with running(folder, *put, *"abcdef"):
                await hand_out(alice, bob, count=6)
            async with running(folder, *put, *"ghi"):
                await hand_out(alice, bob, count=9)
        async with running(folder, "jobs.py", "VA", "work", "alice") as alice, running(folder, *put, *"jkl"):
            await hand_out(alice, bob, count=12)
    assert sorted(handed) == list("abcdefghijkl")


@pytest.mark.trio
async def test_settings_tell_of_changes_and_go_on_where_they_were(folder: Path) -> None:
    async with running(folder, "settings.py", "VA", "get", "colour") as va:
        async with running(folder, "settings.py", "CA", "set", "colour", "sky blue") as ca:
            assert await ca.lines(1) == ["it was not set"]
            assert (await va.lines(1))[0] in ("colour is not set", "colour is sky blue")
            async with running(folder, "settings.py", "IR", "watch") as watch:
                assert await watch.lines(1) == ["colour is now sky blue"]
        async with running(folder, "settings.py", "CA", "set", "size", "4") as ca:
            assert await ca.lines(1) == ["it was not set"]
        async with running(folder, "settings.py", "CA", "set", "colour", "red") as ca:
            assert await ca.lines(1) == ["it was sky blue"]
            async with running(folder, "settings.py", "IR", "watch") as watch:
                lines = await watch.lines(2)
                if lines[0] == "colour is now sky blue":  # killed after it had told of it and before it kept that
                    lines = [*lines[1:], *await watch.lines(1)]
                assert sorted(lines) == ["colour is now red", "size is now 4"], "other keys may come in any order"


def test_the_bug_that_was_planted_is_found_as_the_docs_say(repository: Path) -> None:
    votes = [sys.executable, str(repository / "examples" / "votes.py")]
    printed = subprocess.run(votes, capture_output=True, text=True, check=True).stdout
    page = (repository / "docs" / "how-to" / "test-your-machine.md").read_text(encoding="utf-8")
    found, corrected, simulated = printed.rstrip().split("\n\n")
    assert found.startswith("footprint: ")
    assert found in page
    assert corrected.startswith("corrected: 150 commands")
    assert "2 other hash seeds" in corrected
    assert simulated.startswith("10 seeds")


def test_the_first_page_shows_the_ledger(repository: Path) -> None:
    source = (repository / "examples" / "ledger.py").read_text(encoding="utf-8").splitlines()
    for block in _programs(repository):
        lines = [line for line in block.text.splitlines() if line]
        assert len(lines) <= 15
        assert not [line for line in lines if line.startswith(" ") and line not in source]


@pytest.mark.trio
async def test_the_program_of_the_first_page_runs_as_it_is_printed(folder: Path, repository: Path) -> None:
    (folder / "ledger.py").unlink()
    programs = _programs(repository)
    assert [block.file for block in programs] == ["ledger.py", "replica.py"]
    for block in programs:
        (folder / str(block.file)).write_text(block.text, encoding="utf-8")
    (printed,) = [block.text for block in blocks(repository / "README.md") if "replica.py CA" in block.text]
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(running(folder, *line.removeprefix("python ").split()))
            for line in printed.splitlines()
        ]
        said = [(await each.lines(1))[0] for each in started]
    assert set(said[:2]) in ({"alice has 30", "alice has 42"}, {"alice has 12", "alice has 42"})
    assert said[2:] == ["bob has 5"]


def _programs(repository: Path) -> list[Block]:
    return [block for block in blocks(repository / "README.md") if block.kind == "python"]


def test_the_file_of_the_examples_is_right(repository: Path) -> None:
    command = [sys.executable, "-m", "epaxos", "config", "check", str(repository / "examples" / "cluster.toml")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page: str, repository: Path) -> None:
    path = repository / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"
