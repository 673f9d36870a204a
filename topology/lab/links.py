"""What one direction of a link does to packets, and how people write it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from epaxos.errors import ConfigError

MAX_DELAY_US: Final = 10_000_000
_TIMES: Final = {"us": 1, "ms": 1_000, "s": 1_000_000}
_RATES: Final = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z%]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction between two regions."""

    delay_us: int
    """One way."""
    jitter_us: int = 0
    """The standard deviation of the delay; packets keep their order all the same."""
    loss: float = 0.0
    """The share of packets that are lost."""
    reorder: float = 0.0
    """The share of packets that overtake: they are delivered without delay."""
    rate_bps: int = 0
    """Bits a second; 0: no limit."""
    cut: bool = False
    """Nothing gets through."""

    def changed(self, words: dict[str, str]) -> Link:
        """This link with some of its properties set, as people write them: delay=300ms loss=2% rate=10mbit.

        Raises ConfigError, naming the word that is wrong.
        """
        values: dict[str, Any] = {}
        for key, text in words.items():
            if key not in _READERS:
                raise ConfigError(f"a link has no {key!r}; it has {', '.join(_READERS)}")
            field_, read = _READERS[key]
            values[field_] = read(key, text)
        return replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Link:
        """The inverse of `to_json`; what a newer release added is passed over."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def _split(key: str, text: str, units: dict[str, int]) -> float:
    found = _NUMBER.fullmatch(text.lower())
    if found is None or found[2] not in units:
        raise ConfigError(f"{key}={text}: a number and one of {', '.join(units)}")
    return float(found[1]) * units[found[2]]


def _time_us(key: str, text: str) -> int:
    value = round(_split(key, text, _TIMES))
    if value > MAX_DELAY_US:
        raise ConfigError(f"{key}={text}: at most {MAX_DELAY_US // 1_000_000} s")
    return value


def _share(key: str, text: str) -> float:
    value = _split(key, text, {"%": 1}) / 100
    if value > 1:
        raise ConfigError(f"{key}={text}: at most 100%")
    return value


def _rate_bps(key: str, text: str) -> int:
    return round(_split(key, text, _RATES))


_READERS: Final = {
    "delay": ("delay_us", _time_us),
    "jitter": ("jitter_us", _time_us),
    "loss": ("loss", _share),
    "reorder": ("reorder", _share),
    "rate": ("rate_bps", _rate_bps),
}
