"""The section of a report on what clients noticed while replicas died and came back."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from bench.failover import capacity_words
from bench.page import figure, legend, ms, scrolled, table
from bench.places import in_words
from bench.svg import Band, Line, line_chart

_COLOURS = {"epaxos": 0, "raft": 1}


def section(result: dict[str, Any]) -> Iterator[str]:
    """Answers and waits over time, the longest gaps, and every site."""
    load, timelines = result["load"], result["timelines"]
    first, second = (each["site"] for each in timelines[0]["outages"])
    leader = next((each["leader"] for each in timelines if each["leader"]), None)
    yield "<h2>When a site dies</h2>"
    yield f"<p>{html.escape(_headline(timelines))}</p>"
    yield (
        f'<p class="dim">{load["rate_per_s"]:g} commands/s at each of {len(result["sites"])} sites'
        f"{capacity_words(result)}; open loop at equal intervals; {100 * load['shared']:g} % write one key from all"
        " sites, the others write keys that nobody else does."
        f" {first} is killed and comes back, then {second}{', which leads Raft' if second == leader else ''}; shaded"
        f" while dead. {html.escape(in_words(result['backend'])).capitalize()}.</p>"
    )
    colours = {each["protocol"]: _COLOURS.get(each["protocol"], 2) for each in timelines}
    syncs = [f"{each['protocol']} {ms(each['longest_sync_us'])} ms" for each in timelines if each["longest_sync_us"]]
    if syncs:
        yield f'<p class="dim">The longest sync of a disk in the run, in which nobody answers: {", ".join(syncs)}.</p>'
    yield legend(colours)
    bands = [
        Band(each["killed_us"] / 1e6, each["restarted_us"] / 1e6, f"{each['site']} dead")
        for each in timelines[0]["outages"]
    ]
    bucket_us = result["bucket_us"]
    charts = (
        ("other", 0, "answers/s", "Answers a second at all sites, keys that nobody else writes"),
        ("other", 2, "ms", "The longest wait, keys that nobody else writes; by when a command should have left"),
        ("shared", 2, "ms", "The longest wait, the key that all sites write"),
    )
    for kind, column, unit, caption in charts:
        lines = [
            Line(each["protocol"], colours[each["protocol"]], _points(each["series"]["all"][kind], column, bucket_us))
            for each in timelines
        ]
        chart = line_chart(lines, title=caption, x="s", y=unit, width=860, height=210, bands=bands)
        yield figure(scrolled(chart), caption)
    yield _gaps_table(timelines)


def _points(buckets: Sequence[Sequence[int | None]], column: int, bucket_us: int) -> list[tuple[float, float]]:
    """(seconds, value) in the middle of each bucket; counts as a rate, waits in milliseconds."""
    scale = 1e6 / bucket_us if column == 0 else 1e-3
    points = []
    for at, bucket in enumerate(buckets):
        value = bucket[column]
        if value is not None:
            points.append(((at + 0.5) * bucket_us / 1e6, value * scale))
    return points


def _headline(timelines: Sequence[dict[str, Any]]) -> str:
    """The longest gaps in a sentence a protocol."""
    sentences = []
    for timeline in timelines:
        found = []
        for outage, gaps in zip(timeline["outages"], timeline["gaps"], strict=True):
            longest = max((gap for gap in gaps if gap["kind"] == "other"), key=lambda gap: gap["down_us"])
            led = ", the leader," if outage["site"] == timeline["leader"] else ""
            found.append(f"{ms(longest['down_us'])} ms while {outage['site']}{led} was dead")
        sentences.append(f"{timeline['protocol']}: {' and '.join(found)}")
    return (
        "The longest time without an answer at any surviving site, on keys that the dead one had nothing to do with: "
        + "; ".join(sentences)
        + "."
    )


def _gaps_table(timelines: Sequence[dict[str, Any]]) -> str:
    head = ["dead", "protocol", "site", "RTT", "gap before", "dead", "back", "wait before", "dead"]
    head += ["shared: before", "dead", "lost"]
    rows = []
    for timeline in timelines:
        for outage, gaps in zip(timeline["outages"], timeline["gaps"], strict=True):
            kinds = {(gap["site"], gap["kind"]): gap for gap in gaps}
            for site in dict.fromkeys(gap["site"] for gap in gaps):
                other, shared = kinds[site, "other"], kinds[site, "shared"]
                names = ("rtt_us", "before_us", "down_us", "back_us", "wait_before_us", "wait_us")
                rows.append(
                    [
                        *(outage["site"], timeline["protocol"], site),
                        *(ms(other[name]) for name in names),
                        *(ms(shared[name]) for name in ("wait_before_us", "wait_us")),
                        str(other["unanswered"] + shared["unanswered"]),
                    ]
                )
    return table(head, rows) + (
        '<p class="dim">Milliseconds, on keys that nobody else writes. A gap is the longest time without an answer:'
        " before anybody died, while the replica was dead, from its restart on. RTT: computed, to the nearest majority"
        " of those alive, without which nothing is decided there. Wait: the longest of the commands due then; shared:"
        " the same on the key that all sites write. Lost: how many were refused or never answered.</p>"
    )
