"""Small charts as SVG text, for pages that need nothing but themselves. Colours are the page's: `--c0`, `--c1`, …"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

COLOURS: Final = 8
_MARGIN_LEFT: Final = 52
_MARGIN_BOTTOM: Final = 34
_MARGIN_TOP: Final = 24
_MARGIN_RIGHT: Final = 12


class Line(NamedTuple):
    """One curve: its name, its colour's number, its points in the units of the axes."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    dashed: bool = False


class Band(NamedTuple):
    """A stretch of the horizontal axis that is shaded, and what it is."""

    left: float
    right: float
    name: str


class Group(NamedTuple):
    """Bars that stand together: what they are of, and (colour, value) of each; None where there is no figure."""

    name: str
    bars: Sequence[tuple[int, float | None]]
    mark: float | None = None
    """Where a line is drawn across the group."""


class Axes:
    """A frame with ticks, and the way from values to places in it."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height = width, height
        self._x, self._y = x, y
        self._parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point stands."""
        across = (x - self._x[0]) / ((self._x[1] - self._x[0]) or 1)
        up = (y - self._y[0]) / ((self._y[1] - self._y[0]) or 1)
        left, right = _MARGIN_LEFT, self.width - _MARGIN_RIGHT
        bottom, top = self.height - _MARGIN_BOTTOM, _MARGIN_TOP
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - top), 1)

    def grid(self, label: str, ticks: Callable[[float], str] = lambda value: f"{value:g}") -> None:
        """Horizontal lines at round values, and what the axis is of."""
        for value in round_values(*self._y):
            (x0, y), (x1, _) = self.at(self._x[0], value), self.at(self._x[1], value)
            self.add(f'<line class="grid" x1="{x0}" y1="{y}" x2="{x1}" y2="{y}"/>')
            self.add(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{html.escape(ticks(value))}</text>')
        self.add(f'<text class="label" x="4" y="11">{html.escape(label)}</text>')

    def below(self, label: str, ticks: Callable[[float], str] = lambda value: f"{value:g}") -> None:
        """Round values under the frame, and what they are."""
        for value in round_values(*self._x):
            x, y = self.at(value, self._y[0])
            self.add(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{html.escape(ticks(value))}</text>')
        x, y = self.at(self._x[1], self._y[0])
        self.add(f'<text class="label" x="{x}" y="{y + 30}" text-anchor="end">{html.escape(label)}</text>')

    def add(self, part: str) -> None:
        """One more element."""
        self._parts.append(part)

    def text(self, title: str) -> str:
        """The whole picture; `title` is read out and shown under the pointer."""
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img"><title>{html.escape(title)}</title>'
        return f"{head}{''.join(self._parts)}</svg>"


def round_values(low: float, high: float, count: int = 5) -> list[float]:
    """About so many round numbers between two values."""
    span = (high - low) or 1.0
    rough = span / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(step * (first + at), 10) for at in range(int((high - first * step) / step + 1e-9) + 1)]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    width: int = 420,
    height: int = 240,
    bands: Sequence[Band] = (),
    dots: bool = False,
) -> str:
    """Curves over a common axis, which begins at 0 on the left and at the bottom; `dots` marks their points."""
    points = [point for line in lines for point in line.points]
    top = (max((point[1] for point in points), default=1.0) or 1.0) * 1.05
    right = max((point[0] for point in points), default=1.0) or 1.0
    axes = Axes(width, height, (0.0, right), (0.0, top))
    for band in bands:
        (x0, y0), (x1, y1) = axes.at(band.left, top), axes.at(min(band.right, right), 0.0)
        axes.add(f'<rect class="band" x="{x0}" y="{y0}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>')
        axes.add(f'<text x="{x0 + 4}" y="{y0 + 12}">{html.escape(band.name)}</text>')
    axes.grid(y)
    axes.below(x)
    for line in lines:
        places = [axes.at(*point) for point in line.points]
        path = " ".join(f"{px},{py}" for px, py in places)
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        name = f"<title>{html.escape(line.name)}</title>"
        axes.add(
            f'<polyline class="line" style="stroke:var(--c{line.colour})"{dashes} points="{path}">{name}</polyline>'
        )
        for px, py in places if dots else ():
            axes.add(f'<circle style="fill:var(--c{line.colour})" cx="{px}" cy="{py}" r="3.5"/>')
    return axes.text(title)


def bar_chart(groups: Sequence[Group], *, title: str, y: str, width: int = 860, height: int = 280) -> str:
    """Bars in groups, each group with a mark across it where it has one."""
    values = [value for group in groups for _, value in group.bars if value is not None]
    axes = Axes(width, height, (0.0, float(len(groups) or 1)), (0.0, max(values, default=1.0) * 1.1))
    axes.grid(y)
    for at, group in enumerate(groups):
        share = 0.8 / max(1, len(group.bars))
        for number, (colour, value) in enumerate(group.bars):
            if value is None:
                continue
            x0, y0 = axes.at(at + 0.1 + number * share, value)
            x1, y1 = axes.at(at + 0.1 + (number + 0.9) * share, 0.0)
            axes.add(
                f'<rect x="{x0}" y="{y0}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" style="fill:var(--c{colour})">'
                f"<title>{html.escape(group.name)}: {value:.1f}</title></rect>"
            )
        if group.mark is not None:
            (x0, y0), (x1, _) = axes.at(at + 0.04, group.mark), axes.at(at + 0.96, group.mark)
            axes.add(f'<line class="mark" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y0}"/>')
        x, y0 = axes.at(at + 0.5, 0.0)
        axes.add(f'<text x="{x}" y="{y0 + 16}" text-anchor="middle">{html.escape(group.name)}</text>')
    return axes.text(title)


def site_map(sites: Sequence[str], rtt_us: Sequence[Sequence[int]], *, title: str, size: int = 320) -> str:
    """The sites as far apart as their round trips, as nearly as a plane allows; each joined to its nearest."""
    places = unfold(rtt_us)
    xs, ys = [x for x, _ in places], [y for _, y in places]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1.0)
    pad, inner = 36, size - 72

    def at(place: tuple[float, float]) -> tuple[float, float]:
        x, y = (place[0] - min(xs)) / span, (place[1] - min(ys)) / span
        return round(pad + x * inner, 1), round(pad + y * inner, 1)

    parts = []
    for i, row in enumerate(rtt_us):
        for j in range(i):
            (x0, y0), (x1, y1) = at(places[i]), at(places[j])
            near = row[j] == min(us for k, us in enumerate(row) if k != i)
            kind = "near" if near else "grid"
            words = html.escape(f"{sites[i]}-{sites[j]}: {row[j] / 1000:.1f} ms")
            parts.append(f'<line class="{kind}" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"><title>{words}</title></line>')
    for site, place in zip(sites, places, strict=True):
        x, y = at(place)
        parts.append(f'<circle cx="{x}" cy="{y}" r="5"/><text x="{x + 8}" y="{y - 6}">{html.escape(site)}</text>')
    head = f'<svg viewBox="0 0 {size} {size}" role="img"><title>{html.escape(title)}</title>'
    return f"{head}{''.join(parts)}</svg>"


def unfold(distances: Sequence[Sequence[float]], rounds: int = 300) -> list[tuple[float, float]]:
    """Places in the plane whose distances are nearly these: majorization of stress (de Leeuw, 1977), from a circle."""
    n = len(distances)
    radius = max(max(row) for row in distances) / 2 or 1.0
    places = [(radius * math.cos(2 * math.pi * i / n), radius * math.sin(2 * math.pi * i / n)) for i in range(n)]
    for _ in range(rounds):
        moved = []
        for i, (xi, yi) in enumerate(places):
            x = y = 0.0
            for j, (xj, yj) in enumerate(places):
                if i != j:
                    pull = distances[i][j] / (math.hypot(xi - xj, yi - yj) or 1e-9)
                    x += xj + pull * (xi - xj)
                    y += yj + pull * (yi - yj)
            moved.append((x / max(1, n - 1), y / max(1, n - 1)))
        places = moved
    return places
