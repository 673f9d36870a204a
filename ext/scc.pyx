# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/execution/graph.py`; what everything means, and why, is said there.

The table maps a key hash to who touches the key: nobody (0), one node (its address, with WRITES), or a row (its
address, with ROW). Addresses of nodes are borrowed: `nodes` owns them, and a node leaves the rows before it leaves
`nodes`. Ids, lots and what is missing are Python objects: an instance has few of them, a key has none.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from layout cimport BATCH_HEADER, CONT, READ, WHOLE, Entry, entry_count, entry_table, framed, mixed, prefetch

from heapq import heappop, heappush

from epaxos.command import NOP
from epaxos.execution.lanes import GAPS_MAX
from epaxos.ids import InstanceId
from epaxos.protocols.interface import Frontier

include "lanes.pxi"
include "keys.pxi"
include "rows.pxi"


# ------------------------------------------------------------------------------------------------------------- executor


cdef class GraphExecutor(Lanes):
    """See `graph.PyGraphExecutor`."""

    cdef bint begun
    cdef Py_ssize_t waiting_
    cdef int64_t *reach
    cdef int64_t *seen
    cdef list nodes
    cdef list lots
    cdef list lot_slots
    cdef list gaps
    cdef list ready
    cdef set wanted
    cdef tuple missing_

    cdef Table table
    cdef Row *whole
    cdef Row *all

    cdef uint64_t stamp
    cdef list path
    cdef list stack
    cdef list visited
    cdef list closed

    def __cinit__(self, int n):
        self.reach = <int64_t *>calloc(2 * <size_t>n, sizeof(int64_t))
        self.table.bits = LEAST_BITS
        self.table.slots = <Slot *>calloc(<size_t>1 << LEAST_BITS, sizeof(Slot))
        if self.reach == NULL or self.table.slots == NULL:
            raise MemoryError
        self.seen = self.reach + n
        self.whole = new_row(n)
        self.all = new_row(n)
        self.nodes = [{} for _ in range(n)]
        self.lots = [{} for _ in range(n)]
        self.lot_slots = [[] for _ in range(n)]
        self.gaps = [set() for _ in range(n)]
        self.ready = []
        self.wanted = set()
        self.missing_ = ()
        self.path, self.stack, self.visited, self.closed = [], [], [], []

    def __dealloc__(self):
        cdef size_t i
        if self.table.slots != NULL:
            for i in range(<size_t>1 << self.table.bits):
                if self.table.slots[i].who & ROW:
                    free_row(<Row *>(self.table.slots[i].who & ~<uintptr_t>ROW), self.n)
        free(self.table.slots)
        free(self.reach)
        free_row(self.whole, self.n)
        free_row(self.all, self.n)

    # ----------------------------------------------------------------------------------------------------- the contract

    def learn(self, id_, batch):
        """See `graph.PyGraphExecutor.learn`."""
        cdef int64_t slot
        cdef int lane = self.place(id_, &slot)
        if self.has(lane, slot, id_[1]) or id_[1] in <dict>self.nodes[lane]:
            return
        node = self.new_node(id_, lane, slot, batch)
        self.add(node)

    def decide(self, decisions):
        """See `graph.PyGraphExecutor.decide`."""
        cdef int64_t slot
        cdef list groups = []
        for id_, _, order in decisions:
            self.place(id_, &slot)
            self.load(order)
        self.begun = True
        for id_, payload, order in decisions:
            if self.decided(id_, payload, order):
                groups.append([id_])
        self.drain(groups)
        return groups

    def restore(self, ids):
        """See `graph.PyGraphExecutor.restore`."""
        cdef int64_t slot
        cdef int lane
        if self.begun:
            raise ValueError("restored after the first decision")
        for id_ in ids:
            lane = self.place(id_, &slot)
            if not self.has(lane, slot, id_[1]):
                self.execute(lane, slot, <Node>(<dict>self.nodes[lane]).get(id_[1]))

    def missing(self):
        """See `graph.PyGraphExecutor.missing`."""
        cdef int lane
        if self.missing_ is None:
            unknown = {InstanceId(self.epoch, slot, lane) for lane in range(self.n) for slot in self.gap(lane)}
            self.missing_ = tuple(sorted(unknown | self.wanted))
        return self.missing_

    def waiting(self):
        """See `graph.PyGraphExecutor.waiting`."""
        return self.waiting_

    def reached(self, order, batch):
        """See `graph.PyGraphExecutor.reached`."""
        cdef Node node = Node.__new__(Node), other
        cdef Row *row
        cdef uintptr_t who
        cdef uint32_t at
        cdef bint write = False
        self.load(order)
        node.touch(batch)
        if self.first_unknown(self.vector) >= 0:
            return False
        for at in range(2 + node.count):
            row = self.target(node, at, &write)
            if row != NULL:
                if has_under(row, self.n, self.vector, write):
                    return False
            elif at >= 2 and not node.entries[at - 2].flags & WHOLE:
                who = find(&self.table, node.entries[at - 2].key_hash).who
                if who and (write or who & WRITES):
                    other = <Node><void *>(who & ~<uintptr_t>WRITES)
                    if other.slot <= self.vector[other.lane]:
                        return False
        return True

    def entangled(self, bytes run not None):
        """See `graph.PyGraphExecutor.entangled`."""
        cdef const unsigned char *start = framed(run, 0)
        cdef const Entry *entries = entry_table(start)
        cdef uint32_t n = entry_count(start), i
        cdef Py_ssize_t commands = 0
        cdef bint write, hit
        cdef unsigned char *out = <unsigned char *>malloc(n)
        if out == NULL:
            raise MemoryError
        for i in range(n):
            if i % CHUNK == 0:
                prefetch_keys(&self.table, entries + i, min(<uint32_t>CHUNK, n - i))
            write = not entries[i].flags & READ
            hit = has_conflict(self.whole, write)
            if not hit:
                if entries[i].flags & WHOLE:
                    hit = has_conflict(self.all, write)
                else:
                    hit = self.conflicts(find(&self.table, entries[i].key_hash).who, write, NULL)
            if entries[i].flags & CONT and commands:
                out[commands - 1] |= hit
            else:
                out[commands] = hit
                commands += 1
        result = PyBytes_FromStringAndSize(<char *>out, commands)
        free(out)
        return result

    cdef Node new_node(self, id_, int lane, int64_t slot, batch):
        node = <Node>Node.__new__(Node)
        node.touch(batch)
        node.id, node.lane, node.slot = id_, lane, slot
        return node

    # ----------------------------------------------------------------------------------------------- what becomes known

    cdef bint decided(self, id_, payload, order) except -1:
        """Take a decision. True when it has executed already."""
        cdef int64_t slot
        cdef int lane = self.place(id_, &slot)
        cdef Node node = <Node>(<dict>self.nodes[lane]).get(id_[1])
        if self.has(lane, slot, id_[1]) or (node is not None and node.state != UNDECIDED):
            return False
        if payload is NOP:
            self.execute(lane, slot, node)
            return True
        self.load(order)
        cdef bint alone = self.first_unknown(self.vector) < 0
        if node is None:
            node = self.new_node(id_, lane, slot, payload)
            if alone and not self.meets(node, NULL):
                self.execute(lane, slot, None)
                return True
            node.state = READY
            self.add(node)
            self.wake(node, None)
        elif alone and not self.meets(node, <void *>node):
            self.execute(lane, slot, node)
            return True
        else:
            self.settle(node, READY)
        node.deps = <int64_t *>malloc(self.n * sizeof(int64_t))
        if node.deps == NULL:
            raise MemoryError
        for lane in range(self.n):
            node.deps[lane] = self.vector[lane]
        self.waiting_ += 1
        return False

    cdef int execute(self, int lane, int64_t slot, Node node) except -1:
        if node is not None:
            self.settle(node, EXECUTED)
            self.forget(node)
        self.mark_executed(lane, slot)
        self.became_known(lane, slot)
        return 0

    cdef int settle(self, Node node, int state) except -1:
        node.state = state
        if self.wanted and node.id in self.wanted:
            self.wanted.remove(node.id)
            self.missing_ = None
        self.wake(node, node.lot)
        return 0

    cdef int add(self, Node node) except -1:
        cdef int lane = node.lane, n = self.n
        cdef int64_t slot = node.slot
        cdef void *address = <void *>node
        cdef const Entry *entries = node.entries
        cdef bint write
        cdef Slot *there
        cdef uint32_t i
        (<dict>self.nodes[lane])[node.id[1]] = node
        cdef int wanted = row_add(self.all, n, lane, slot, address, node.writes)
        if node.whole_write or node.whole_read:
            wanted |= row_add(self.whole, n, lane, slot, address, node.whole_write)
        resize_for(&self.table, self.table.keys + node.count)
        for i in range(node.count):
            if i % CHUNK == 0:
                prefetch_keys(&self.table, entries + i, min(<uint32_t>CHUNK, node.count - i))
            if entries[i].flags & WHOLE:
                continue
            write = not entries[i].flags & READ
            there = find(&self.table, entries[i].key_hash)
            if not there.who:
                there.key_hash = entries[i].key_hash
                there.who = <uintptr_t>address | (WRITES if write else 0)
                self.table.keys += 1
            elif there.who & ROW:
                wanted |= row_add(<Row *>(there.who & ~<uintptr_t>ROW), n, lane, slot, address, write)
            elif there.who & ~<uintptr_t>WRITES == <uintptr_t>address:
                there.who |= WRITES if write else 0
            else:
                wanted |= row_add(self.crowd(there), n, lane, slot, address, write)
        if wanted and node.state == UNDECIDED:
            self.wanted.add(node.id)
            self.missing_ = None
        self.became_known(lane, slot)
        return 0

    cdef Row *crowd(self, Slot *there) except NULL:
        node = <Node><void *>(there.who & ~<uintptr_t>WRITES)
        cdef bint write = there.who & WRITES != 0
        cdef Row *row = new_row(self.n)
        there.who = <uintptr_t>row | ROW
        row_add(row, self.n, node.lane, node.slot, <void *>node, write)
        if node.announced:
            self.row_want(row, node.deps, write)
        return row

    cdef int forget(self, Node node) except -1:
        cdef const Entry *entries = node.entries
        cdef Slot *there
        cdef Row *row
        cdef uint32_t i
        row_remove(self.all, self.n, node.lane, node.slot)
        if node.whole_write or node.whole_read:
            row_remove(self.whole, self.n, node.lane, node.slot)
        for i in range(node.count):
            if i % CHUNK == 0:
                prefetch_keys(&self.table, entries + i, min(<uint32_t>CHUNK, node.count - i))
            if entries[i].flags & WHOLE:
                continue
            there = find(&self.table, entries[i].key_hash)
            if not there.who:
                continue
            if there.who & ROW:
                row = <Row *>(there.who & ~<uintptr_t>ROW)
                row_remove(row, self.n, node.lane, node.slot)
                if row.writers or row.readers:
                    continue
                free_row(row, self.n)
            clear(&self.table, there)
        resize_for(&self.table, self.table.keys)
        del (<dict>self.nodes[node.lane])[node.id[1]]
        return 0

    cdef int became_known(self, int lane, int64_t slot) except -1:
        cdef int64_t known = self.known[lane]
        cdef Lot lot
        gaps = <set>self.gaps[lane]
        if gaps and slot in gaps:
            gaps.remove(slot)
            self.missing_ = None
        if slot != known + 1:
            return 0
        nodes, tail = <dict>self.nodes[lane], <set>self.tails[lane]
        known = max(slot, self.watermark[lane])
        while (nodes and known + 1 in nodes) or (tail and known + 1 in tail):
            known += 1
        self.known[lane] = known
        slots = <list>self.lot_slots[lane]
        while slots and <int64_t>slots[0] <= known:
            for lot in <list>(<dict>self.lots[lane]).pop(heappop(slots)):
                lot.owner.state = READY
                self.wake(lot.owner, lot)
        return 0

    # ---------------------------------------------------------------------------------------------------- who conflicts

    cdef inline bint conflicts(self, uintptr_t who, bint write, const void *me) noexcept nogil:
        cdef const Row *row
        if not who:
            return False
        if who & ROW:
            row = <Row *>(who & ~<uintptr_t>ROW)
            return has_conflict(row, write) if me == NULL else row.writers + row.readers > 1
        return who & ~<uintptr_t>WRITES != <uintptr_t>me and (write or who & WRITES)

    cdef bint meets(self, Node node, const void *me) noexcept:
        cdef const Entry *entries = node.entries
        cdef uint32_t i
        if (node.whole_write or node.whole_read) and (me != NULL or has_conflict(self.all, node.whole_write)):
            return True
        if has_conflict(self.whole, node.writes):
            return True
        for i in range(node.count):
            if i % CHUNK == 0:
                prefetch_keys(&self.table, entries + i, min(<uint32_t>CHUNK, node.count - i))
            if entries[i].flags & WHOLE:
                continue
            if self.conflicts(find(&self.table, entries[i].key_hash).who, not entries[i].flags & READ, me):
                return True
        return False

    cdef inline Row *target(self, Node node, uint32_t at, bint *write) noexcept:
        """The row to look into, if there is one."""
        cdef uintptr_t who
        cdef const Entry *entry
        if at == 0:
            write[0] = node.writes
            return self.whole
        if at == 1:
            write[0] = node.whole_write
            return self.all if node.whole_write or node.whole_read else NULL
        entry = &node.entries[at - 2]
        write[0] = not entry.flags & READ
        if entry.flags & WHOLE:
            return NULL
        who = find(&self.table, entry.key_hash).who
        return <Row *>(who & ~<uintptr_t>ROW) if who & ROW else NULL

    # ---------------------------------------------------------------------------------------------------------- waiting

    cdef int row_want(self, Row *row, const int64_t *deps, bint write) except -1:
        """`Row.want`, and mark what is wanted first."""
        cdef int i
        cdef uint32_t at
        cdef int64_t slot
        cdef Strip *strip
        cdef Node node
        for i in range(2 * self.n if write else self.n):
            strip = &row.strips[i]
            slot = deps[i if i < self.n else i - self.n]
            if slot <= strip.want:
                continue
            at = after(strip, strip.want, strip.head, strip.end)
            strip.want = slot
            while at < strip.end and strip.items[at].slot <= slot:
                node = <Node>strip.items[at].node
                if node.state == UNDECIDED:
                    self.wanted.add(node.id)
                    self.missing_ = None
                at += 1
        return 0

    cdef set gap(self, int lane):
        cdef int64_t seen = max(self.seen[lane], self.known[lane])
        gaps, nodes = <set>self.gaps[lane], <dict>self.nodes[lane]
        while seen < self.reach[lane] and len(gaps) < GAPS_MAX:
            seen += 1
            if seen not in nodes and not self.has(lane, seen, seen):
                gaps.add(seen)
        self.seen[lane] = seen
        return gaps

    cdef int announce(self, Node node) except -1:
        cdef int lane
        cdef uint32_t at
        cdef Row *row
        cdef bint write = False
        node.announced = True
        for lane in range(self.n):
            if node.deps[lane] > self.reach[lane]:
                self.reach[lane] = node.deps[lane]
                self.missing_ = None
        for at in range(2 + node.count):
            row = self.target(node, at, &write)
            if row != NULL:
                self.row_want(row, node.deps, write)
        return 0

    cdef int park(self, Lot lot) except -1:
        cdef Node node
        for node in self.stack:
            node.state = PARKED
            node.lot = lot
            node.hint = (node.hint + node.step) % (2 + node.count)
            if not node.announced:
                self.announce(node)
        lot.members.extend(self.stack)
        return 0

    cdef int wake(self, Node node, Lot lot) except -1:
        node.lot = None
        if lot is not None:
            lot.woken = True
        self.ready.append((node, lot))
        return 0

    cdef int drain(self, list groups) except -1:
        cdef Node node, other
        cdef Lot lot
        for entry in self.ready:
            node, lot = <Node>(<tuple>entry)[0], <Lot>(<tuple>entry)[1]
            if node.state == READY:
                self.walk(node, groups)
            if lot is None:
                continue
            if node.state == PARKED:
                lot.put_into(node.lot.top())
                continue
            for other in lot.everyone():
                if other.state == PARKED and other.lot.top() is lot:
                    other.state = READY
                    self.wake(other, None)
        self.ready.clear()
        return 0

    cdef Lot barrier(self, Node node):
        if node.state == UNDECIDED and node.lot is None:
            node.lot = new_lot(node)
        if node.lot is None:
            return None
        lot = node.lot.top()
        return None if lot.woken else lot

    # ---------------------------------------------------------------------------------------------------------- walking

    cdef int walk(self, Node root, list groups) except -1:
        cdef Node node, found
        cdef Lot lot
        self.stamp += 1
        lot = self.enter(root)
        while lot is None and self.path:
            node = <Node>self.path[len(self.path) - 1]
            found = self.next(node)
            if found is None:
                self.leave(node, groups)
            else:
                lot = self.barrier(found)
                if lot is None:
                    lot = self.enter(found)
        if lot is not None:
            self.park(lot)
        for node in self.closed:
            self.forget(node)
            self.mark_executed(node.lane, node.slot)
        self.path.clear()
        self.stack.clear()
        self.visited.clear()
        self.closed.clear()
        return 0

    cdef Lot enter(self, Node node):
        cdef int lane
        node.state = READY
        node.lot = None
        node.stamp = self.stamp
        node.index = node.low = <int32_t>len(self.visited)
        node.step = 0
        node.part = 0
        self.visited.append(node)
        self.stack.append(node)
        self.path.append(node)
        lane = self.first_unknown(node.deps)
        if lane < 0:
            return None
        slot = node.deps[lane]
        lots = <dict>self.lots[lane]
        if slot not in lots:
            lots[slot] = []
            heappush(<list>self.lot_slots[lane], slot)
        lot = new_lot(node)
        (<list>lots[slot]).append(lot)
        return lot

    cdef Node next(self, Node node):
        cdef uint32_t targets = 2 + node.count
        cdef bint write = False
        cdef int parts
        cdef Row *row
        cdef void *found
        while node.step < targets:
            row = self.target(node, (node.hint + node.step) % targets, &write)
            if row != NULL and has_conflict(row, write):
                parts = 2 * self.n if write else self.n
                while node.part < parts:
                    found = self.go_past(&row.strips[node.part], node)
                    if found != NULL:
                        return <Node>found
                    node.part += 1
            node.step += 1
            node.part = 0
        return None

    cdef void *go_past(self, Strip *strip, Node node) noexcept:
        """`PyGraphExecutor._pass`."""
        cdef int64_t bound = node.deps[node.part if node.part < self.n else node.part - self.n]
        cdef Item *items = strip.items
        cdef uint32_t at, last
        cdef int32_t low
        cdef Node found
        if strip.head == strip.end:
            return NULL
        if strip.stamp != self.stamp:
            strip.stamp = self.stamp
            strip.passed = strip.head
        at = strip.passed
        while at < strip.end and items[at].slot <= bound:
            found = <Node>items[at].node
            if found.state != EXECUTED and (found.state != READY or found.stamp != self.stamp):
                strip.passed = at
                return items[at].node
            low = self.on_stack(items[at - 1].low) if at > strip.head else NOTHING
            if found.state == READY and (low == NOTHING or found.index < low):
                low = found.index
            items[at].low = low
            at += 1
        strip.passed = at
        last = after(strip, bound, strip.head, at)
        low = self.on_stack(items[last - 1].low) if last > strip.head else NOTHING
        if low != NOTHING and low < node.low:
            node.low = low
        return NULL

    cdef inline int32_t on_stack(self, int32_t low) noexcept:
        return low if low != NOTHING and (<Node>self.visited[low]).state == READY else NOTHING

    cdef int leave(self, Node node, list groups) except -1:
        cdef Node above, member
        cdef list group = []
        self.path.pop()
        if self.path:
            above = <Node>self.path[len(self.path) - 1]
            above.low = min(above.low, node.low)
        if node.low < node.index:
            return 0
        while True:
            member = <Node>self.stack.pop()
            member.state = EXECUTED
            self.closed.append(member)
            group.append(member.id)
            if member is node:
                break
        self.waiting_ -= len(group)
        if len(group) > 1:
            group.sort()
        groups.append(group)
        return 0
