# What is known and not executed, by the keys it touches: the compiled twin of `epaxos/execution/rows.py`, where it is
# explained. Text of `scc.pyx`, which includes it: one extension, so that its calls stay inline.

cdef enum:
    UNDECIDED = 0
    READY = 1
    PARKED = 2
    EXECUTED = 3

    NOTHING = -1
    KEPT_ROOM = 64  # items: what an empty strip may keep


# --------------------------------------------------------------------------------------------------------- strips, rows


cdef struct Item:
    int64_t slot
    void *node
    int32_t low


cdef struct Strip:
    Item *items
    uint32_t head
    uint32_t end
    uint32_t room
    uint32_t passed
    int64_t want
    uint64_t stamp


cdef struct Row:
    uint32_t writers
    uint32_t readers
    Strip strips[1]


cdef inline uint32_t after(const Strip *strip, int64_t slot, uint32_t first, uint32_t end) noexcept nogil:
    """Where in [first, end) the slots above `slot` begin."""
    cdef uint32_t middle
    if end > first and strip.items[end - 1].slot <= slot:
        return end
    while first < end:
        middle = (first + end) // 2
        if strip.items[middle].slot <= slot:
            first = middle + 1
        else:
            end = middle
    return first


cdef int spread(Strip *strip) except -1:
    """Make room at both ends."""
    cdef size_t count = strip.end - strip.head, room = 2 * count + 4
    items = <Item *>malloc(room * sizeof(Item))
    if items == NULL:
        raise MemoryError
    cdef size_t head = (room - count) // 2
    if count:
        memcpy(items + head, strip.items + strip.head, count * sizeof(Item))
    free(strip.items)
    strip.items, strip.head, strip.end, strip.room = items, head, head + count, room
    return 0


cdef int put(Strip *strip, int64_t slot, void *node) except -1:
    """1 when it was put in, 0 when it was there."""
    cdef uint32_t at = after(strip, slot, strip.head, strip.end)
    if at > strip.head and strip.items[at - 1].slot == slot:
        return 0
    if strip.end == strip.room or strip.head == 0:
        at -= strip.head
        spread(strip)
        at += strip.head
    if at - strip.head < strip.end - at:
        strip.head -= 1
        at -= 1
        memmove(strip.items + strip.head, strip.items + strip.head + 1, (at - strip.head) * sizeof(Item))
    else:
        memmove(strip.items + at + 1, strip.items + at, (strip.end - at) * sizeof(Item))
        strip.end += 1
    strip.items[at].slot = slot
    strip.items[at].node = node
    return 1


cdef int take(Strip *strip, int64_t slot) noexcept nogil:
    """1 when it was taken away, 0 when it was not there."""
    cdef uint32_t at = after(strip, slot, strip.head, strip.end)
    if at == strip.head or strip.items[at - 1].slot != slot:
        return 0
    at -= 1
    if at - strip.head < strip.end - at:
        memmove(strip.items + strip.head + 1, strip.items + strip.head, (at - strip.head) * sizeof(Item))
        strip.head += 1
    else:
        memmove(strip.items + at, strip.items + at + 1, (strip.end - at - 1) * sizeof(Item))
        strip.end -= 1
    if strip.head == strip.end and strip.room > KEPT_ROOM:
        free(strip.items)
        strip.items = NULL
        strip.head = strip.end = strip.room = 0
    return 1


cdef Row *new_row(int n) except NULL:
    row = <Row *>calloc(1, sizeof(Row) + (2 * <size_t>n - 1) * sizeof(Strip))
    if row == NULL:
        raise MemoryError
    return row


cdef void free_row(Row *row, int n) noexcept nogil:
    cdef int i
    if row != NULL:
        for i in range(2 * n):
            free(row.strips[i].items)
        free(row)


cdef inline bint has_conflict(const Row *row, bint write) noexcept nogil:
    return row.writers > 0 or (write and row.readers > 0)


cdef bint has_under(const Row *row, int n, const int64_t *vector, bint write) noexcept nogil:
    cdef int i
    cdef const Strip *strip
    for i in range(2 * n if write else n):
        strip = &row.strips[i]
        if strip.head < strip.end and strip.items[strip.head].slot <= vector[i if i < n else i - n]:
            return True
    return False


cdef int row_add(Row *row, int n, int lane, int64_t slot, void *node, bint write) except -1:
    """1 when it is wanted here."""
    cdef Strip *strip = &row.strips[lane if write else n + lane]
    if write:
        row.writers += put(strip, slot, node)
    else:
        row.readers += put(strip, slot, node)
    return slot <= strip.want


cdef void row_remove(Row *row, int n, int lane, int64_t slot) noexcept nogil:
    row.writers -= take(&row.strips[lane], slot)
    row.readers -= take(&row.strips[n + lane], slot)


# ---------------------------------------------------------------------------------------------------------------- nodes


cdef class Node:
    cdef object id
    cdef bytes data
    cdef const Entry *entries
    cdef uint32_t count
    cdef bint writes
    cdef bint whole_read
    cdef bint whole_write
    cdef int lane
    cdef int64_t slot
    cdef int64_t *deps
    cdef int state
    cdef Lot lot
    cdef bint announced
    cdef uint64_t stamp
    cdef int32_t index
    cdef int32_t low
    cdef uint32_t step
    cdef int part
    cdef uint32_t hint

    def __dealloc__(self):
        free(self.deps)

    cdef int touch(self, batch) except -1:
        """Find out what `batch` touches."""
        cdef uint32_t i
        cdef unsigned char flags, only_read = READ
        self.data = batch.data
        cdef const unsigned char *run = framed(self.data, BATCH_HEADER)
        self.entries = entry_table(run)
        self.count = entry_count(run)
        for i in range(self.count):
            flags = self.entries[i].flags
            only_read &= flags
            if flags & WHOLE:
                if flags & READ:
                    self.whole_read = True
                else:
                    self.whole_write = True
        self.writes = not only_read
        return 0


cdef class Lot:
    """See `rows.Lot`."""

    cdef Node owner
    cdef list members
    cdef list parts
    cdef Lot into
    cdef bint woken

    cdef Lot top(self):
        cdef Lot lot = self
        while lot.into is not None:
            if lot.into.into is not None:
                lot.into = lot.into.into
            lot = lot.into
        return lot

    cdef int put_into(self, Lot other) except -1:
        self.into = other
        other.parts.append(self)
        return 0

    cdef list everyone(self):
        cdef list lots = [self], found = []
        cdef Lot lot
        while lots:
            lot = <Lot>lots.pop()
            lots.extend(lot.parts)
            found.extend(lot.members)
        return found


cdef Lot new_lot(Node owner):
    lot = <Lot>Lot.__new__(Lot)
    lot.owner, lot.members, lot.parts = owner, [], []
    return lot
