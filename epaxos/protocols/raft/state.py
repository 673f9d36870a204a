"""What a replica knows, what of it stands in the log, and the helpers every rule uses.

Names are those of Ongaro's dissertation. The rules are in `elect`, `lead`, `follow`, `submit` and `reads`; they share
one `State`, which also collects the effects of the current step.

**What must be durable before what.** Term and vote before a vote is asked for, given or counted; entries before the
follower's AppendOK, and before the leader counts itself. These are the `Save`s here, all urgent, with the default
`after` of what follows them. Everything that leaves with `after=NOTHING` says why. The commit index is not saved: it
is learnt again from the next leader, and what has been applied is known from the engine's marks.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from typing import Final

from epaxos.command import NOP, Batch, Payload
from epaxos.errors import StorageError
from epaxos.ids import InstanceId, ReplicaId
from epaxos.messages import Message
from epaxos.protocols.interface import (
    NEWEST,
    NOTHING,
    Decide,
    Effect,
    LogView,
    Note,
    Now,
    ProtocolConfig,
    Random,
    Save,
    Send,
)
from epaxos.protocols.raft.log import Entry, Log, encode_entry, entry_key
from epaxos.protocols.raft.once import Once
from epaxos.quorums import quorums

EPOCH: Final = 0
"""The only epoch until membership can change."""

TERM_KEY: Final = b"t"
TERM_RECORD: Final = struct.Struct("<BQh")
"""u8 version | u64 term | i16 vote, -1 for none."""
RECORD_VERSION: Final = 1


class Role(enum.Enum):
    """What a replica is in its term."""

    FOLLOWER = "follower"
    PRECANDIDATE = "precandidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


def index_id(index: int) -> InstanceId:
    """The id of a log entry. The log is one sequence whoever appends to it, so all of it is one lane."""
    return InstanceId(EPOCH, index, 0)


class State:
    """Everything one replica knows, and the effects of the step in progress."""

    def __init__(self, config: ProtocolConfig, rng: Random, log: LogView) -> None:
        self.me = config.me
        self.n = config.n
        self.window = config.window
        self.retry_us = config.retry_us
        self.preferred = config.preferred
        self.majority = quorums(config.n).majority
        self.others = tuple(p for p in range(config.n) if p != config.me)
        self.rng = rng
        self.log = Log(log)
        self.once = Once()
        self.term, self.vote = load_term(log)
        self.role = Role.FOLLOWER
        self.leader: ReplicaId | None = None
        """Of this term, when it is known."""
        self.commit = 0
        """Every entry up to this index is committed, and decided here. It never goes back."""
        self.executed = 0
        self.fresh: list[tuple[int, Batch, bool]] = []
        """(index, batch, does it take effect there?) of the entries committed in this step."""
        self.rtt_us = [0] * config.n
        self.measured: set[ReplicaId] = set()
        """Whose round trip `Rtt` told; of the others it is a guess."""
        self.mark = 0
        self.durable = 0
        self.now = Now(0, 0)
        self.effects: list[Effect] = []

    # -- what is saved

    def save_term(self) -> int:
        """Log the term and the vote as they are now; returns the mark."""
        vote = -1 if self.vote is None else self.vote
        record = TERM_RECORD.pack(RECORD_VERSION, self.term, vote)
        return self._save(((TERM_KEY, record),), ())

    def append(self, entry: Entry, behind: int) -> None:
        """Make `entry` the one behind index `behind`, in place of everything that stood there.

        A conflicting suffix is dropped and the entry put in one atomic save. Raises AssertionError when something
        committed would go: then safety is lost, and stopping is all that is left.
        """
        assert behind >= self.commit, f"entry {behind + 1} is committed, and entry {entry.term} would replace it"
        dropped = self.log.cut(behind)
        index = self.log.append(entry)
        drops = tuple(entry_key(each) for each in dropped if each != index)
        self.log.saved(self._save(((entry_key(index), encode_entry(entry)),), drops))
        if dropped:
            self.note("suffix_dropped", f"{len(dropped)} entries behind {behind}")

    def _save(self, puts: tuple[tuple[bytes, bytes], ...], drops: tuple[bytes, ...]) -> int:
        self.mark += 1
        self.effects.append(Save(puts=puts, drops=drops, mark=self.mark))
        return self.mark

    # -- what is decided

    @property
    def settled(self) -> bool:
        """Is an entry of this term committed? Then so is everything that earlier terms may have committed."""
        return self.log.term(self.commit) == self.term

    def decided(self, index: int) -> Payload:
        """What is decided at `index`, which is committed: what the log holds there, unless that was decided before."""
        while self.once.upto < index:
            self.once.decide(self.log.entry(self.once.upto + 1).payload)
        return NOP if index in self.once.refused else self.log.entry(index).payload

    def commit_upto(self, index: int) -> None:
        """Entries up to `index` are committed: decide them, in order. A smaller index than before is old news.

        Nothing waits for this replica's disk: a majority holds the entry durably, whether or not this replica is of
        it, and whoever leads next has it. Should a power cut take the own copy, it takes the apply mark as well, which
        is behind it in the order of saves, and the entry comes again.
        """
        for each in range(self.commit + 1, index + 1):
            payload, held = self.decided(each), self.log.entry(each).payload
            self.effects.append(Decide(id=index_id(each), payload=payload, order=each, after=NOTHING))
            if isinstance(held, Batch):
                self.fresh.append((each, held, payload is held))
        self.commit = max(self.commit, index)

    # -- effects

    def send(self, peers: tuple[ReplicaId, ...], message: Message, after: int = NEWEST) -> None:
        """Send to peers; an empty tuple is no message."""
        if peers:
            self.effects.append(Send(peers=peers, message=message, after=after))

    def note(self, event: str, detail: str = "", *, index: int = 0, batch: Batch | None = None) -> None:
        """For the trace and the counters; `index` 0 is no entry."""
        self.effects.append(Note(event=event, id=index_id(index) if index else None, detail=detail, batch=batch))

    # -- time

    def round_trip_us(self) -> int:
        """The longest measured round trip to a peer, and never below `retry_us`."""
        return max(self.retry_us, *self.rtt_us)

    def heartbeat_us(self) -> int:
        """How often a leader is heard: twice in a round trip."""
        return self.round_trip_us() // 2 + 1

    def election_us(self) -> int:
        """How long a leader may be silent: ten heartbeats, or five of the longest round trips.

        Timeouts are drawn between once and twice this, so that candidates are spread over five round trips, where one
        needs one to win. A round trip shorter than `retry_us` counts as that, since pauses of a machine and syncs of
        a disk do not shrink with the network.
        """
        return 10 * self.heartbeat_us()

    def digest_of(self, *roles: object) -> bytes:
        """A hash of the whole state, with the volatile state of the roles."""
        terms = (self.term, self.vote, self.role.value, self.leader, self.commit, self.executed)
        marks = (self.mark, self.durable, self.rtt_us)
        whole = (terms, marks, self.log.state(), self.once.state(), roles)
        return hashlib.blake2b(repr(whole).encode(), digest_size=16).digest()


def load_term(log: LogView) -> tuple[int, ReplicaId | None]:
    """(term, vote) as the disk has them; (0, None) before the first election."""
    value = log.get(TERM_KEY)
    if value is None:
        return 0, None
    version, term, vote = TERM_RECORD.unpack(value)
    if version != RECORD_VERSION:
        raise StorageError(f"term record of version {version}; this release reads {RECORD_VERSION}")
    return term, None if vote < 0 else vote
