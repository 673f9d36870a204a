"""`epaxos status`: one row a replica, asked of each replica itself, or all the figures of one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import trio

from epaxos.client import Client
from epaxos.commands import byhand
from epaxos.config import Config
from epaxos.console import EXIT_DONE, EXIT_FAILED, Console
from epaxos.errors import EpaxosError
from epaxos.observe.metrics import fast_share
from epaxos.tables import ABSENT, Column, ms, percent, render

ANSWER_WITHIN_S: Final = 2.0
WATCH_EVERY_S: Final = 1.0
WAIT_EVERY_S: Final = 0.2

_CLEAR: Final = "\x1b[H\x1b[2J"

Status = dict[str, Any]
"""What one replica says of itself; for one that does not answer its `name` and the `error`."""


async def show(config: Config, console: Console, *, at: str | None, watch: bool) -> int:
    """Ask every replica, or the one `at` names, and show the answers, again and again with `watch`. The exit code: did
    anybody answer?"""
    while True:
        found = await gather(config, at)
        clear = _CLEAR if watch and not console.as_json and sys.stdout.isatty() else ""
        console.result(found, clear + table(found, config.names))
        if not watch:
            return EXIT_DONE if any("error" not in each for each in found) else EXIT_FAILED
        await trio.sleep(WATCH_EVERY_S)


async def wait(config: Config, console: Console, within_s: float, *, at: str | None) -> int:
    """Ask until all is well with every replica, or the one `at` names, then show the answers. The exit code: was it, in
    time?"""
    deadline_s = trio.current_time() + within_s
    wanted = 0
    while True:
        found = await gather(config, at)
        missing = list(_apart(found))
        if not missing:
            wanted = wanted or max(each["executed"] for each in found)  # there is always more: what was at first counts
            missing = [
                f"{each['name']} has executed {each['executed']} of {wanted}"
                for each in found
                if each["executed"] < wanted
            ]
        if not missing or trio.current_time() >= deadline_s:
            console.progress_done()
            console.result(found, table(found, config.names))
            for each in missing:
                console.warn(f"after {within_s:g} s: {each}")
            return EXIT_FAILED if missing else EXIT_DONE
        console.progress(f"waiting: {', '.join(missing)}")
        await trio.sleep(WAIT_EVERY_S)


def _apart(found: list[Status]) -> Iterator[str]:
    """What keeps replicas apart, for each that does not answer or lacks a link to one that does."""
    silent = {status["name"] for status in found if "error" in status}
    for status in found:
        if status["name"] in silent:
            yield f"{status['name']} does not answer"
            continue
        lost = [peer for peer, link in status["peers"].items() if not link["up"] and peer not in silent]
        if lost:
            yield f"{status['name']} has no link to {' '.join(lost)}"


def metrics(config: Config, console: Console, at: str) -> int:
    """Show the figures of this replica in Prometheus's text format; the exit code. Raises as `ask`."""
    text = byhand.ask(config, at, ("EPAXOS", "METRICS"), timeout_s=ANSWER_WITHIN_S).rstrip("\n")
    console.result(text, text)
    return EXIT_DONE


async def gather(config: Config, at: str | None) -> list[Status]:
    """The status of every replica, or of the one `at` names, in the order of the file; those that do not answer in time
    say why."""
    asked = config.replicas if at is None else (config.replica(at),)
    found: list[Status] = [{"name": replica.name, "error": "no answer"} for replica in asked]

    async def ask(row: int) -> None:
        try:
            async with Client(replace(config, replicas=(asked[row],)), retry_ms=0) as client:
                found[row] = json.loads(await client.execute("EPAXOS", "STATUS"))
        except EpaxosError as error:
            found[row]["error"] = str(error)

    with trio.move_on_after(ANSWER_WITHIN_S):
        async with trio.open_nursery() as nursery:
            for row in range(len(asked)):
                nursery.start_soon(ask, row)
    return found


def table(found: list[Status], names: Sequence[str]) -> str:
    """For people. `names` are those of all replicas, by id."""
    led = any("leader" in each.get("detail", ()) for each in found)
    columns = [
        Column("replica", right=False),
        Column("protocol", right=False),
        *([Column("leader", right=False)] if led else []),
        Column("up\ns"),
        Column("peers\nup"),
        Column("executed"),
        Column("behind"),
        Column("to\nlearn"),
        Column("in\nflight"),
        Column("fast"),
        Column("commit, ms\np50"),
        Column("\np99"),
        Column("execution, ms\np50"),
        Column("\np99"),
        Column("log\nMB"),
        Column("syncs"),
        Column("longest\nms"),
    ]
    rows = [_row(each, names if led else ()) for each in found if "error" not in each]
    silent = [f"{each['name']}: {each['error']}" for each in found if "error" in each]
    return "\n".join([*([render(columns, rows)] if rows else []), *silent])


def _row(status: Status, names: Sequence[str]) -> list[str]:
    """With the name of the leader, unless there are no `names`."""
    leader = status["detail"].get("leader")
    peers = status["peers"].values()
    return [
        status["name"],
        status["protocol"],
        *([ABSENT if leader is None else names[leader]] if names else []),
        f"{status['up_s']:.0f}",
        f"{sum(peer['up'] for peer in peers)}/{len(peers)}",
        *(str(status[name]) for name in ("executed", "behind")),
        _to_learn(status["detail"].get("catching_up")),
        str(status["in_flight"]),
        percent(fast_share(status["commands"])),
        *(_latency(status[what], share) for what in ("commit_us", "execute_us") for share in ("p50", "p99")),
        f"{status['disk']['used_bytes'] / 1e6:.1f}",
        str(status["disk"]["syncs"]),
        ms(status["disk"]["sync_us_max"]),
    ]


def _to_learn(catching_up: dict[str, int] | None) -> str:
    """Instances that others know and this replica does not yet, and how many a second it learns while it catches up."""
    if catching_up is None:
        return ABSENT
    rate = catching_up["per_s"]
    return f"{catching_up['missing']} ({rate}/s)" if rate else str(catching_up["missing"])


def _latency(histogram: dict[str, int], share: str) -> str:
    return ms(histogram[share] if histogram["count"] else None)
