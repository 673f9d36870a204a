# The table of keys: who touches each. Open addressing with linear probing, no tombstones. Text of `scc.pyx`, which
# includes it.

cdef enum:
    ROW = 1
    WRITES = 2

    CHUNK = 32  # entries looked up together: their cache misses overlap
    LEAST_BITS = 10


cdef struct Slot:
    uint64_t key_hash
    uintptr_t who


cdef struct Table:
    Slot *slots
    size_t keys
    int bits


cdef inline void prefetch_keys(const Table *table, const Entry *entries, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        prefetch(table.slots + (mixed(entries[i].key_hash) >> (64 - table.bits)))


cdef inline Slot *find(const Table *table, uint64_t key_hash) noexcept nogil:
    """Where the key is, or the empty slot where it would be."""
    cdef size_t mask = (<size_t>1 << table.bits) - 1
    cdef size_t at = mixed(key_hash) >> (64 - table.bits)
    while table.slots[at].who and table.slots[at].key_hash != key_hash:
        at = (at + 1) & mask
    return table.slots + at


cdef void clear(Table *table, Slot *there) noexcept nogil:
    """Take a key out: close the hole, so that every key is found from its home without tombstones."""
    cdef size_t mask = (<size_t>1 << table.bits) - 1
    cdef size_t hole = there - table.slots, at = hole, home
    while True:
        at = (at + 1) & mask
        if not table.slots[at].who:
            break
        home = mixed(table.slots[at].key_hash) >> (64 - table.bits)
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole].who = 0
    table.keys -= 1


cdef int resize_for(Table *table, size_t keys) except -1:
    """Make the table at most half full with that many keys, and not much emptier than that."""
    cdef int bits = table.bits
    while 2 * keys > <size_t>1 << bits:
        bits += 1
    while bits > LEAST_BITS and 32 * keys < <size_t>1 << bits:
        bits -= 1
    if bits == table.bits:
        return 0
    cdef Slot *old = table.slots
    cdef size_t size = <size_t>1 << table.bits, i
    slots = <Slot *>calloc(<size_t>1 << bits, sizeof(Slot))
    if slots == NULL:
        raise MemoryError
    table.slots, table.bits = slots, bits
    for i in range(size):
        if old[i].who:
            find(table, old[i].key_hash)[0] = old[i]
    free(old)
    return 0
