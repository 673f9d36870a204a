"""Results as a page that needs nothing but itself: `python -m bench report RESULT.json … --out page.html`.

It reads results as `compare`, `failover` and `throughput` write them and shows nothing that is not in them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from bench import report_failover, report_throughput
from bench.comparison import FORMAT, SHARES
from bench.failover import FORMAT as FAILOVER_FORMAT
from bench.page import figure, in_ms, legend, ms, scrolled, table
from bench.places import in_words
from bench.svg import COLOURS, Group, Line, bar_chart, line_chart, site_map
from bench.throughput import FORMAT as THROUGHPUT_FORMAT
from epaxos.errors import ConfigError
from epaxos.tables import count, percent, ratio

Result = dict[str, Any]

FORMATS: Final = {"compare": FORMAT, "failover": FAILOVER_FORMAT, "throughput": THROUGHPUT_FORMAT}

_STYLE: Final = Path(__file__).with_name("report.css")


_BARS: Final = "Median execution at each site, beside the physical optimum (the line across)"


def read(path: Path) -> Result:
    """A result from its file. Raises ConfigError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    what = value.get("what") if isinstance(value, dict) else None
    if what not in FORMATS or value.get("format") != FORMATS[what]:
        known = ", ".join(f"`{name}` in format {format_}" for name, format_ in FORMATS.items())
        raise ConfigError(f"{path}: not a result of {known}")
    result: Result = value
    return result


def page(results: Sequence[Result]) -> str:
    """The whole page: a section for each result, in their order."""
    matrices = dict.fromkeys(result["matrix"] for result in results if "matrix" in result)
    title = html.escape("EPaxos and Raft" + (f" on {' and '.join(matrices)}" if matrices else ""))
    body = "\n".join(line for result in results for line in _SECTIONS[result["what"]](result))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><h1>{title}</h1>{body}{provenance_lines(results)}</body></html>\n"
    )


def _compared(result: Result) -> Iterator[str]:
    load = result["load"]
    yield f"<p>{html.escape(_headline(result))}</p>"
    yield (
        f'<p class="dim">{len(result["sites"])} sites, {load["clients"]} open-loop clients at each,'
        f" {load['rate_per_s']:g} commands/s a client, {load['seconds']:g} s a cell, seed {load['seed']};"
        f" {html.escape(in_words(result['backend']))}.</p>"
    )
    yield "<h2>Every cell</h2>"
    yield _cells_table(result)
    colours = _colours(result)
    for workload in _workloads(result):
        yield from _of_workload(result, workload, colours)
    plain = _conflicts(result)
    if len(plain) > 1:
        yield "<h2>As conflicts grow</h2>"
        yield legend(colours)
        yield '<div class="many">'
        for name in ("p50", "p99"):
            yield figure(_over_conflicts(result, name, colours), f"{name} of all sites together")
        yield "</div>"
    yield "<h2>The sites</h2>"
    yield "<p>As far apart as their round trips, as nearly as a plane allows; each is joined to its nearest.</p>"
    picture = site_map(result["sites"], result["rtt_us"], title="The sites by their round trips")
    yield f'<div class="map">{picture}</div>'


def provenance_lines(results: Sequence[Result]) -> str:
    """Where the figures are from."""
    rows = [
        [
            result["what"],
            where["machine"],
            str(where["commit"]),
            where.get("kernel", ""),
            ", ".join(f"{name} {version}" for name, version in where.get("packages", {}).items()),
            where["at"],
        ]
        for result in results
        for where in [result["provenance"]]
    ]
    return "<h2>Where the figures are from</h2>" + table(
        ["part", "machine", "commit", "kernel", "packages", "taken at"], rows
    )


def _headline(result: Result) -> str:
    """What the run shows, in a sentence."""
    workload = _workloads(result)[0]
    means = {cell["label"]: cell["mean_p50_us"] for cell in _at(result, workload) if cell["mean_p50_us"]}
    rafts = {label: us for label, us in means.items() if label.startswith("raft")}
    if "epaxos" not in means or not rafts:
        return f"Execution latency ({_with_words(result, workload)}) beside the physical optimum."
    best = min(rafts, key=lambda label: rafts[label])
    ratio = rafts[best] / means["epaxos"]
    return (
        f"With {_with_words(result, workload)} a client waits {means['epaxos'] / 1000:.1f} ms with EPaxos and"
        f" {rafts[best] / 1000:.1f} ms with the best Raft leader ({best.removeprefix('raft, leader ')}), {ratio:.2f}"
        " times as long: the mean over the sites of the median execution."
    )


def _cells_table(result: Result) -> str:
    head = ["keys", "protocol", "bound", "p50", *list(SHARES)[1:], "fast path", "group", "syncs", "bytes", "busy"]
    rows = [
        [
            cell["workload"],
            cell["label"],
            ms(cell["mean_bound_us"]),
            ms(cell["mean_p50_us"]),
            *(ms(cell["pooled_us"][name]) for name in list(SHARES)[1:]),
            percent(cell["mean_fast_share"]),
            "/".join(count(cell["groups"][name]) for name in ("p50", "max")),
            ratio(cell["syncs_a_command"]),
            count(cell["bytes_a_command"]),
            percent(cell.get("busy_share")),
        ]
        for cell in result["cells"]
    ]
    return table(head, rows) + (
        '<p class="dim">Milliseconds of execution: from the intended send time to the reply. Bound, which is computed,'
        " and p50: the mean over the sites; the other percentiles: of all sites together; –: too few commands to claim"
        " the figure, or not measured. A group: so many batches as executed together, p50/max. Syncs, and bytes"
        " between replicas: a command, of all replicas together. Busy: the processors of the machine; near 100 % what"
        " is measured is the wait for them.</p>"
    )


def _of_workload(result: Result, workload: str, colours: dict[str, int]) -> Iterator[str]:
    cells = _at(result, workload)
    words = _with_words(result, workload)
    yield f"<h2>{html.escape(words[:1].upper() + words[1:])}</h2>"
    yield legend(colours)
    groups = [
        Group(
            site,
            [(colours[cell["label"]], in_ms(cell["sites"][site]["execute_us"]["p50"])) for cell in cells],
            cells[0]["sites"][site]["optimum_us"] / 1000,
        )
        for site in result["sites"]
    ]
    chart = bar_chart(groups, title=f"Median execution, {words}", y="ms")
    yield figure(scrolled(chart), _BARS)
    yield '<div class="many">'
    for site in result["sites"]:
        lines = [_cdf(cell["label"], colours[cell["label"]], cell["sites"][site]["cdf_us"]) for cell in cells]
        chart = line_chart(lines, title=f"Execution at {site}", x="ms", y="share of commands", width=300, height=190)
        yield figure(chart, f"{site}: how many commands took at most so long")
    yield "</div>"


def _cdf(label: str, colour: int, steps_us: Sequence[int]) -> Line:
    last = max(1, len(steps_us) - 1)
    return Line(label, colour, [(us / 1000, at / last) for at, us in enumerate(steps_us)])


def _over_conflicts(result: Result, name: str, colours: dict[str, int]) -> str:
    lines = []
    for label, colour in colours.items():
        cells = [
            cell
            for cell in result["cells"]
            if cell["label"] == label and cell["zipf"] is None and cell["pooled_us"][name] is not None
        ]
        points = [(100 * cell["conflict"], cell["pooled_us"][name] / 1000) for cell in cells]
        if points:
            lines.append(Line(label, colour, points))
    return line_chart(lines, title=f"{name} as conflicts grow", x="% conflicts", y="ms", width=420, height=240)


def _conflicts(result: Result) -> list[float]:
    return sorted({cell["conflict"] for cell in result["cells"] if cell["zipf"] is None})


def _workloads(result: Result) -> list[str]:
    return list(dict.fromkeys(cell["workload"] for cell in result["cells"]))


def _with_words(result: Result, workload: str) -> str:
    """Which keys were written, in a sentence."""
    cell = _at(result, workload)[0]
    if cell["zipf"] is None:
        return f"{100 * cell['conflict']:g} % conflicts"
    return f"keys by Zipf {cell['zipf']:g} of {result['load']['zipf_keys']}"


def _at(result: Result, workload: str) -> list[dict[str, Any]]:
    return [cell for cell in result["cells"] if cell["workload"] == workload]


def _colours(result: Result) -> dict[str, int]:
    labels = list(dict.fromkeys(cell["label"] for cell in result["cells"]))
    return {label: at % COLOURS for at, label in enumerate(labels)}


_SECTIONS: Final[dict[str, Callable[[Result], Iterator[str]]]] = {
    "compare": _compared,
    "failover": report_failover.section,
    "throughput": report_throughput.section,
}


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The page to write.")
def report(results: tuple[Path, ...], out: Path) -> None:
    """Results of `compare`, `failover` and `throughput` as one page with plots that needs nothing but itself.

    \b
    Example: python -m bench compare --out run.json && python -m bench report run.json --out run.html
    """
    out.write_text(page([read(path) for path in results]), encoding="utf-8")
    click.echo(f"wrote {out}")
