"""Who a replica is, and whom it has met: what its data remembers, so that nobody else passes for it or for a peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol as Interface

DISK_ID_BYTES: Final = 16

LOST: Final = (
    "this replica is lost: leave it down, for this release cannot replace it; the others go on while a majority of all "
    "lives"
)
"""What to do about a replica whose data is gone or not sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The replica that data belongs to. None of this changes once there is some: votes were cast under it."""

    cluster: str
    replica: str
    """Its name in `cluster.toml`."""
    members: tuple[str, ...]
    """The names of all replicas, by id: an id is what lanes, ballots and quorums are made of."""
    protocol: str
    secret: str
    """A fingerprint of the secret, hexadecimal: batches are stored with hashes that the secret keys."""

    def objection(self, asked: Owner) -> str:
        """Why `asked` may not have the data of this one, and what to do; empty when it may."""
        if asked.cluster != self.cluster:
            return (
                f"belongs to cluster {self.cluster!r}, not {asked.cluster!r}. Correct the path of the data or the name "
                "of the cluster in the configuration"
            )
        if asked.replica != self.replica:
            return (
                f"belongs to replica {self.replica!r}, not {asked.replica!r}. Give every replica a directory of its "
                "own; a directory cannot be handed on to another name"
            )
        if asked.members != self.members:
            return (
                f"this data was written when the cluster was {' '.join(self.members)}; the file says "
                f"{' '.join(asked.members)}: members cannot change in this release. Put the [[replica]] tables back as "
                "they were, in that order"
            )
        if asked.protocol != self.protocol:
            return (
                f"written by protocol {self.protocol!r}, and the configuration says {asked.protocol!r}. Protocols do "
                "not migrate in place: set it back. Only a new cluster, with empty directories, begins with another"
            )
        if asked.secret != self.secret:
            return (
                "written under another secret than that of the configuration, and what is stored is hashed under the "
                "old one. Set `secret` back"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """How a peer was met."""

    disk: str
    """The id of its disk: see `is_disk`."""
    incarnation: int
    """The highest on that disk."""


class Acquaintances(Interface):
    """The peers that a replica has met, in this life and earlier ones."""

    def known(self, peer: str) -> Acquaintance | None:
        """How the peer of that name was met last, if it was."""

    async def remember(self, peer: str, met: Acquaintance) -> None:
        """Have it known from now on; durable on return. One call at a time. Raises StorageError when that fails."""


def is_disk(value: Any) -> bool:
    """Is this the id of a disk: 16 bytes, hexadecimal?"""
    return isinstance(value, str) and len(value) == 2 * DISK_ID_BYTES and set(value) <= set("0123456789abcdef")
