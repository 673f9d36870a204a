"""Scenario files: sequences of events told step by step, with everything that comes of them.

A file is blocks with an empty line between them. A block is comments (`# …`) and commands, one a line; then, if it has
commands, a line `----` and what they have to tell:

    # A asks B; nobody else hears of it.
    submit A x SET k 1
    deliver A->B PreAccept
    ----
    A  x was nothing
    ...

`differences` runs a file and compares; `rewritten` gives the file with what really happens. A mismatch is for a person
to judge: what the file says is what should be. The commands are in `vocabulary.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Final

from epaxos.testing.narrator import Narrator
from epaxos.testing.reading import ScenarioError
from epaxos.testing.vocabulary import act, begin

SEPARATOR: Final = "----"
QUIET: Final = "ok"
"""What commands say that have nothing to tell."""


@dataclass
class Block:
    """Some commands, and what they tell."""

    head: list[str] = field(default_factory=list)
    """Comments and commands, as they stand."""
    commands: list[tuple[int, list[str]]] = field(default_factory=list)
    """(line in the file, words)"""
    expected: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The block as it stands in a file."""
        tail = [SEPARATOR, *self.expected] if self.commands else []
        return "\n".join([*self.head, *tail])


def parse(text: str) -> list[Block]:
    """The blocks of a file. Raises ScenarioError, with the line, for what is not one."""
    blocks, block, telling = [], Block(), False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if not line.strip():
            if block.head:
                blocks.append(block)
            block, telling = Block(), False
        elif telling:
            block.expected.append(line)
        elif line == SEPARATOR:
            if not block.commands:
                raise ScenarioError(f"line {number}: no command stands before {SEPARATOR}")
            telling = True
        else:
            block.head.append(line)
            if not line.startswith("#"):
                block.commands.append((number, _words(number, line)))
    return blocks


def _words(number: int, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ScenarioError(f"line {number}: {error}") from None


def play(blocks: list[Block]) -> Iterator[list[str]]:
    """Run the commands; what each block tells. Raises ScenarioError, with the line, for one that means nothing."""
    told: Narrator | None = None
    for block in blocks:
        lines: list[str] = []
        for number, words in block.commands:
            try:
                if told is None:
                    told = begin(words)
                else:
                    lines += act(told, words)
            except ScenarioError as error:
                raise ScenarioError(f"line {number}: {error}") from None
        yield lines or [QUIET]


def rewritten(text: str, origin: str = "") -> str:
    """The file with what its commands really tell. Raises ScenarioError, with `origin` and the line."""
    try:
        blocks = parse(text)
        for block, lines in zip(blocks, play(blocks), strict=True):
            block.expected = lines
    except ScenarioError as error:
        raise ScenarioError(f"{origin}: {error}" if origin else str(error)) from None
    return "\n\n".join(block.text() for block in blocks) + "\n"


def differences(path: Path) -> str:
    """What the file at `path` says and what happens, as a unified diff; empty when they are the same.

    Raises ScenarioError, with the path and the line, for a file that makes no sense.
    """
    text = path.read_text(encoding="utf-8")
    actual = rewritten(text, str(path))
    lines = unified_diff(text.splitlines(), actual.splitlines(), f"{path}: expected", f"{path}: actual", lineterm="")
    return "\n".join(lines)
