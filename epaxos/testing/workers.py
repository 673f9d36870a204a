"""Processes that run seeds or walks. An interrupt is for the one that started them, which ends them and sums up."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.pool import Pool


def workers(jobs: int, begin: Callable[[], None] | None = None) -> Pool:
    """So many processes, until the block is left that it is used in; each calls `begin` first."""
    return multiprocessing.get_context("spawn").Pool(jobs, _begin, (begin,))


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is not None:
        begin()
