"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug: where it goes, and where it was seen."""

    name: str
    story: str
    edits: tuple[tuple[str, str, str], ...]
    """(module, the text that stands there exactly once, what stands there instead)"""
    pure: bool = False
    """The edit is in a pure twin, so the compiled one must not be used."""
    where: Literal["seeds", "walks"] = "seeds"
    """What it is hunted in: seeds of whole engines, or random walks of the model."""
    inside: bool = False
    """Does it die by what only an invariant of the protocol's inside sees (`Invariant.inside`), since what it leads to
    outside takes more seeds than anybody runs?"""
    protocol: str = "epaxos"
    n: int = 5
    quick: bool = False
    """Is it hunted in every change's checks?"""
