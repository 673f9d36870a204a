"""Inline commands: one line of words, some of them in quotes, as people type them."""

from __future__ import annotations

import re
from typing import Final

_SPACE: Final = b" \t\n\v\f\r"
_PLAIN: Final = re.compile(rb"[^\"' \n\r\t]+")
_DOUBLE: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE: Final = re.compile(rb"'((?:[^'\\]|\\'|\\(?!'))*)'", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROL: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> list[bytes] | None:
    """The words of a line; None when a quote is not closed, or text follows a closing quote.

    In double quotes a backslash begins an escape (hexadecimal as in `\\x41`, or n r t b a); in single quotes only
    `\\'` is one. A quote may begin in the middle of a word and always ends it.
    """
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACE:
            at += 1
        if at == len(line):
            return words
        word = b""
        if plain := _PLAIN.match(line, at):
            word, at = plain[0], plain.end()
        if line[at : at + 1] in (b'"', b"'"):
            quoted = (_DOUBLE if line[at] == ord('"') else _SINGLE).match(line, at)
            if quoted is None or not (quoted.end() == len(line) or line[quoted.end()] in _SPACE):
                return None
            word += _unescaped(quoted[1]) if line[at] == ord('"') else quoted[1].replace(b"\\'", b"'")
            at = quoted.end()
        words.append(word)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda escape: _meaning(escape[1], escape[2]), text)


def _meaning(hexadecimal: bytes | None, letter: bytes) -> bytes:
    return bytes((int(hexadecimal, 16),)) if hexadecimal else _CONTROL.get(letter, letter)
