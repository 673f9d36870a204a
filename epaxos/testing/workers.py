"""Processes that run seeds or walks. An interrupt is for the one that started them, which ends them and sums up."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


@contextmanager
def workers(jobs: int, begin: Callable[[], None] | None = None) -> Iterator[Pool]:
    """So many processes for as long as the block lasts; each calls `begin` first."""
    with multiprocessing.get_context("spawn").Pool(jobs, _begin, (begin,)) as pool:
        yield pool


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is not None:
        begin()
