"""Where replicas run: in the regions of a lab where that is to be had, on the loopback of this machine otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.cluster import ClusterSpec
from topology import Matrix
from topology.lab import Lab, LabError, bring_up, tear_down
from topology.lab.lab import choose

NAME: Final = "bench"
"""Of the lab."""
NO_LAB: Final = ("none", "virtual")


def chosen(backend: str) -> str:
    """The back end that `backend` comes to: `auto` is the best lab there is, and `none` on a machine that cannot have
    one. Raises LabError when the one named is not to be had."""
    if backend in NO_LAB:
        return backend
    if backend != "auto":
        return choose(backend)
    try:
        return choose(backend) if os.geteuid() == 0 else "none"
    except LabError:
        return "none"


def in_words(backend: str) -> str:
    """How links got as long as they are."""
    return {
        "virtual": "whole engines in virtual time, computing costs nothing",
        "none": "links lengthened inside the replicas",
    }.get(backend, f"links by {backend}")


@contextmanager
def place(matrix: Matrix, backend: str) -> Iterator[Lab | None]:
    """The lab of a back end, as long as the block lasts; None where there is none to it. Raises LabError."""
    if backend in NO_LAB:
        yield None
        return
    lab = bring_up(matrix, name=NAME, backend=backend)
    try:
        yield lab
    finally:
        tear_down(NAME)


def spec(
    matrix: Matrix, name: str, lab: Lab | None, directory: Path, *, protocol: str, leader: str | None, hot_key: str
) -> ClusterSpec:
    """A replica at every site of the matrix that is called `name`, in the lab if there is one."""
    return ClusterSpec(
        names=matrix.sites,
        directory=directory,
        protocol=protocol,
        emulate=name if lab is None else None,
        watched=[hot_key],
        lab=lab,
        leader=leader,
    )
