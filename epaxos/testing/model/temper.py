"""What a walk is like: the chances it draws its own chances from.

A walk that is a little of everything meets some bugs only in one of many millions. So a walk has a temper: most are the
medley; the others look for the two situations in which recoveries have been got wrong most often (protocol.md 7.3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from epaxos.messages import (
    Accept,
    AcceptOK,
    Commit,
    Message,
    PreAccept,
    PreAcceptOK,
    Recover,
    RecoverOK,
    Validate,
    ValidateOK,
)

Rates = tuple[float, ...]
"""A walk, or one kind of message of one ballot in it, draws one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temper:
    """How often what happens, as rates to draw from."""

    name: str
    losses: Mapping[type[Message], Rates]
    """Drawn for each kind of message of each ballot of each id; kinds that are not named are never lost."""
    lates: Mapping[type[Message], Rates] = field(default_factory=dict)
    """How likely such a message is to come late."""
    late: Rates = (0.0,)
    """The same for kinds that `lates` does not name."""
    commands: tuple[int, ...] = (2, 2, 3)
    """Lanes that submit."""
    more: float = 0.0
    """How often there is a second command in a lane, and how often one that is in nobody's way."""
    recoveries: tuple[int, ...] = (3,)
    one_victim: float = 0.5
    """How often all recoveries are of one lane."""
    crash: float = 0.0
    silence: float = 0.3
    """How often a coordinator falls silent."""
    brisk: float = 0.5
    """How often what was sent last arrives first, so that a recovery is over before anything else happens."""
    duplicate: Rates = (0.0,)
    """How often a message that arrives will do so again."""
    alone: Rates = (0.02, 0.1, 0.3)
    """How often something happens that is not a delivery, when there is something to deliver."""
    eager: Rates = (0.6, 0.25, 0.05)
    """How often that is a submission, while there are any. Late ones meet the recoveries of the first."""


MEDLEY: Final = Temper(
    name="medley",
    losses={
        PreAccept: (0.0, 0.3, 0.7),
        PreAcceptOK: (0.0, 0.2, 0.6),
        Accept: (0.0, 0.4, 0.8),
        AcceptOK: (0.0, 0.5, 0.9),
        Commit: (0.0, 0.8, 1.0, 1.0),
        Recover: (0.0, 0.2, 0.5),
        RecoverOK: (0.0, 0.2, 0.4),
        Validate: (0.0, 0.2),
        ValidateOK: (0.0, 0.2),
    },
    late=(0.0, 0.0, 0.9),
    more=0.2,
    recoveries=(1, 2, 3, 3, 3),
    crash=0.4,
    duplicate=(0.0, 0.05, 0.25),
)

DUEL: Final = Temper(
    name="duel",
    losses={
        PreAccept: (0.3, 0.6),
        PreAcceptOK: (0.3, 0.9),
        Accept: (0.3, 0.8),
        AcceptOK: (0.5, 1.0),
        Commit: (1.0,),
        Recover: (0.2, 0.5),
        RecoverOK: (0.0, 0.3),
    },
    lates={Recover: (0.0, 0.6), RecoverOK: (0.0, 0.4), PreAccept: (0.0, 0.4)},
    commands=(1, 2),
    recoveries=(3, 4),
    one_victim=1.0,
    crash=0.3,
    silence=0.2,
    brisk=0.9,
    alone=(0.02,),
)
"""One id, one recovery after the other, and hardly anybody learns what was chosen: votes of many ballots (S1, S30)."""

RIVALS: Final = Temper(
    name="rivals",
    losses={
        PreAccept: (0.4, 0.6, 0.75),
        PreAcceptOK: (0.0,),
        Accept: (0.0, 0.7),
        AcceptOK: (0.0, 0.7),
        Commit: (0.5, 1.0),
        Recover: (0.3, 0.5),
    },
    lates={PreAcceptOK: (0.0, 0.9), Commit: (0.0, 0.9)},
    commands=(2,),
    recoveries=(2, 3),
    one_victim=0.0,
    silence=0.3,
    duplicate=(0.0, 0.25),
    alone=(0.05, 0.2),
    eager=(0.9, 0.05),
)
"""Two commands that few have seen, and two recoveries that meet (S3 to S8, S45)."""

TEMPERS: Final = (MEDLEY, MEDLEY, DUEL, RIVALS)


def draw(rng: random.Random) -> Temper:
    """The temper of a walk."""
    return rng.choice(TEMPERS)
