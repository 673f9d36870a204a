"""Numbers on a command line that measure something: seconds, rates, percent."""

from __future__ import annotations

import math
from typing import Any, Final

import click


class Amount(click.FloatRange):
    """A finite number in a range; `nan` is in every range of click's own."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


NOT_NEGATIVE: Final = Amount(min=0)
POSITIVE: Final = Amount(min=0, min_open=True)
PERCENT: Final = Amount(0, 100)
