# What has executed and what is known, a lane, and the gate for ids and vectors: the compiled twin of
# `epaxos/execution/lanes.py`. Text of `scc.pyx`, which includes it.

cdef int64_t MAX_SLOT = (<int64_t>1 << 62) - 1


cdef inline int64_t number(value) except? -1:
    """`value`, or -1 when it is too large to be a slot."""
    cdef int overflow = 0
    cdef int64_t result = PyLong_AsLongLongAndOverflow(value, &overflow)
    return -1 if overflow or result > MAX_SLOT else result


cdef class Lanes:
    """See `lanes.Lanes`."""

    cdef int n
    cdef object epoch
    cdef bint bound
    cdef int64_t *watermark
    cdef int64_t *known
    cdef int64_t *vector
    cdef list tails

    def __cinit__(self, int n):
        if n < 1:
            raise ValueError(f"{n} lanes")
        self.n = n
        self.epoch = 0
        self.watermark = <int64_t *>calloc(3 * <size_t>n, sizeof(int64_t))
        if self.watermark == NULL:
            raise MemoryError
        self.known = self.watermark + n
        self.vector = self.watermark + 2 * n
        self.tails = [set() for _ in range(n)]

    def __dealloc__(self):
        free(self.watermark)

    cdef int place(self, id_, int64_t *slot) except -1:
        """The lane of `id_`, and its slot."""
        if not isinstance(id_, tuple) or PyTuple_GET_SIZE(id_) != 3:
            raise TypeError(f"{id_!r} is no id")
        cdef int64_t lane = number(<object>PyTuple_GET_ITEM(id_, 2))
        slot[0] = number(<object>PyTuple_GET_ITEM(id_, 1))
        if lane < 0 or lane >= self.n or slot[0] < 1:
            raise ValueError(f"{id_} has no place in {self.n} lanes")
        epoch = <object>PyTuple_GET_ITEM(id_, 0)
        if epoch is not self.epoch and epoch != self.epoch:
            if self.bound:
                raise ValueError(f"{id_} is not of epoch {self.epoch}")
            self.epoch = epoch
        self.bound = True
        return <int>lane

    cdef int load(self, order) except -1:
        """vector = order."""
        cdef int lane
        cdef int64_t slot
        if not isinstance(order, tuple) or PyTuple_GET_SIZE(order) != self.n:
            raise ValueError(f"{order} is no vector of {self.n} slots")
        for lane in range(self.n):
            slot = number(<object>PyTuple_GET_ITEM(order, lane))
            if slot < 0:
                raise ValueError(f"{order} is no vector of {self.n} slots")
            self.vector[lane] = slot
        return 0

    cdef inline bint has(self, int lane, int64_t slot, key) except -1:
        """Has it executed? `key` is the slot as a Python object."""
        if slot <= self.watermark[lane]:
            return True
        tail = <set>self.tails[lane]
        return len(tail) > 0 and key in tail

    cdef inline int first_unknown(self, const int64_t *vector) noexcept nogil:
        """The first lane that has something unknown under `vector`, or -1."""
        cdef int lane
        for lane in range(self.n):
            if vector[lane] > self.known[lane]:
                return lane
        return -1

    cdef int mark_executed(self, int lane, int64_t slot) except -1:
        cdef int64_t mark = self.watermark[lane]
        tail = <set>self.tails[lane]
        if slot != mark + 1:
            tail.add(slot)
            return 0
        mark = slot
        while tail and mark + 1 in tail:
            mark += 1
            tail.remove(mark)
        self.watermark[lane] = mark
        return 0

    def executed(self):
        """See `graph.PyGraphExecutor.executed`."""
        cdef int lane
        watermark = tuple([self.watermark[lane] for lane in range(self.n)])
        beyond = [InstanceId(self.epoch, slot, lane) for lane in range(self.n) for slot in <set>self.tails[lane]]
        return Frontier(watermark, frozenset(beyond))
