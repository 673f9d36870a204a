"""The section of a report on throughput."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.page import figure, in_ms, legend, ms, table
from bench.svg import Line, line_chart
from epaxos.tables import count, percent


def section(result: dict[str, Any]) -> Iterator[str]:
    """What each number of clients got, and waited."""
    options, curves = result["options"], result["curves"]
    colours = {curve["protocol"]: at for at, curve in enumerate(curves)}
    yield "<h2>Throughput on loopback</h2>"
    yield (
        f'<p class="dim">{options["replicas"]} durable replicas and the load on one machine without any distance'
        f" between them; closed loop, {options['seconds']:g} s a step, {percent(options['conflict'])} conflicts. The"
        " load takes its share of the same processors.</p>"
    )
    yield legend(colours)
    yield '<div class="many">'
    for name in ("p50", "p99"):
        lines = []
        for curve in curves:
            points = [
                (step["per_s"] / 1000, in_ms(step["took_us"][name]))
                for step in curve["steps"]
                if step["took_us"][name] is not None
            ]
            known = [(x, y) for x, y in points if y is not None]
            lines.append(Line(curve["protocol"], colours[curve["protocol"]], known))
        chart = line_chart(
            lines, title=f"{name} against throughput", x="thousand commands/s", y="ms", width=420, height=260, dots=True
        )
        yield figure(chart, f"{name} of what a command waits, against commands a second; a dot a number of clients")
    yield "</div>"
    rows = [
        [
            str(step["clients"]),
            curve["protocol"],
            f"{step['per_s']:,.0f}",
            *(ms(step["took_us"][name]) for name in ("p50", "p90", "p99")),
            count(step["cpu_us"]),
            str(sum(step["errors"].values())),
        ]
        for curve in curves
        for step in curve["steps"]
    ]
    yield table(["clients", "protocol", "commands/s", "p50, ms", "p90", "p99", "CPU µs a command", "errors"], rows)
    yield '<p class="dim">Processor time: of all replicas together, without the load.</p>'
