"""Pages that are run as they are printed: the blocks of a page, and a shell that types what is in them."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAMED: Final = re.compile(r"Put this into `([\w.]+)`[^`]*\Z")
_ERASED: Final = re.compile(r"[^\n]*\r\x1b\[2K")
"""What a terminal no longer shows: a line of progress."""
_NUMBER: Final = re.compile(r"\d[\d.]*(?: %)?|–")
_END: Final = "\x1e"


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    """What stands behind the fence."""
    text: str
    file: str | None
    """Where one is to put it, if the paragraph in front of it says `Put this into` a file."""


def blocks(page: Path) -> list[Block]:
    """All of them, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], _named(text[: found.start()])) for found in _FENCE.finditer(text)]


def _named(before: str) -> str | None:
    found = _NAMED.search(before.rstrip().rpartition("\n\n")[2])
    return found[1] if found else None


class Typed(NamedTuple):
    """What a block has one type, and what a terminal shows then."""

    commands: list[str]
    shown: str
    varies: bool
    """Are the numbers in it different each time?"""

    @classmethod
    def of(cls, block: Block) -> Typed:
        """A block of the kind `console` or `console varies`; of any other kind, with a file: writing that."""
        if block.file is not None:
            return cls([f"cat >{block.file} <<'END'\n{block.text}END"], "", False)
        lines = block.text.splitlines()
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        shown = "".join(line + "\n" for line in lines if not line.startswith("$ "))
        return cls(commands, shown, block.kind.endswith(" varies"))

    def alike(self, text: str) -> str:
        """The text without what may differ."""
        if not self.varies:
            return text
        lines = (" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines())
        return "\n".join(re.sub("-+", "-", line) for line in lines)


def type_into_a_shell(typed: Sequence[Typed], folder: Path, *, within_s: float) -> Iterator[str]:
    """What a terminal shows for each of these, typed one after the other into one bash in `folder`.

    When this is exhausted, or closed, nothing that was started is running any more. Raises TimeoutError.
    """
    script = "\n".join("\n".join(each.commands) + f"\nlast=$?; printf '{_END}'; (exit $last)" for each in typed)
    (folder / "typed.sh").write_text(script, encoding="utf-8")
    master, slave = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "typed.sh"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield from _until_nobody_writes(master, time.monotonic() + within_s)
    finally:
        _kill_session(shell)
        os.close(master)


def _until_nobody_writes(master: int, deadline_s: float) -> Iterator[str]:
    """The texts between the ends, until every process that could write has ended."""
    held = b""
    while True:
        if not select.select([master], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            raise TimeoutError(f"what is shown last is {held.decode(errors='replace')!r}")
        try:
            received = os.read(master, 4096)
        except OSError:  # of a terminal that nobody holds any more
            return
        held += received
        *ended, held = held.split(_END.encode())
        for each in ended:
            yield _ERASED.sub("", each.decode().replace("\r\n", "\n"))


def _kill_session(shell: subprocess.Popen[bytes]) -> None:
    """End the shell and all that it started: none of them has left its process group."""
    with suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()


def other_ports(first: Sequence[int], count: int) -> Callable[[str], str]:
    """Puts ports that are free into a text, in place of `count` in a row from each of `first`."""
    base = 10_000 + os.getpid() * 16 % 20_000
    while not all(_is_free(base + at) for at in range(count * len(first))):
        base += 16
    named = [str(start + at) for start in first for at in range(count)]
    ports = {port: str(base + at) for at, port in enumerate(named)}
    pattern = re.compile(r"\b(" + "|".join(ports) + r")\b")
    return lambda text: pattern.sub(lambda found: ports[found[1]], text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
