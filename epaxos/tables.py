"""Plain aligned tables, and the words for numbers in them. Times come in as microseconds and are shown in ms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT: Final = "–"
"""Stands where a number would be claimed that the measurement does not support."""


class Column(NamedTuple):
    """A column: its title, which may have several lines, and whether its cells stand to the right (numbers do)."""

    title: str
    right: bool = True


def render(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, foot: Sequence[Sequence[str]] = ()) -> str:
    """The table as lines of text without trailing spaces: titles, a rule, rows and, after a second rule, `foot`.

    Every row has one cell a column; ValueError otherwise.
    """
    titles = [column.title.split("\n") for column in columns]
    height = max(len(lines) for lines in titles)
    head = [[([""] * (height - len(lines)) + lines)[at] for lines in titles] for at in range(height)]
    widths = [max(map(len, cells)) for cells in zip(*head, *rows, *foot, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(columns, widths, cells) for cells in head] + [rule]
    lines += [_line(columns, widths, cells) for cells in rows]
    if foot:
        lines += [rule, *(_line(columns, widths, cells) for cells in foot)]
    return "\n".join(lines)


def ms(us: float | None) -> str:
    """Microseconds as milliseconds with one decimal."""
    return ABSENT if us is None else f"{us / 1000:.1f}"


def count(value: float | None) -> str:
    """A whole number."""
    return ABSENT if value is None else f"{value:.0f}"


def ratio(value: float | None) -> str:
    """A ratio with two decimals."""
    return ABSENT if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """A share of one as a percentage with one decimal."""
    return ABSENT if share is None else f"{100 * share:.1f} %"


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    aligned = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return "  ".join(aligned).rstrip()


_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def sparks(values: Sequence[float]) -> str:
    """A line of blocks as high as the values; a blank for 0."""
    most, top = max(values, default=0) or 1, len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(top, int(value / most * len(_BLOCKS)))] if value else " " for value in values)
