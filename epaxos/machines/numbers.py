"""Numbers as Redis reads and writes them, without a floating-point unit: the same at every replica.

Integers are 64 bits in their one canonical decimal form. INCRBYFLOAT counts in the extended precision of x87 (a
mantissa of 64 bits), which is what Redis computes with on most machines, done here with exact fractions.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

I64_MIN: Final = -(1 << 63)
I64_MAX: Final = (1 << 63) - 1

_MANTISSA_BITS: Final = 64
_EXPONENT_MAX: Final = 1 << 14
"""Values reach up to 2 to this power."""
_SUBNORMAL: Final = -16_445
"""The exponent of the smallest positive value."""
_DECIMAL: Final = re.compile(rb"([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d+))?", re.ASCII)
_HEX: Final = re.compile(
    rb"([+-]?)0[xX](?:([\da-fA-F]+)(?:\.([\da-fA-F]*))?|\.([\da-fA-F]+))(?:[pP]([+-]?\d+))?", re.ASCII
)
_INFINITY: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_FLOAT_BYTES: Final = 5 * 1024
"""A longer text is no number."""
_EXPONENT_DIGITS: Final = 8
"""An exponent of more digits is beyond every value."""
_EXPONENT_BOUND: Final = {10: 2 * _FLOAT_BYTES, 2: 8 * _FLOAT_BYTES}
"""Of each base: beyond it no digits bring a value back into range."""
_DECIMALS: Final = 17
_CONVERTED: Final = 4_000
"""Python converts no more digits at once."""


def parse_i64(text: bytes) -> int | None:
    """The 64-bit integer that `text` is in its one canonical form, else None: no sign `+`, space or leading zero."""
    if not 1 <= len(text) <= 20:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0"):
        return None
    value = int(text)
    return value if I64_MIN <= value <= I64_MAX else None


def parse_float(text: bytes) -> Fraction | None:
    """The value of a decimal number, or of a hexadecimal one as C writes it, rounded to extended precision; None for
    what is none or out of range."""
    if len(text) >= _FLOAT_BYTES:
        return None
    found = _DECIMAL.fullmatch(text) or _HEX.fullmatch(text)
    if found is None:
        return None
    sign, whole, part, alone, power = found.groups()
    fraction = part or alone or b""
    digits = (whole or b"") + fraction
    if found.re is _DECIMAL:
        mantissa, base, shifted = _from_digits(digits), 10, len(fraction)
    else:
        mantissa, base, shifted = int(digits, 16), 2, 4 * len(fraction)
    if not mantissa:
        return Fraction(0)
    if abs(exponent := _exponent(power or b"0") - shifted) > _EXPONENT_BOUND[base]:
        return None
    exact = Fraction(mantissa) * Fraction(base) ** exponent
    value = round_float(-exact if sign == b"-" else exact)
    return value or None


def is_infinite(text: bytes) -> bool:
    """Is this how a number beyond all others is written?"""
    return _INFINITY.fullmatch(text) is not None


def round_float(value: Fraction) -> Fraction | None:
    """The nearest value of extended precision, ties to even; None beyond the largest."""
    if not value:
        return value
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - _MANTISSA_BITS + 1, _SUBNORMAL)
    rounded = round(value / unit) * unit
    return rounded if abs(rounded) < Fraction(2) ** _EXPONENT_MAX else None


def format_float(value: Fraction) -> bytes:
    """At most 17 decimals, ties to even, without zeros at the end."""
    units = round(abs(value) * 10**_DECIMALS)
    whole, decimals = divmod(units, 10**_DECIMALS)
    text = (b"%b.%017d" % (_to_digits(whole), decimals)).rstrip(b"0").rstrip(b".")
    return b"-" + text if value < 0 and text != b"0" else text


def _exponent(text: bytes) -> int:
    """The power, or one that is as far beyond every value."""
    digits = text.lstrip(b"+-").lstrip(b"0")[:_EXPONENT_DIGITS]
    return int(digits or b"0") * (-1 if text[:1] == b"-" else 1)


def _from_digits(digits: bytes) -> int:
    """`int`, for any number of digits."""
    value = 0
    for at in range(0, len(digits), _CONVERTED):
        part = digits[at : at + _CONVERTED]
        value = value * 10 ** len(part) + int(part)
    return value


def _to_digits(value: int) -> bytes:
    """The inverse."""
    high, low = divmod(value, 10**_CONVERTED)
    return _to_digits(high) + (b"%d" % low).zfill(_CONVERTED) if high else b"%d" % low
