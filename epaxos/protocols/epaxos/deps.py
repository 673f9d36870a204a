"""The conflict index: which registered instances a batch conflicts with, as one slot a lane.

Per key hash it holds, for every lane, the highest slot that writes the key and the highest slot that only reads it. The
dependencies of a batch are the maxima of these over its keys (protocol.md 2.5: a vector stands for every instance up
to it): a read takes the writes, a write takes both. Maxima are enough because more dependencies than needed do no
harm; fewer would.

**Nothing is ever dropped.** Not when an instance executes, nor when it is known to be a Nop (rule D3): recovery
concludes from "the coordinator of id' answered without id'" that id' had not been submitted yet, so an index that
forgets an id it has registered makes two replicas decide differently. An entry may go only when every member of the
epoch has executed the instance *and* can re-create it from its own disk (protocol.md 6.1); from then on each reply
would have to carry the floor below which its sender dropped (rule D6). The memory is 2n words for every key ever named.

`PyConflictIndex` is the pure twin of `ext/conflicts.pyx`; `ConflictIndex` is the one in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from epaxos.accel import choose
from epaxos.command import HEADER, READ, WHOLE, Batch
from epaxos.ids import MAX_SLOT, InstanceId, Lane, Vector, join
from epaxos.packing import walk

NO_LANE: Final = -1


class PyConflictIndex:
    """All registered instances of one epoch of `n` lanes, by the keys they touch. The epoch of an id is not looked at.

    Methods that take an id raise ValueError for a lane or a slot that cannot be, those that take a batch ProtocolError
    when it holds no run; both before anything is changed.
    """

    __slots__ = ("_all", "_keys", "_n", "_whole")

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"{n} lanes")
        self._n = n
        self._keys: dict[int, tuple[list[int], list[int]]] = {}
        """Key hash -> highest slot a lane, of writes and of reads: indexed by the flag READ."""
        self._all: tuple[list[int], list[int]] = ([0] * n, [0] * n)
        """The same over everything registered: what a command that touches the whole state conflicts with."""
        self._whole: tuple[list[int], list[int]] = ([0] * n, [0] * n)
        """The same over the commands that touch the whole state: what every command conflicts with."""

    def lead(self, id_: InstanceId, batch: Batch) -> Vector:
        """Register a new instance at its coordinator; its `initDep`: what it conflicts with, own lane included.

        The own lane orders the instance behind earlier ones of its coordinator, so `id_` must be above every id of
        its lane that was registered; ValueError otherwise (rule D2).
        """
        self._check(id_)
        if id_.slot <= max(self._all[0][id_.lane], self._all[READ][id_.lane]):
            raise ValueError(f"{id_} is not above the ids of its lane registered before")
        deps = self.conflicts(batch)
        self._add(id_, batch)
        return deps

    def preaccept(self, id_: InstanceId, batch: Batch, init_dep: Vector) -> Vector:
        """Register at another replica; the answer to PreAccept: `init_dep` joined with what conflicts here.

        The own lane of the id is left as its coordinator set it (lane rule, protocol.md 2.6).
        """
        self._check(id_)
        if len(init_dep) != self._n or not all(0 <= slot <= MAX_SLOT for slot in init_dep):
            raise ValueError(f"{init_dep} is not a vector of {self._n} lanes")
        deps = join(init_dep, self.conflicts(batch, id_.lane))
        self._add(id_, batch)
        return deps

    def register(self, id_: InstanceId, batch: Batch) -> None:
        """Make `id_` known to every later answer. Idempotent; ids may come in any order."""
        self._check(id_)
        self._add(id_, batch)

    def conflicts(self, batch: Batch, skip_lane: Lane = NO_LANE) -> Vector:
        """What `batch` conflicts with, without registering it; 0 for `skip_lane`."""
        columns = [[0] * self._n, self._whole[0]]
        for hash_, _, _, _, flags in walk(batch.data, HEADER.size):
            slots = self._all if flags & WHOLE else self._keys.get(hash_, self._whole)
            columns += slots[:1] if flags & READ else (*slots, self._whole[READ])
        deps = list(map(max, *columns))
        if 0 <= skip_lane < self._n:
            deps[skip_lane] = 0
        return tuple(deps)

    def copy(self) -> PyConflictIndex:
        """The same index; neither sees what is registered in the other from here."""
        twin = PyConflictIndex(self._n)
        twin._keys = {key_hash: (writes[:], reads[:]) for key_hash, (writes, reads) in self._keys.items()}
        twin._all = (self._all[0][:], self._all[1][:])
        twin._whole = (self._whole[0][:], self._whole[1][:])
        return twin

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._keys)

    def _check(self, id_: InstanceId) -> None:
        if not (0 <= id_.lane < self._n and 1 <= id_.slot <= MAX_SLOT):
            raise ValueError(f"{id_} has no place in an index of {self._n} lanes")

    def _add(self, id_: InstanceId, batch: Batch) -> None:
        _, slot, lane = id_
        for hash_, _, _, _, flags in walk(batch.data, HEADER.size):
            mode = flags & READ
            if flags & WHOLE:
                slots = self._whole
            else:
                if hash_ not in self._keys:
                    self._keys[hash_] = ([0] * self._n, [0] * self._n)
                slots = self._keys[hash_]
            slots[mode][lane] = max(slots[mode][lane], slot)
            self._all[mode][lane] = max(self._all[mode][lane], slot)


if TYPE_CHECKING:
    ConflictIndex = PyConflictIndex
else:
    ConflictIndex = choose("conflicts", "ConflictIndex", PyConflictIndex)
