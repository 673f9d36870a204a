# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/machines/kv.py`; what each operation means is said there.

The frequent operations on strings are compiled: commands are read in place, and the objects made are the keys and
values of the state itself, and one buffer of replies a span. All others are run by the pure twin, on the same store.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Contains, PyDict_DelItem, PyDict_GetItemWithError, PyDict_SetItem, PyDict_Size
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from buffer cimport Buffer, buffer_append, buffer_extend, buffer_free, buffer_init
from layout cimport (
    BATCH_HEADER,
    CONT,
    Entry,
    body_bytes,
    entry_count,
    entry_end,
    entry_table,
    run_body,
)
from digits cimport DIGITS, parse_i64, write_i64

from epaxos import command as packed
from epaxos.machines import kv as pure, store
from epaxos.packing import check_run

cdef enum:
    GET = 0x01
    SET = 0x02
    SETNX = 0x03
    DEL = 0x04
    EXISTS = 0x05
    INCRBY = 0x06
    APPEND = 0x07
    STRLEN = 0x08
    MGET = 0x09
    MSET = 0x0A

    SET_NX = 0x10
    SET_XX = 0x20
    SET_GET = 0x40

    MAX_VALUE_BYTES = 1 << 25

cdef bytes NOT_AN_INTEGER = pure.NOT_AN_INTEGER
cdef bytes OVERFLOW = pure.OVERFLOW
cdef bytes TOO_LONG = pure.TOO_LONG
cdef bytes WRONG_TYPE = store.WRONG_TYPE


cdef struct Part:
    # One entry of a command, in place.
    const char *key
    Py_ssize_t key_bytes
    const char *payload
    Py_ssize_t payload_bytes


cdef struct Walk:
    # A sound run, and how far it has been walked.
    const Entry *table
    const char *body
    uint32_t n
    uint32_t body_bytes
    uint32_t i


cdef inline Part part(const Walk *walk, uint32_t i) noexcept nogil:
    cdef uint32_t offset = walk.table[i].offset
    cdef uint32_t key_end = offset + walk.table[i].key_bytes
    cdef uint32_t end = entry_end(walk.table, i, walk.n, walk.body_bytes)
    return Part(walk.body + offset, walk.table[i].key_bytes, walk.body + key_end, end - key_end)


cdef inline bytes key_of(Part at):
    return PyBytes_FromStringAndSize(at.key, at.key_bytes)


cdef inline bytes payload_of(Part at):
    return PyBytes_FromStringAndSize(at.payload, at.payload_bytes)


cdef tuple command_of(const Walk *walk, uint32_t first, uint32_t end):
    """Unpacked, as `decode_run` gives it."""
    cdef list entries = []
    cdef Part at
    for i in range(first, end):
        at = part(walk, i)
        entries.append(packed.Entry(walk.table[i].op, walk.table[i].flags & ~CONT, key_of(at), payload_of(at)))
    return tuple(entries)


# ------------------------------------------------------------------------------------------------------------ replies


cdef inline int say(Buffer *out, const char *text, size_t size) except -1:
    return 0 if out == NULL else buffer_append(out, text, size)


cdef inline int say_bytes(Buffer *out, bytes text) except -1:
    return say(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int say_number(Buffer *out, char kind, int64_t value) except -1:
    """`kind`, the number, and the end of the line."""
    cdef char line[DIGITS + 3]
    cdef int size
    if out == NULL:
        return 0
    line[0] = kind
    size = 1 + write_i64(line + 1, value)
    line[size] = c"\r"
    line[size + 1] = c"\n"
    return buffer_append(out, line, size + 2)


cdef inline bint wrong_type(PyObject *value) noexcept:
    """Is there a value that is no string?"""
    return value != NULL and not PyBytes_CheckExact(<object>value)


cdef int say_bulk(Buffer *out, PyObject *value) except -1:
    """A string, or nothing."""
    cdef Py_ssize_t size
    cdef unsigned char *to
    if out == NULL:
        return 0
    if value == NULL:
        return buffer_append(out, b"$-1\r\n", 5)
    size = PyBytes_GET_SIZE(<bytes>value)
    say_number(out, c"$", size)
    to = buffer_extend(out, size + 2)
    memcpy(to, PyBytes_AS_STRING(<bytes>value), size)
    to[size] = c"\r"
    to[size + 1] = c"\n"
    return 0


# ------------------------------------------------------------------------------------------------------- the machine


cdef class Kv:
    """The compiled twin of `epaxos.machines.kv.PyKv`."""

    cdef object pure
    cdef dict values
    cdef dict marks

    def __init__(self):
        self.pure = pure.PyKv()
        self.values = self.pure.store.values
        self.marks = self.pure.store.marks

    def __len__(self):
        return len(self.values)

    def get(self, bytes key not None):
        """See `PyKv.get`."""
        return self.pure.get(key)

    def save(self):
        """See `PyKv.save`."""
        return self.pure.save()

    def load(self, chunks):
        """See `PyKv.load`."""
        self.pure.load(chunks)

    def digest(self):
        """See `PyKv.digest`."""
        return self.pure.digest()

    def apply_batch(self, batch, spans):
        """See `PyKv.apply_batch`."""
        cdef bytes data = batch.data
        cdef int64_t commands = check_run(data, BATCH_HEADER), span
        cdef const unsigned char *run = <const unsigned char *>PyBytes_AS_STRING(data) + BATCH_HEADER
        cdef Walk walk = Walk(entry_table(run), <const char *>run_body(run), entry_count(run), body_bytes(run), 0)
        cdef Buffer out
        cdef list replies = []
        if not spans:
            self.apply(&walk, commands, NULL)
            return replies
        if sum(spans) != commands:
            raise ValueError(f"{sum(spans)} commands are waited for, of {commands} in the batch")
        buffer_init(&out)
        try:
            for span in spans:
                out.size = 0
                self.apply(&walk, span, &out)
                replies.append(PyBytes_FromStringAndSize(<const char *>out.data, out.size))
        finally:
            buffer_free(&out)
        return replies

    cdef int apply(self, Walk *walk, int64_t commands, Buffer *out) except -1:
        """Run the next `commands` commands; without `out` nobody wants their replies."""
        cdef uint32_t first, end
        while commands:
            first = walk.i
            end = first + 1
            while end < walk.n and walk.table[end].flags & CONT:
                end += 1
            self.command(walk, first, end, out)
            walk.i = end
            commands -= 1
        return 0

    cdef int command(self, const Walk *walk, uint32_t first, uint32_t end, Buffer *out) except -1:
        cdef uint8_t op = walk.table[first].op
        cdef Part at = part(walk, first)
        if op == GET:
            return self.get_string(at, out)
        if op == SET:
            return self.set(at, walk.table[first].flags, out)
        if op == INCRBY:
            return self.incrby(at, out)
        if op == SETNX:
            return self.setnx(at, out)
        if op == DEL:
            return self.delete(walk, first, end, out)
        if op == EXISTS:
            return self.exists(walk, first, end, out)
        if op == APPEND:
            return self.append(at, out)
        if op == STRLEN:
            return self.strlen(at, out)
        if op == MGET:
            return self.mget(walk, first, end, out)
        if op == MSET:
            return self.mset(walk, first, end, out)
        return say_bytes(out, self.pure.apply(command_of(walk, first, end)))

    cdef inline int put(self, bytes key, bytes value) except -1:
        """As `Store.put`."""
        PyDict_SetItem(self.values, key, value)
        return self.touch(key) if PyDict_Size(self.marks) else 0

    cdef int touch(self, bytes key) except -1:
        self.pure.store.touch(key)
        return 0

    cdef inline int get_string(self, Part at, Buffer *out) except -1:
        cdef PyObject *value = PyDict_GetItemWithError(self.values, key_of(at))
        return say_bytes(out, WRONG_TYPE) if wrong_type(value) else say_bulk(out, value)

    cdef int set(self, Part at, uint8_t flags, Buffer *out) except -1:
        cdef bytes key = key_of(at)
        cdef PyObject *before
        if not flags & (SET_NX | SET_XX | SET_GET):
            self.put(key, payload_of(at))
            return say(out, b"+OK\r\n", 5)
        before = PyDict_GetItemWithError(self.values, key)
        cdef bint refused = (flags & SET_NX and before != NULL) or (flags & SET_XX and before == NULL)
        if flags & SET_GET:
            if wrong_type(before):
                return say_bytes(out, WRONG_TYPE)
            say_bulk(out, before)
        else:
            say_bulk(out, NULL) if refused else say(out, b"+OK\r\n", 5)
        if not refused:
            self.put(key, payload_of(at))
        return 0

    cdef int setnx(self, Part at, Buffer *out) except -1:
        cdef bytes key = key_of(at)
        if PyDict_Contains(self.values, key):
            return say_number(out, c":", 0)
        self.put(key, payload_of(at))
        return say_number(out, c":", 1)

    cdef int delete(self, const Walk *walk, uint32_t first, uint32_t end, Buffer *out) except -1:
        cdef int64_t count = 0
        cdef bytes key
        for i in range(first, end):
            key = key_of(part(walk, i))
            if PyDict_Contains(self.values, key):
                PyDict_DelItem(self.values, key)
                self.pure.store.dropped(key)
                count += 1
        return say_number(out, c":", count)

    cdef int exists(self, const Walk *walk, uint32_t first, uint32_t end, Buffer *out) except -1:
        cdef int64_t count = 0
        for i in range(first, end):
            count += PyDict_Contains(self.values, key_of(part(walk, i)))
        return say_number(out, c":", count)

    cdef int incrby(self, Part at, Buffer *out) except -1:
        cdef bytes key = key_of(at)
        cdef PyObject *before = PyDict_GetItemWithError(self.values, key)
        cdef int64_t value = 0, increment, after
        cdef char digits[DIGITS]
        if wrong_type(before):
            return say_bytes(out, WRONG_TYPE)
        if before != NULL and not parse_i64(PyBytes_AS_STRING(<bytes>before), PyBytes_GET_SIZE(<bytes>before), &value):
            return say_bytes(out, NOT_AN_INTEGER)
        if at.payload_bytes != sizeof(increment):
            return say_bytes(out, NOT_AN_INTEGER)
        memcpy(&increment, at.payload, sizeof(increment))
        after = <int64_t>(<uint64_t>value + <uint64_t>increment)
        if (value < 0) == (increment < 0) and (after < 0) != (value < 0):
            return say_bytes(out, OVERFLOW)
        self.put(key, PyBytes_FromStringAndSize(digits, write_i64(digits, after)))
        return say_number(out, c":", after)

    cdef int append(self, Part at, Buffer *out) except -1:
        cdef bytes key = key_of(at), value
        cdef PyObject *before = PyDict_GetItemWithError(self.values, key)
        cdef Py_ssize_t size = 0
        if wrong_type(before):
            return say_bytes(out, WRONG_TYPE)
        if before != NULL:
            size = PyBytes_GET_SIZE(<bytes>before)
        if size + at.payload_bytes > MAX_VALUE_BYTES:
            return say_bytes(out, TOO_LONG)
        value = PyBytes_FromStringAndSize(NULL, size + at.payload_bytes)
        if before != NULL:
            memcpy(PyBytes_AS_STRING(value), PyBytes_AS_STRING(<bytes>before), size)
        memcpy(PyBytes_AS_STRING(value) + size, at.payload, at.payload_bytes)
        self.put(key, value)
        return say_number(out, c":", size + at.payload_bytes)

    cdef int strlen(self, Part at, Buffer *out) except -1:
        cdef PyObject *value = PyDict_GetItemWithError(self.values, key_of(at))
        if wrong_type(value):
            return say_bytes(out, WRONG_TYPE)
        return say_number(out, c":", 0 if value == NULL else PyBytes_GET_SIZE(<bytes>value))

    cdef int mget(self, const Walk *walk, uint32_t first, uint32_t end, Buffer *out) except -1:
        cdef PyObject *value
        say_number(out, c"*", end - first)
        for i in range(first, end):
            value = PyDict_GetItemWithError(self.values, key_of(part(walk, i)))
            say_bulk(out, NULL if wrong_type(value) else value)
        return 0

    cdef int mset(self, const Walk *walk, uint32_t first, uint32_t end, Buffer *out) except -1:
        cdef Part at
        for i in range(first, end):
            at = part(walk, i)
            self.put(key_of(at), payload_of(at))
        return say(out, b"+OK\r\n", 5)
