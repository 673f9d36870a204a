"""The small parts that every section of a report is made of, as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence


def legend(colours: dict[str, int]) -> str:
    """Which colour is what."""
    items = "".join(
        f'<li><i style="background:var(--c{colour})"></i>{html.escape(label)}</li>' for label, colour in colours.items()
    )
    return f'<ul class="legend">{items}</ul>'


def figure(chart: str, caption: str) -> str:
    """A chart with words under it."""
    return f"<figure>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the page is narrow."""
    cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(word)}</td>' for word in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def ms(us: float | None) -> str:
    """Microseconds as milliseconds, for a table."""
    return "–" if us is None else f"{us / 1000:.1f}"


def in_ms(us: float | None) -> float | None:
    """The same, for a chart."""
    return None if us is None else us / 1000


def scrolled(chart: str) -> str:
    """A wide chart, which scrolls by itself where the page is narrow."""
    return f'<div class="scroll"><div class="wide">{chart}</div></div>'
