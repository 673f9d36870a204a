"""One command to a replica from the command line, and its reply as people write it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import trio

from epaxos.client import Client
from epaxos.config import Config
from epaxos.errors import ConfigError, Unknown


def ask(config: Config, at: str | None, words: tuple[str, ...], *, timeout_s: float) -> Any:
    """The reply to `words`, with text for bytes, from the replica named `at`, or from the first that can be reached.

    Raises what `Client.execute` raises, but ConfigError for a command that changes a connection, and Unknown when there
    is no reply in time.
    """
    if at is not None:
        config = replace(config, replicas=(config.replica(at),))
    return _text(trio.run(_ask, config, words, timeout_s))


async def _ask(config: Config, words: tuple[str, ...], timeout_s: float) -> Any:
    with trio.move_on_after(timeout_s):
        async with Client(config, retry_ms=0) as client:
            try:
                return await client.execute(*map(os.fsencode, words))
            except ValueError as error:
                raise ConfigError(str(error)) from None
    raise Unknown(f"no reply within {timeout_s:g} s")


def _text(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="backslashreplace")
    return [_text(each) for each in reply] if isinstance(reply, list) else reply


def shown(reply: Any) -> str:
    """A reply for people: lists one a line, nothing as `(nil)`."""
    if isinstance(reply, list):
        return "\n".join(f"{at}) {shown(each)}" for at, each in enumerate(reply, start=1))
    return "(nil)" if reply is None else str(reply)
