"""Patterns of keys, as in KEYS and SCAN MATCH: `*`, `?`, `[a-z]`, `[^a]`; after `\\` a character means itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

_STAR: Final = ord("*")
_ANY: Final = ord("?")
_OPEN: Final = ord("[")
_CLOSE: Final = ord("]")
_ESCAPE: Final = ord("\\")
_TO: Final = ord("-")

_EVERY_BYTE: Final = frozenset(range(256))


class _Step(NamedTuple):
    """One byte of a text: which ones fit. A star has None: any number of any bytes."""

    fits: frozenset[int] | None


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Whether a text matches `pattern`, as a function. Its time is bounded by the product of the two lengths.

    As in Redis the empty text matches nothing but the empty pattern and a single star.
    """
    if pattern == b"*":
        return lambda text: True
    steps = _steps(pattern)
    return lambda text: _matches(steps, text) if text else not pattern


def _steps(pattern: bytes) -> list[_Step]:
    steps: list[_Step] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        if byte == _STAR:
            if not steps or steps[-1].fits is not None:
                steps.append(_Step(None))
        elif byte == _ANY:
            steps.append(_Step(_EVERY_BYTE))
        elif byte == _OPEN:
            fits, at = _class(pattern, at + 1)
            steps.append(_Step(fits))
        else:
            if byte == _ESCAPE and at + 1 < len(pattern):
                at += 1
            steps.append(_Step(frozenset((pattern[at],))))
        at += 1
    return steps


def _class(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """(bytes that fit, position of its last byte) of the class whose text begins at `at`. It may lack its bracket."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    fits: set[int] = set()
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _ESCAPE and at + 1 < len(pattern):
            at += 1
            fits.add(pattern[at])
        elif at + 2 < len(pattern) and pattern[at + 1] == _TO:
            low, high = sorted((_signed(pattern[at]), _signed(pattern[at + 2])))
            fits.update(value % 256 for value in range(low, high + 1))
            at += 2
        else:
            fits.add(pattern[at])
        at += 1
    return (_EVERY_BYTE - fits if inverted else frozenset(fits)), at


def _signed(byte: int) -> int:
    """In a range, bytes from 0x80 stand in front of all others, as in Redis on most machines."""
    return byte - 256 if byte >= 128 else byte


def _matches(steps: list[_Step], text: bytes) -> bool:
    """After a mismatch the last star takes one byte more: an earlier one never needs to."""
    step = at = 0
    star, resume = -1, 0
    while at < len(text):
        if step < len(steps):
            fits = steps[step].fits
            if fits is None:
                star, resume = step, at
                step += 1
                continue
            if text[at] in fits:
                step, at = step + 1, at + 1
                continue
        if star < 0:
            return False
        resume += 1
        step, at = star + 1, resume
    return all(each.fits is None for each in steps[step:])
