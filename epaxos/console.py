"""How commands speak: results on stdout, as a table or as JSON; everything else on stderr when stdout is JSON.

`exit_code` is the one place that says what an outcome means to a shell script, and `run_line` what all command lines do
with it: `epaxos`, `python -m bench`, `python -m topology`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import click

from epaxos.errors import ConfigError, EpaxosError, Unknown

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
"""Certainly not applied."""
EXIT_USAGE: Final = 2
"""The command line or the configuration is wrong."""
EXIT_UNKNOWN: Final = 3
"""It may or may not have been applied."""
EXIT_INTERRUPTED: Final = 130


class Console:
    """Where one command writes."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.progress_shown = sys.stderr.isatty()
        self.exit_done = EXIT_DONE
        """The exit code of a command that found nothing wrong, in all that it was to do or until it was interrupted."""

    def say(self, text: str) -> None:
        """Words for people: never in the way of a program that reads JSON."""
        click.echo(text, err=self.as_json)

    def result(self, value: object, text: str) -> None:
        """What the command found out: `value` as JSON, or `text`."""
        click.echo(json.dumps(value, ensure_ascii=False, default=str) if self.as_json else text)

    def warn(self, text: str) -> None:
        """One line about what is not as it should be."""
        click.echo(f"epaxos: {text}", err=True)

    def progress(self, text: str) -> None:
        """One line that the next one overwrites; silent when nobody watches."""
        if self.progress_shown:
            click.echo(f"\r\x1b[2K{text}", nl=False, err=True)

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """A block that an interrupt only ends: what was found until then is worth showing."""
        try:
            yield
        except KeyboardInterrupt:
            self.progress_done()
            self.warn("interrupted: this is what was done until then")
            self.exit_done = EXIT_INTERRUPTED

    def progress_done(self) -> None:
        """Make room for what follows."""
        self.progress("")


def exit_code(error: BaseException) -> int:
    """What `error` means to a shell script."""
    if isinstance(error, (click.UsageError, ConfigError)):
        return EXIT_USAGE
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return EXIT_INTERRUPTED
    return EXIT_UNKNOWN if isinstance(error, Unknown) else EXIT_FAILED


def foreseen(error: BaseException) -> BaseException | None:
    """The error that people are told in one line, when `error` is one or a group of nothing else; else None."""
    leaves = list(_leaves(error))
    kinds = (EpaxosError, click.ClickException, click.Abort, KeyboardInterrupt, OSError)
    if not all(isinstance(leaf, kinds) for leaf in leaves):
        return None
    return max(leaves, key=exit_code)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def report(error: BaseException, as_json: bool) -> None:
    """Tell people what went wrong, and a program that reads JSON too."""
    if isinstance(error, click.ClickException):
        error.show()
        text = error.format_message()
    elif isinstance(error, (click.Abort, KeyboardInterrupt)):
        return
    else:
        text = str(error) or type(error).__name__
        click.echo(f"epaxos: {text}", err=True)
    if as_json:
        click.echo(json.dumps({"error": text, "kind": type(error).__name__, "exit": exit_code(error)}))


def run_line(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process; the exit code. What is foreseen is told in one line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(args=given, prog_name=name, standalone_mode=False)
    except BaseException as error:
        known = foreseen(error)
        if known is None:
            raise
        report(known, "--json" in given)
        return exit_code(known)
    return result if isinstance(result, int) else EXIT_DONE
