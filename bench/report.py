"""A comparison as a page that needs nothing but itself: `python -m bench report RESULT.json --out page.html`.

It reads results as `compare` writes them (format 1) and shows nothing that is not in them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from bench.comparison import FORMAT, SHARES
from bench.svg import COLOURS, Group, Line, bar_chart, line_chart, site_map
from epaxos.errors import ConfigError

Result = dict[str, Any]

_STYLE: Final = Path(__file__).with_name("report.css")


_BARS: Final = "Median execution at each site, beside the physical optimum (the line across)"


def read(path: Path) -> Result:
    """A result from its file. Raises ConfigError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict) or value.get("what") != "compare" or value.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a result of `compare` in format {FORMAT}")
    return value


def page(result: Result) -> str:
    """The whole page."""
    body = "\n".join(_body(result))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>EPaxos and Raft on {html.escape(result['matrix'])}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _body(result: Result) -> Iterator[str]:
    load, where = result["load"], result["provenance"]
    yield f"<h1>EPaxos and Raft on {html.escape(result['matrix'])}</h1>"
    yield f"<p>{html.escape(_headline(result))}</p>"
    yield (
        f'<p class="dim">{len(result["sites"])} sites, {load["clients"]} open-loop clients at each,'
        f" {load['rate_per_s']:g} commands/s a client, {load['seconds']:g} s a cell, seed {load['seed']}."
        f" {_links(result['backend'])}."
        f" {html.escape(where['machine'])}; commit {html.escape(str(where['commit']))}; {html.escape(where['at'])}.</p>"
    )
    yield "<h2>Every cell</h2>"
    yield _cells_table(result)
    colours = _colours(result)
    for conflict in _conflicts(result):
        yield from _of_conflict(result, conflict, colours)
    if len(_conflicts(result)) > 1:
        yield "<h2>As conflicts grow</h2>"
        yield _legend(colours)
        yield '<div class="many">'
        for name in ("p50", "p99"):
            yield _figure(_over_conflicts(result, name, colours), f"{name} of all sites together")
        yield "</div>"
    yield "<h2>The sites</h2>"
    yield "<p>As far apart as their round trips, as nearly as a plane allows; each is joined to its nearest.</p>"
    picture = site_map(result["sites"], result["rtt_us"], title="The sites by their round trips")
    yield f'<div class="map">{picture}</div>'


def _headline(result: Result) -> str:
    """What the run shows, in a sentence."""
    conflict = _conflicts(result)[0]
    means = {cell["label"]: cell["mean_p50_us"] for cell in _at(result, conflict) if cell["mean_p50_us"]}
    rafts = {label: us for label, us in means.items() if label.startswith("raft")}
    if "epaxos" not in means or not rafts:
        return f"Execution latency at {100 * conflict:g} % conflicts and more, beside the physical optimum."
    best = min(rafts, key=lambda label: rafts[label])
    ratio = rafts[best] / means["epaxos"]
    return (
        f"At {100 * conflict:g} % conflicts a client waits {means['epaxos'] / 1000:.1f} ms with EPaxos and"
        f" {rafts[best] / 1000:.1f} ms with the best Raft leader ({best.removeprefix('raft, leader ')}), {ratio:.2f}"
        " times as long: the mean over the sites of the median execution."
    )


def _links(backend: str) -> str:
    return {
        "virtual": "Modelled: the engines that ship, in virtual time; computing costs nothing",
        "none": "Links lengthened inside the replicas",
    }.get(backend, f"Links emulated by {html.escape(backend)}")


def _cells_table(result: Result) -> str:
    head = ["conflicts", "protocol", "bound, mean", "mean p50", *list(SHARES)[1:], "fast path"]
    rows = [
        [
            f"{100 * cell['conflict']:g} %",
            cell["label"],
            _ms(cell["mean_bound_us"]),
            _ms(cell["mean_p50_us"]),
            *(_ms(cell["pooled_us"][name]) for name in list(SHARES)[1:]),
            "–" if cell["mean_fast_share"] is None else f"{100 * cell['mean_fast_share']:.1f} %",
        ]
        for cell in result["cells"]
    ]
    return _table(head, rows) + (
        '<p class="dim">Milliseconds of execution: from the intended send time to the reply. Percentiles of all sites'
        " together; –: too few commands to claim the figure. The bound is computed.</p>"
    )


def _of_conflict(result: Result, conflict: float, colours: dict[str, int]) -> Iterator[str]:
    cells = _at(result, conflict)
    yield f"<h2>{100 * conflict:g} % conflicts</h2>"
    yield _legend(colours)
    groups = [
        Group(
            site,
            [(colours[cell["label"]], _in_ms(cell["sites"][site]["execute_us"]["p50"])) for cell in cells],
            cells[0]["sites"][site]["optimum_us"] / 1000,
        )
        for site in result["sites"]
    ]
    chart = bar_chart(groups, title=f"Median execution at {100 * conflict:g} % conflicts", y="ms")
    yield _figure(f'<div class="scroll"><div class="wide">{chart}</div></div>', _BARS)
    yield '<div class="many">'
    for site in result["sites"]:
        lines = [_cdf(cell["label"], colours[cell["label"]], cell["sites"][site]["cdf_us"]) for cell in cells]
        chart = line_chart(lines, title=f"Execution at {site}", x="ms", y="share of commands", width=300, height=190)
        yield _figure(chart, f"{site}: how many commands took at most so long")
    yield "</div>"


def _cdf(label: str, colour: int, steps_us: Sequence[int]) -> Line:
    last = max(1, len(steps_us) - 1)
    return Line(label, colour, [(us / 1000, at / last) for at, us in enumerate(steps_us)])


def _over_conflicts(result: Result, name: str, colours: dict[str, int]) -> str:
    lines = []
    for label, colour in colours.items():
        cells = [cell for cell in result["cells"] if cell["label"] == label and cell["pooled_us"][name] is not None]
        points = [(100 * cell["conflict"], cell["pooled_us"][name] / 1000) for cell in cells]
        if points:
            lines.append(Line(label, colour, points))
    return line_chart(lines, title=f"{name} as conflicts grow", x="% conflicts", y="ms", width=420, height=240)


# ---------------------------------------------------------------------------------------------------------- small parts


def _conflicts(result: Result) -> list[float]:
    return sorted({cell["conflict"] for cell in result["cells"]})


def _at(result: Result, conflict: float) -> list[dict[str, Any]]:
    return [cell for cell in result["cells"] if cell["conflict"] == conflict]


def _colours(result: Result) -> dict[str, int]:
    labels = list(dict.fromkeys(cell["label"] for cell in result["cells"]))
    return {label: at % COLOURS for at, label in enumerate(labels)}


def _legend(colours: dict[str, int]) -> str:
    items = "".join(
        f'<li><i style="background:var(--c{colour})"></i>{html.escape(label)}</li>' for label, colour in colours.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(word)}</td>' for word in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def _ms(us: float | None) -> str:
    return "–" if us is None else f"{us / 1000:.1f}"


def _in_ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


@click.command()
@click.argument("result", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The page to write.")
def report(result: Path, out: Path) -> None:
    """A result of `compare` as a page with plots that needs nothing but itself.

    \b
    Example: python -m bench compare --out run.json && python -m bench report run.json --out run.html
    """
    out.write_text(page(read(result)), encoding="utf-8")
    click.echo(f"wrote {out}")
