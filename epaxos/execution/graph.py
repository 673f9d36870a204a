"""The order of a leaderless protocol: strongly connected components of dependencies, dependencies first.

This is protocol.md 4.1 and 4.2.

**Edges** (rule D4 of protocol.md 2.5). A decided id that is no NOP, with dependencies D, has an edge to every known,
unexecuted id under D that conflicts with it. It waits for every id under D of which nothing is known; it does not
wait for a known one that does not conflict. A decided NOP has no edges and gives none: it executes at once.

**Order.** Tarjan's algorithm on what is decided: a component is a group, its ids in the order of `InstanceId`. An
executed set is closed under dependencies, so a component never changes once it may execute, and the order of
conflicting ids is a function of the decisions alone.

**Waiting.** Nothing polls. A walk that meets something missing is abandoned: everything on Tarjan's stack reaches it,
so all of it is parked in one *lot* (`rows.py`), which one event wakes. A walk that meets a parked id parks in the same
lot. So nobody waits for somebody who waits, and cycles of waiting cannot be.

**Cost.** The edges of an id into one strip (`rows.py`) are the front of that strip, and what a walk has passed of it
once it need not pass again: the lowest index up to each position says all that Tarjan asks. A walk costs the ids it
visits times their keys and lanes, however many edges there are. An id that meets nobody is one pass over its keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

from epaxos.accel import choose
from epaxos.command import CONT, READ, WHOLE, Batch, Nop, Payload
from epaxos.execution.interface import Group
from epaxos.execution.lanes import GAPS_MAX, Lanes
from epaxos.execution.rows import EXECUTED, NOTHING, PARKED, READY, UNDECIDED, Lot, Node, Row, Strip, Touch, touched
from epaxos.ids import MAX_SLOT, InstanceId, Lane, Vector
from epaxos.packing import walk
from epaxos.protocols.interface import Frontier, Order

Sole = tuple[Node, bool]
"""The only id that touches a key, and whether it writes it: most keys need no row."""


class PyGraphExecutor:
    """The executor of one epoch with `n` lanes; see `interface.Executor`. `GraphExecutor` is the twin in use.

    A decision is checked before anything of the call is taken: ValueError for an id outside the lanes or the epoch,
    and for dependencies that are no vector of `n` slots. What `learn` sets free comes out of the next `decide`,
    which may be empty.
    """

    def __init__(self, n: int) -> None:
        """`n` lanes, at least one."""
        self._n = n
        self._executed = Lanes(n)
        self._known = [0] * n
        """Everything up to here is known or executed, a lane."""
        self._nodes: list[dict[int, Node]] = [{} for _ in range(n)]
        self._keys: dict[int, Sole | Row] = {}
        self._whole = Row(n)
        """What touches the whole state."""
        self._all = Row(n)
        """Everything; a writer is what writes anything."""
        self._waiting = 0
        self._begun = False

        self._ready: list[tuple[Node, Lot | None]] = []
        """What may be walked, and the woken lot that it owned."""
        self._lots: list[dict[int, list[Lot]]] = [{} for _ in range(n)]
        """Lane and slot to the lots whose owners wait until everything up to the slot is known."""
        self._lot_slots: list[list[int]] = [[] for _ in range(n)]
        """These slots, as heaps."""

        self._reach = [0] * n
        """The highest dependency of anything that was ever parked, a lane: all that is unknown under it is missing,
        since what executed had nothing unknown under it."""
        self._gaps: list[set[int]] = [set() for _ in range(n)]
        """Unknown slots up to `_seen`."""
        self._seen = [0] * n
        self._wanted: set[InstanceId] = set()
        """Undecided ids that a decided one waits for."""
        self._missing: tuple[InstanceId, ...] | None = ()

        self._stamp = 0
        self._path: list[Node] = []
        self._stack: list[Node] = []
        self._visited: list[Node] = []
        """By index, in the current walk."""
        self._closed: list[Node] = []
        """Executed in the current walk, and still in the rows: these stand still while it walks."""

    # ---------------------------------------------------------------------------------------------------- the contract

    def learn(self, id_: InstanceId, batch: Batch) -> None:
        """See `Executor.learn`."""
        lane, slot = self._executed.place(id_)
        if self._executed.has(lane, slot) or slot in self._nodes[lane]:
            return
        self._add(Node(id_, touched(batch)))

    def decide(self, decisions: Sequence[tuple[InstanceId, Payload, Order]]) -> list[Group]:
        """See `Executor.decide`."""
        places = [self._executed.place(id_) for id_, _, _ in decisions]
        vectors = [self._vector(order) for _, _, order in decisions]
        self._begun = True
        groups: list[Group] = []
        for (id_, payload, _), (lane, slot), deps in zip(decisions, places, vectors, strict=True):
            node = self._nodes[lane].get(slot)
            if self._executed.has(lane, slot) or (node is not None and node.state != UNDECIDED):
                continue
            if isinstance(payload, Nop):
                self._execute(id_, node)
                groups.append([id_])
            elif self._take(id_, payload, deps, node):
                groups.append([id_])
        self._drain(groups)
        return groups

    def restore(self, ids: Iterable[InstanceId]) -> None:
        """See `Executor.restore`. ValueError after the first `decide`."""
        if self._begun:
            raise ValueError("restored after the first decision")
        for id_ in ids:
            lane, slot = self._executed.place(id_)
            if not self._executed.has(lane, slot):
                self._execute(id_, self._nodes[lane].get(slot))

    def executed(self) -> Frontier:
        """See `Executor.executed`."""
        return self._executed.frontier()

    def missing(self) -> tuple[InstanceId, ...]:
        """See `Executor.missing`. Sorted; of each lane at most the `GAPS_MAX` lowest unknown ids."""
        if self._missing is None:
            epoch = self._executed.epoch
            unknown = {InstanceId(epoch, slot, lane) for lane in range(self._n) for slot in self._gap(lane)}
            self._missing = tuple(sorted(unknown | self._wanted))
        return self._missing

    def waiting(self) -> int:
        """See `Executor.waiting`."""
        return self._waiting

    def reached(self, order: Order, batch: Batch) -> bool:
        """See `Executor.reached`. ValueError for an order of the wrong shape."""
        vector = self._vector(order)
        if self._first_unknown(vector) is not None:
            return False
        for there, write in self._targets(touched(batch)):
            if isinstance(there, Row):
                if there.has_under(vector, write):
                    return False
            elif (write or there[1]) and there[0].slot <= vector[there[0].lane]:
                return False
        return True

    def entangled(self, run: bytes) -> bytes:
        """See `Executor.entangled`."""
        flags_of: list[int] = []
        for hash_, _, _, _, flags in walk(run):
            write = not flags & READ
            there = self._all if flags & WHOLE else self._keys.get(hash_)
            hit = self._whole.has_conflict(write) or self._conflicts(there, write, None)
            if flags & CONT and flags_of:
                flags_of[-1] |= hit
            else:
                flags_of.append(hit)
        return bytes(flags_of)

    # ------------------------------------------------------------------------------------------- what becomes known

    def _vector(self, order: Order) -> Vector:
        """`order`, which is a vector."""
        if not isinstance(order, tuple) or len(order) != self._n or min(order) < 0 or max(order) > MAX_SLOT:
            raise ValueError(f"{order} is no vector of {self._n} slots")
        return order

    def _take(self, id_: InstanceId, batch: Batch, deps: Vector, node: Node | None) -> bool:
        """Take the decision of an id that is a batch. True when it met nobody, and has executed already."""
        alone = self._first_unknown(deps) is None
        if node is None:
            touch = touched(batch)
            if alone and not self._meets(touch, None):
                self._execute(id_, None)
                return True
            node = Node(id_, touch)
            node.state = READY
            self._add(node)
            self._ready.append((node, None))
        elif alone and not self._meets(node.touch, node):
            self._execute(id_, node)
            return True
        else:
            self._settle(node, READY)
        node.deps = deps
        self._waiting += 1
        return False

    def _execute(self, id_: InstanceId, node: Node | None) -> None:
        """Outside of any walk: `id_` executes, known until now as `node`."""
        lane, slot = id_.lane, id_.slot
        if node is not None:
            self._settle(node, EXECUTED)
            self._forget(node)
        self._executed.add(lane, slot)
        self._became_known(lane, slot)

    def _settle(self, node: Node, state: int) -> None:
        """`node` is undecided no longer, but in this state."""
        node.state = state
        if node.id in self._wanted:
            self._wanted.remove(node.id)
            self._missing = None
        self._wake(node, node.lot)

    def _add(self, node: Node) -> None:
        """Know `node` from now on."""
        lane, slot, touch = node.lane, node.slot, node.touch
        self._nodes[lane][slot] = node
        wanted = self._all.add(lane, slot, touch.writes)
        if touch.whole_write or touch.whole_read:
            wanted |= self._whole.add(lane, slot, touch.whole_write)
        for hash_, write in touch.keys:
            there = self._keys.get(hash_)
            if there is None:
                self._keys[hash_] = (node, write)
            elif isinstance(there, Row):
                wanted |= there.add(lane, slot, write)
            elif there[0] is node:
                self._keys[hash_] = (node, write or there[1])
            else:
                wanted |= self._crowd(hash_, there).add(lane, slot, write)
        if wanted and node.state == UNDECIDED:
            self._want(lane, slot)
        self._became_known(lane, slot)

    def _crowd(self, hash_: int, sole: Sole) -> Row:
        """A second id comes to the key of `sole`: give it a row."""
        node, write = sole
        row = self._keys[hash_] = Row(self._n)
        row.add(node.lane, node.slot, write)
        if node.announced:
            row.want(node.deps, write)
        return row

    def _forget(self, node: Node) -> None:
        """`node` is not unexecuted any more."""
        lane, slot, touch = node.lane, node.slot, node.touch
        del self._nodes[lane][slot]
        self._all.remove(lane, slot)
        if touch.whole_write or touch.whole_read:
            self._whole.remove(lane, slot)
        for hash_, _ in touch.keys:
            there = self._keys.get(hash_)
            if isinstance(there, Row):
                there.remove(lane, slot)
                if there.writers or there.readers:
                    continue
            self._keys.pop(hash_, None)

    def _became_known(self, lane: Lane, slot: int) -> None:
        """`slot` is in `_nodes` or executed: wake those that waited until a lane is known that far."""
        if slot in self._gaps[lane]:
            self._gaps[lane].remove(slot)
            self._missing = None
        known = self._known[lane]
        if slot != known + 1:
            return
        while slot in self._nodes[lane] or self._executed.has(lane, slot):
            known, slot = slot, slot + 1
        self._known[lane] = known
        slots = self._lot_slots[lane]
        while slots and slots[0] <= known:
            for lot in self._lots[lane].pop(heappop(slots)):
                lot.owner.state = READY
                self._wake(lot.owner, lot)

    def _first_unknown(self, vector: Vector) -> Lane | None:
        """The first lane that has something unknown under `vector`."""
        for lane, (slot, known) in enumerate(zip(vector, self._known, strict=True)):
            if slot > known:
                return lane
        return None

    def _target(self, touch: Touch, at: int) -> tuple[Sole | Row | None, bool]:
        """Where to look for what conflicts with `touch`, the `at`-th place, and whether as a writer."""
        if at == 0:
            return self._whole, touch.writes
        if at == 1:
            return (self._all if touch.whole_write or touch.whole_read else None), touch.whole_write
        hash_, write = touch.keys[at - 2]
        return self._keys.get(hash_), write

    def _targets(self, touch: Touch) -> Iterator[tuple[Sole | Row, bool]]:
        """All places where something is that may conflict with `touch`."""
        for at in range(2 + len(touch.keys)):
            there, write = self._target(touch, at)
            if there is not None:
                yield there, write

    def _meets(self, touch: Touch, me: Node | None) -> bool:
        """May any known, unexecuted id conflict? Exact, unless it is asked for one that is in the rows itself, `me`."""
        if (touch.whole_write or touch.whole_read) and (me is not None or self._all.has_conflict(touch.whole_write)):
            return True
        return self._whole.has_conflict(touch.writes) or any(
            self._conflicts(self._keys.get(hash_), write, me) for hash_, write in touch.keys
        )

    @staticmethod
    def _conflicts(there: Sole | Row | None, write: bool, me: Node | None) -> bool:
        """Is anything `there` that conflicts with a writer, or with a reader?"""
        if there is None:
            return False
        if isinstance(there, Row):
            return there.has_conflict(write) if me is None else there.writers + there.readers > 1
        return there[0] is not me and (write or there[1])

    # ------------------------------------------------------------------------------------------------------- waiting

    def _want(self, lane: Lane, slot: int) -> None:
        """A decided id waits for this one, if it is undecided."""
        node = self._nodes[lane][slot]
        if node.state == UNDECIDED:
            self._wanted.add(node.id)
            self._missing = None

    def _gap(self, lane: Lane) -> set[int]:
        """The lowest unknown slots of `lane` that decided ids wait for."""
        gaps, seen = self._gaps[lane], max(self._seen[lane], self._known[lane])
        while seen < self._reach[lane] and len(gaps) < GAPS_MAX:
            seen += 1
            if seen not in self._nodes[lane] and not self._executed.has(lane, seen):
                gaps.add(seen)
        self._seen[lane] = seen
        return gaps

    def _announce(self, node: Node) -> None:
        """`node` waits: mark all that it waits for directly, now and later."""
        node.announced = True
        for lane, slot in enumerate(node.deps):
            if slot > self._reach[lane]:
                self._reach[lane] = slot
                self._missing = None
        for there, write in self._targets(node.touch):
            if isinstance(there, Row):
                for lane, slot in there.want(node.deps, write):
                    self._want(lane, slot)

    def _park(self, lot: Lot) -> None:
        """Abandon the walk: all on the stack reach the owner of `lot`."""
        for node in self._stack:
            node.state = PARKED
            node.lot = lot
            node.hint = (node.hint + node.step) % node.targets
            if not node.announced:
                self._announce(node)
        lot.members += self._stack

    def _wake(self, node: Node, lot: Lot | None) -> None:
        """What `node` waited for has come; `lot` is the one it owns."""
        node.lot = None
        if lot is not None:
            lot.woken = True
        self._ready.append((node, lot))

    def _drain(self, groups: list[Group]) -> None:
        """Walk all that is ready. What executes can set others free, which are ready then."""
        for node, lot in self._ready:
            if node.state == READY:
                self._walk(node, groups)
            if lot is None:
                continue
            if node.state == PARKED and node.lot is not None:
                lot.put_into(node.lot.top())
                continue
            for other in lot.everyone():
                if other.state == PARKED and other.lot is not None and other.lot.top() is lot:
                    other.state = READY
                    self._wake(other, None)
        self._ready.clear()

    @staticmethod
    def _barrier(node: Node) -> Lot | None:
        """The lot to park in for whoever reaches `node`; None if `node` can be entered."""
        if node.state == UNDECIDED and node.lot is None:
            node.lot = Lot(node)
        lot = None if node.lot is None else node.lot.top()
        return None if lot is None or lot.woken else lot

    # --------------------------------------------------------------------------------------------------------- walking

    def _walk(self, root: Node, groups: list[Group]) -> None:
        """Execute `root` with all that it reaches, dependencies first; or park it."""
        self._stamp += 1
        lot = self._enter(root)
        while lot is None and self._path:
            node = self._path[-1]
            found = self._next(node)
            if found is None:
                self._leave(node, groups)
            else:
                lot = self._barrier(found) or self._enter(found)
        if lot is not None:
            self._park(lot)
        for node in self._closed:
            self._forget(node)
            self._executed.add(node.lane, node.slot)
        for trail in (self._path, self._stack, self._visited, self._closed):
            trail.clear()

    def _enter(self, node: Node) -> Lot | None:
        """Visit `node`; the lot to park in, if something under it is unknown."""
        node.state = READY
        node.lot = None
        node.stamp = self._stamp
        node.index = node.low = len(self._visited)
        node.step = node.part = 0
        self._visited.append(node)
        self._stack.append(node)
        self._path.append(node)
        lane = self._first_unknown(node.deps)
        if lane is None:
            return None
        slot, lot = node.deps[lane], Lot(node)
        if slot not in self._lots[lane]:
            self._lots[lane][slot] = []
            heappush(self._lot_slots[lane], slot)
        self._lots[lane][slot].append(lot)
        return lot

    def _next(self, node: Node) -> Node | None:
        """The next dependency of `node` that was not visited, or that is not READY. None when there is no more."""
        targets = node.targets
        while node.step < targets:
            there, write = self._target(node.touch, (node.hint + node.step) % targets)
            if isinstance(there, Row) and there.has_conflict(write):
                strips = there.conflicting(write)
                while node.part < len(strips):
                    found = self._pass(strips[node.part], node)
                    if found is not None:
                        return found
                    node.part += 1
            node.step += 1
            node.part = 0
        return None

    def _pass(self, strip: Strip, node: Node) -> Node | None:
        """Pass what `node` depends on in `strip`, as far as it has been visited; else return it."""
        if strip.head == len(strip.slots):
            return None
        if strip.stamp != self._stamp:
            strip.stamp, strip.lows = self._stamp, []
        lows, slots, bound = strip.lows, strip.slots, node.deps[strip.lane]
        at = strip.head + len(lows)
        while at < len(slots) and slots[at] <= bound:
            found = self._nodes[strip.lane][slots[at]]
            if found.state != EXECUTED and (found.state != READY or found.stamp != self._stamp):
                return found
            low = self._on_stack(lows[-1]) if lows else NOTHING
            if found.state == READY and (low == NOTHING or found.index < low):
                low = found.index
            lows.append(low)
            at += 1
        last = bisect_right(slots, bound, strip.head, at) - strip.head - 1
        low = self._on_stack(lows[last]) if last >= 0 else NOTHING
        if low != NOTHING and low < node.low:
            node.low = low
        return None

    def _on_stack(self, low: int) -> int:
        """`low`, if it is still the index of something on the stack: whatever had a higher one left before it."""
        return low if low != NOTHING and self._visited[low].state == READY else NOTHING

    def _leave(self, node: Node, groups: list[Group]) -> None:
        """All that `node` depends on has been visited: close its component if it is the root of one."""
        self._path.pop()
        if self._path and node.low < self._path[-1].low:
            self._path[-1].low = node.low
        if node.low < node.index:
            return
        component: list[Node] = []
        while not component or component[-1] is not node:
            component.append(self._stack.pop())
            component[-1].state = EXECUTED
        self._waiting -= len(component)
        self._closed += component
        groups.append(sorted(member.id for member in component))


GraphExecutor = choose("scc", "GraphExecutor", PyGraphExecutor)
