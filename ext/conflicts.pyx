# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/protocols/epaxos/deps.py`; what each method means, and why nothing is dropped, is said
there.

A block is what is held of a key: its hash, then the highest write slot of each lane, then the highest read slot of
each lane. Blocks are numbered, live in segments, and never move. The table has 2**bits words and is at most half full:
an occupied word is the number of a block plus one (low 32 bits) under the top half of the mixed hash (high 32 bits), an
empty one is 0. So growing moves eight bytes a key in the order of memory, and probing rarely reads another key's block.

The table grows without a pause: the old one stays beside the new one, is looked into second, and is carried over a
little with every registration, at least four times as fast as the new one can fill.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from layout cimport (
    BATCH_HEADER,
    READ,
    WHOLE,
    Entry,
    entry_count,
    entry_table,
    framed,
    mixed,
    prefetch,
)

cdef enum:
    CHUNK = 32  # entries looked up together: their cache misses overlap
    CARRY = 8  # words of the old table carried over for each key that may be new
    SEGMENT_BITS = 12
    FIRST_BITS = 8
    LAST_BITS = 32

cdef uint32_t NO_BLOCK = 0xFFFFFFFF
cdef uint64_t MAX_SLOT = (<uint64_t>1 << 62) - 1
cdef uint64_t NO_SLOT = 0xFFFFFFFFFFFFFFFF


cdef inline uint64_t slot_of(value) except? 0xFFFFFFFFFFFFFFFF:
    """The slot that an int is, or NO_SLOT."""
    cdef uint64_t slot
    try:
        slot = value
    except OverflowError:
        return NO_SLOT
    return slot if slot <= MAX_SLOT else NO_SLOT


cdef inline void raise_to(uint64_t *to, const uint64_t *slots, int n) noexcept nogil:
    """to = max(to, slots), lane by lane."""
    cdef int lane
    for lane in range(n):
        to[lane] = slots[lane] if slots[lane] > to[lane] else to[lane]


cdef inline void put(uint64_t *highest, uint64_t slot) noexcept nogil:
    if highest[0] < slot:
        highest[0] = slot


cdef class ConflictIndex:
    """See `deps.PyConflictIndex`."""

    cdef int n
    cdef int bits
    cdef size_t stride
    cdef size_t keys
    cdef uint64_t *table
    cdef uint64_t *old
    cdef size_t carried
    cdef uint64_t **segments
    cdef size_t segments_room
    cdef uint64_t *all
    cdef uint64_t *whole
    cdef uint64_t *deps
    cdef uint32_t *found
    cdef size_t found_room

    def __cinit__(self, int n):
        if n < 1:
            raise ValueError(f"{n} lanes")
        self.n = n
        self.bits = FIRST_BITS
        self.stride = 1 + 2 * <size_t>n
        self.table = <uint64_t *>calloc(<size_t>1 << FIRST_BITS, sizeof(uint64_t))
        self.all = <uint64_t *>calloc(5 * <size_t>n, sizeof(uint64_t))
        if self.table == NULL or self.all == NULL:
            raise MemoryError
        self.whole = self.all + 2 * n
        self.deps = self.all + 4 * n

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.segments_room):
            free(self.segments[i])
        free(self.segments)
        free(self.table)
        free(self.old)
        free(self.all)
        free(self.found)

    def lead(self, id_, batch):
        """See `deps.PyConflictIndex.lead`."""
        cdef int lane = self.lane_of(id_)
        cdef uint64_t slot = id_[1]
        if slot <= self.all[lane] or slot <= self.all[self.n + lane]:
            raise ValueError(f"{id_} is not above the ids of its lane registered before")
        cdef const unsigned char *run = framed(batch.data, BATCH_HEADER)
        self.clear()
        self.look(run, True)
        self.add(run, lane, slot)
        return self.vector()

    def preaccept(self, id_, batch, tuple init_dep not None):
        """See `deps.PyConflictIndex.preaccept`."""
        cdef int lane = self.lane_of(id_)
        self.load(init_dep)
        cdef const unsigned char *run = framed(batch.data, BATCH_HEADER)
        cdef uint64_t own = self.deps[lane]
        self.look(run, True)
        self.add(run, lane, id_[1])
        self.deps[lane] = own
        return self.vector()

    def register(self, id_, batch):
        """See `deps.PyConflictIndex.register`."""
        cdef int lane = self.lane_of(id_)
        cdef const unsigned char *run = framed(batch.data, BATCH_HEADER)
        self.look(run, True)
        self.add(run, lane, id_[1])

    def conflicts(self, batch, int skip_lane=-1):
        """See `deps.PyConflictIndex.conflicts`."""
        cdef const unsigned char *run = framed(batch.data, BATCH_HEADER)
        self.clear()
        self.look(run, False)
        if 0 <= skip_lane < self.n:
            self.deps[skip_lane] = 0
        return self.vector()

    def copy(self):
        """See `deps.PyConflictIndex.copy`."""
        cdef ConflictIndex twin = ConflictIndex(self.n)
        cdef uint32_t number
        cdef uint64_t key_hash, mix
        cdef size_t at = 0
        memcpy(twin.all, self.all, 4 * <size_t>self.n * sizeof(uint64_t))
        for number in range(<uint32_t>self.keys):
            twin.room_to_insert(1)
            key_hash = self.block(number)[0]
            mix = mixed(key_hash)
            twin.probe(twin.table, twin.bits, mix, key_hash, &at)
            twin.keys += 1
            twin.table[at] = mix >> 32 << 32 | twin.keys
            memcpy(twin.block(number), self.block(number), self.stride * sizeof(uint64_t))
        return twin

    def __len__(self):
        return self.keys

    cdef int lane_of(self, id_) except -1:
        """The lane of an id that can be."""
        cdef uint64_t slot = slot_of(id_[1]), lane = slot_of(id_[2])
        if lane >= <uint64_t>self.n or slot == 0 or slot == NO_SLOT:
            raise ValueError(f"{id_} has no place in an index of {self.n} lanes")
        return <int>lane

    cdef void clear(self) noexcept nogil:
        memset(self.deps, 0, self.n * sizeof(uint64_t))

    cdef int load(self, tuple init_dep) except -1:
        """deps = init_dep."""
        cdef int i
        cdef bint wrong = len(init_dep) != self.n
        if not wrong:
            for i in range(self.n):
                self.deps[i] = slot_of(init_dep[i])
                wrong |= self.deps[i] == NO_SLOT
        if wrong:
            raise ValueError(f"{init_dep} is not a vector of {self.n} lanes")
        return 0

    cdef tuple vector(self):
        return tuple([self.deps[i] for i in range(self.n)])

    cdef int look(self, const unsigned char *run, bint insert) except -1:
        """Raise `deps` to what the run conflicts with, and leave the block of each entry in `found`.

        With `insert` every key of the run has a block afterwards; otherwise an entry of an unknown key has none.
        """
        cdef uint32_t n = entry_count(run), i, count
        cdef const Entry *entries = entry_table(run)
        self.room_to_find(n)
        for i in range(0, n, CHUNK):
            count = min(<uint32_t>CHUNK, n - i)
            if insert:
                self.room_to_insert(count)
            self.find(entries + i, count, self.found + i, insert)
            self.raise_deps(entries + i, count, self.found + i)
        return 0

    cdef void find(self, const Entry *entries, uint32_t count, uint32_t *found, bint insert) noexcept nogil:
        """The block of each entry: NO_BLOCK for one of the whole state, and for an unknown key without `insert`."""
        cdef uint64_t mix, word
        cdef size_t at = 0, unused = 0
        cdef uint32_t i
        for i in range(count):
            prefetch(self.table + (mixed(entries[i].key_hash) >> (64 - self.bits)))
        for i in range(count):
            word = self.table[mixed(entries[i].key_hash) >> (64 - self.bits)]
            if word:
                prefetch(self.block(<uint32_t>word - 1))
                prefetch(self.block(<uint32_t>word - 1) + self.stride - 1)
        for i in range(count):
            found[i] = NO_BLOCK
            if entries[i].flags & WHOLE:
                continue
            mix = mixed(entries[i].key_hash)
            found[i] = self.probe(self.table, self.bits, mix, entries[i].key_hash, &at)
            if found[i] == NO_BLOCK and self.old != NULL:
                found[i] = self.probe(self.old, self.bits - 1, mix, entries[i].key_hash, &unused)
            if found[i] == NO_BLOCK and insert:
                found[i] = <uint32_t>self.keys
                self.keys += 1
                self.table[at] = mix >> 32 << 32 | self.keys
                memset(self.block(found[i]), 0, self.stride * sizeof(uint64_t))
                self.block(found[i])[0] = entries[i].key_hash

    cdef inline uint32_t probe(
        self, const uint64_t *table, int bits, uint64_t mix, uint64_t key_hash, size_t *at
    ) noexcept nogil:
        """The block of a key according to `table`; if it has none, `at` is where its word would go."""
        cdef size_t mask = (<size_t>1 << bits) - 1, i = mix >> (64 - bits)
        cdef uint64_t word = table[i]
        while word:
            if word >> 32 == mix >> 32 and self.block(<uint32_t>word - 1)[0] == key_hash:
                return <uint32_t>word - 1
            i = (i + 1) & mask
            word = table[i]
        at[0] = i
        return NO_BLOCK

    cdef inline uint64_t *block(self, uint32_t number) noexcept nogil:
        return self.segments[number >> SEGMENT_BITS] + (number & ((1 << SEGMENT_BITS) - 1)) * self.stride

    cdef void raise_deps(self, const Entry *entries, uint32_t count, const uint32_t *found) noexcept nogil:
        cdef int n = self.n
        cdef const uint64_t *slots
        cdef uint32_t i
        cdef unsigned char every = READ
        for i in range(count):
            every &= entries[i].flags
            if entries[i].flags & WHOLE:
                slots = self.all
            elif found[i] != NO_BLOCK:
                slots = self.block(found[i]) + 1
            else:
                continue
            raise_to(self.deps, slots, n)
            if not entries[i].flags & READ:
                raise_to(self.deps, slots + n, n)
        raise_to(self.deps, self.whole, n)
        if not every:
            raise_to(self.deps, self.whole + n, n)

    cdef void add(self, const unsigned char *run, int lane, uint64_t slot) noexcept nogil:
        """Register a run whose blocks `look` has found."""
        cdef uint32_t n = entry_count(run), i
        cdef const Entry *entries = entry_table(run)
        cdef int column
        for i in range(n):
            column = lane + (self.n if entries[i].flags & READ else 0)
            if entries[i].flags & WHOLE:
                put(self.whole + column, slot)
            else:
                put(self.block(self.found[i]) + 1 + column, slot)
            put(self.all + column, slot)

    cdef int room_to_find(self, uint32_t n) except -1:
        if n > self.found_room:
            found = <uint32_t *>realloc(self.found, n * sizeof(uint32_t))
            if found == NULL:
                raise MemoryError
            self.found, self.found_room = found, n
        return 0

    cdef int room_to_insert(self, uint32_t count) except -1:
        """Make room for `count` more keys, so that `find` need not."""
        cdef size_t segment = (self.keys + count - 1) >> SEGMENT_BITS
        if segment >= self.segments_room:
            self.more_segments()
        if self.segments[segment] == NULL:
            self.segments[segment] = <uint64_t *>malloc((self.stride << SEGMENT_BITS) * sizeof(uint64_t))
            if self.segments[segment] == NULL:
                raise MemoryError
        if self.old != NULL:
            self.carry(CARRY * <size_t>count)
        if 2 * (self.keys + count) > <size_t>1 << self.bits:
            self.grow()
        return 0

    cdef int more_segments(self) except -1:
        cdef size_t room = 2 * self.segments_room + 4
        segments = <uint64_t **>realloc(self.segments, room * sizeof(uint64_t *))
        if segments == NULL:
            raise MemoryError
        memset(segments + self.segments_room, 0, (room - self.segments_room) * sizeof(uint64_t *))
        self.segments, self.segments_room = segments, room
        return 0

    cdef int grow(self) except -1:
        """Begin a table of twice the size."""
        if self.bits == LAST_BITS:
            raise MemoryError("the conflict index is full")
        table = <uint64_t *>calloc(<size_t>2 << self.bits, sizeof(uint64_t))
        if table == NULL:
            raise MemoryError
        self.old, self.table, self.carried = self.table, table, 0
        self.bits += 1
        return 0

    cdef void carry(self, size_t count) noexcept nogil:
        """Carry `count` more words of the old table over to the new one; drop it after the last."""
        cdef size_t mask = (<size_t>1 << self.bits) - 1, at
        cdef size_t end = min(self.carried + count, <size_t>1 << (self.bits - 1))
        cdef uint64_t word
        while self.carried < end:
            word = self.old[self.carried]
            self.carried += 1
            if word:
                at = word >> (64 - self.bits)
                while self.table[at]:
                    at = (at + 1) & mask
                self.table[at] = word
        if end == <size_t>1 << (self.bits - 1):
            free(self.old)
            self.old = NULL
