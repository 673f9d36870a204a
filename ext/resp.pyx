# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/gateway/resp.py`; what each refusal means is said there.

Plain commands (by `Shape` in the table of commands) are packed from where they stand in the buffer. Everything else,
and everything that is wrong, is handed to the Python functions that the pure twin uses.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from buffer cimport Buffer, buffer_extend, buffer_free, buffer_init
from digits cimport parse_i64
from layout cimport CONT, ENTRY, MAX_ENTRIES, RUN_HEADER, Entry, store_u32
from siphash cimport siphash

from epaxos.gateway import commands, resp as pure
from epaxos.gateway.inline import split_inline
from epaxos.gateway.items import Parsed, Run
from epaxos.gateway.table import TABLE

cdef enum:
    LINE_BYTES = 64 * 1024
    MAX_ARGS = 0x7FFFFFFF

    KEY = 1
    KEY_VALUE = 2
    KEYS = 3
    PAIRS = 4

    MAX_SPECS = 32
    MAX_CONSTANT = 8


# ----------------------------------------------------------------------------------------- the table of plain commands


cdef struct Spec:
    uint64_t name
    Py_ssize_t name_bytes
    int shape
    uint8_t op
    uint8_t flags
    unsigned char constant[MAX_CONSTANT]
    uint32_t constant_bytes


cdef Spec specs[MAX_SPECS]
cdef int spec_count = 0


cdef inline uint64_t name_word(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Up to eight letters in lower case as one word. What is not a letter never becomes one."""
    cdef uint64_t word = 0
    memcpy(&word, name, size)
    return word | <uint64_t>0x2020202020202020


cdef int fill_specs() except -1:
    global spec_count
    cdef bytes name, constant
    for name, spec in TABLE.items():
        if spec.shape not in (KEY, KEY_VALUE, KEYS, PAIRS):
            continue
        constant = spec.payload
        if spec_count == MAX_SPECS or len(name) > 8 or len(constant) > MAX_CONSTANT:
            raise ValueError(f"the command {spec.name} does not fit the compiled table")
        specs[spec_count].name = name_word(<const unsigned char *>PyBytes_AS_STRING(name), len(name))
        specs[spec_count].name_bytes = len(name)
        specs[spec_count].shape = int(spec.shape)
        specs[spec_count].op = spec.op
        specs[spec_count].flags = spec.entry_flags
        memcpy(specs[spec_count].constant, PyBytes_AS_STRING(constant), len(constant))
        specs[spec_count].constant_bytes = len(constant)
        spec_count += 1
    return 0


fill_specs()


cdef struct Word:
    # One word of a command, in place.
    const unsigned char *at
    Py_ssize_t size


cdef const Spec *find(const Word *words, Py_ssize_t count) noexcept nogil:
    """The plain command that these words are, or NULL: then Python knows what they are."""
    cdef uint64_t name
    cdef int i
    if words[0].size > 8:
        return NULL
    name = name_word(words[0].at, words[0].size)
    for i in range(spec_count):
        if specs[i].name == name and specs[i].name_bytes == words[0].size:
            if specs[i].shape == KEY:
                return &specs[i] if count == 2 else NULL
            if specs[i].shape == KEY_VALUE:
                return &specs[i] if count == 3 else NULL
            if specs[i].shape == KEYS:
                return &specs[i] if count >= 2 else NULL
            return &specs[i] if count >= 3 and count % 2 == 1 else NULL
    return NULL


# --------------------------------------------------------------------------------------------------------- the parser


cdef enum:
    DONE
    MORE
    WRONG


cdef class Parser:
    """One call of `parse`."""

    cdef const unsigned char *start
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef object limits
    cdef const unsigned char *secret
    cdef int64_t key_limit
    cdef int64_t value_limit
    cdef int64_t bulk_limit
    cdef int64_t command_limit
    cdef int64_t run_limit
    cdef int64_t run_commands
    cdef list items
    cdef Buffer words
    cdef Buffer table
    cdef Buffer body
    cdef int64_t commands
    cdef bint paused

    def __cinit__(self):
        buffer_init(&self.words)
        buffer_init(&self.table)
        buffer_init(&self.body)

    def __dealloc__(self):
        buffer_free(&self.words)
        buffer_free(&self.table)
        buffer_free(&self.body)

    cdef int run(self) except -1:
        """Parse until the end, a partial command, or a breach of the protocol."""
        cdef int step = DONE
        while step == DONE and self.at < self.size and not self.paused:
            step = self.multibulk() if self.start[self.at] == c"*" else self.inline()
        return self.flush()

    cdef int wrong(self, item) except -1:
        """The client broke the protocol: this is the last item."""
        self.flush()
        self.items.append(item)
        return WRONG

    cdef int inline(self) except -1:
        cdef const unsigned char *line = self.start + self.at
        cdef Py_ssize_t room = min(self.size - self.at, LINE_BYTES + 1)
        cdef const unsigned char *end = <const unsigned char *>memchr(line, c"\n", room)
        cdef Py_ssize_t size
        if end == NULL:
            if self.size - self.at > LINE_BYTES:
                return self.wrong(pure.broken(b"too big inline request"))
            return MORE
        size = end - line
        if size and line[size - 1] == c"\r":
            size -= 1
        words = split_inline(PyBytes_FromStringAndSize(<const char *>line, size))
        if words is None:
            return self.wrong(pure.broken(b"unbalanced quotes in request"))
        self.at += end - line + 1
        if words:
            self.plan(words)
        return DONE

    cdef int multibulk(self) except -1:
        cdef Py_ssize_t begin = self.at, at = self.at, next_
        cdef int64_t count = 0, size = 0
        cdef Word *word
        cdef int step = self.length(at, &next_, &count, b"too big mbulk count string", b"invalid multibulk length")
        if step != DONE:
            return step
        if count > MAX_ARGS:
            return self.wrong(pure.broken(b"invalid multibulk length"))
        at = next_
        self.words.size = 0
        for _ in range(count):
            step = self.length(at, &next_, &size, b"too big bulk count string", b"invalid bulk length")
            if step != DONE:
                return step
            if size < 0 or size > self.bulk_limit:
                return self.wrong(pure.broken(b"invalid bulk length"))
            if next_ + size + 2 - begin > self.command_limit:
                return self.wrong(pure.oversized(self.limits))
            if next_ + size + 2 > self.size:
                return MORE
            word = <Word *>buffer_extend(&self.words, sizeof(Word))
            word.at = self.start + next_
            word.size = size
            at = next_ + size + 2
        self.at = at
        if count > 0:
            self.command(<const Word *>self.words.data, count)
        return DONE

    cdef int length(
        self, Py_ssize_t at, Py_ssize_t *next_, int64_t *value, bytes too_big, bytes invalid
    ) except -1:
        """The length in the line at `at`: of the array, or of a bulk string (then its first byte is checked)."""
        cdef const unsigned char *line = self.start + at
        cdef Py_ssize_t size = 0, room = min(self.size - at, LINE_BYTES + 1)
        while size < room and line[size] != c"\r":
            size += 1
        if size == room:
            if self.size - at > LINE_BYTES:
                return self.wrong(pure.broken(too_big))
            return MORE
        if at + size + 2 > self.size:
            return MORE
        if line[0] != c"$" and at != self.at:
            return self.wrong(pure.broken(b"expected '$', got '%c'" % line[0]))
        if not parse_i64(<const char *>line + 1, size - 1, value):
            return self.wrong(pure.broken(invalid))
        next_[0] = at + size + 2
        return DONE

    # ------------------------------------------------------------------------------------------------------ commands

    cdef int command(self, const Word *words, Py_ssize_t count) except -1:
        cdef const Spec *spec = find(words, count)
        cdef Py_ssize_t i
        if spec != NULL and self.pack(spec, words + 1, count - 1):
            return 0
        self.plan([PyBytes_FromStringAndSize(<const char *>words[i].at, words[i].size) for i in range(count)])
        return 0

    cdef int plan(self, list args) except -1:
        """Have Python decide what these words are."""
        cdef object outcome = commands.plan(args, self.limits)
        cdef bytes key, payload
        cdef uint8_t cont = 0
        if type(outcome) is not tuple:
            self.flush()
            self.items.append(outcome)
            self.paused = pure.changes_dialect(outcome)
            return 0
        self.room_for(len(outcome), commands.packed_bytes(outcome))
        for op, flags, key, payload in outcome:
            self.entry(
                op,
                <uint8_t>(flags | cont),
                Word(<const unsigned char *>PyBytes_AS_STRING(key), len(key)),
                Word(<const unsigned char *>PyBytes_AS_STRING(payload), len(payload)),
            )
            cont = CONT
        return self.count()

    cdef bint pack(self, const Spec *spec, const Word *words, Py_ssize_t count) except -1:
        """Pack a plain command; False, and nothing done, when it exceeds a bound."""
        cdef bint paired = spec.shape in (KEY_VALUE, PAIRS)
        cdef Py_ssize_t entries = count // 2 if paired else count, i
        cdef int64_t size = RUN_HEADER + entries * <int64_t>ENTRY
        cdef Word constant = Word(&spec.constant[0], spec.constant_bytes)
        cdef Word key, payload = constant
        for i in range(entries):
            key = words[2 * i] if paired else words[i]
            if paired:
                payload = words[2 * i + 1]
            if key.size > self.key_limit or payload.size > self.value_limit:
                return False
            size += key.size + payload.size
        if entries > MAX_ENTRIES or size > self.run_limit:
            return False
        self.room_for(entries, size - RUN_HEADER)
        for i in range(entries):
            key = words[2 * i] if paired else words[i]
            if paired:
                payload = words[2 * i + 1]
            self.entry(spec.op, <uint8_t>(spec.flags | CONT if i else spec.flags), key, payload)
        self.count()
        return True

    # ---------------------------------------------------------------------------------------------------------- runs

    cdef int room_for(self, int64_t entries, int64_t size) except -1:
        """Close the run at hand if so many entries, of so many bytes with their bodies, would not fit it."""
        cdef int64_t held = <int64_t>(self.table.size + self.body.size)
        if RUN_HEADER + held + size > self.run_limit or <int64_t>self.table.size // ENTRY + entries > MAX_ENTRIES:
            return self.flush()
        return 0

    cdef inline int entry(self, uint8_t op, uint8_t flags, Word key, Word payload) except -1:
        cdef Entry *entry = <Entry *>buffer_extend(&self.table, ENTRY)
        entry.key_hash = siphash(self.secret, key.at, key.size)
        entry.offset = <uint32_t>self.body.size
        entry.key_bytes = <uint16_t>key.size
        entry.op = op
        entry.flags = flags
        cdef unsigned char *to = buffer_extend(&self.body, key.size + payload.size)
        memcpy(to, key.at, key.size)
        memcpy(to + key.size, payload.at, payload.size)
        return 0

    cdef inline int count(self) except -1:
        """One more command is in the run."""
        self.commands += 1
        return self.flush() if self.commands == self.run_commands else 0

    cdef int flush(self) except -1:
        """Close the run at hand."""
        if not self.commands:
            return 0
        cdef bytes run = PyBytes_FromStringAndSize(NULL, RUN_HEADER + self.table.size + self.body.size)
        cdef unsigned char *to = <unsigned char *>PyBytes_AS_STRING(run)
        store_u32(to, <uint32_t>(self.table.size // ENTRY))
        store_u32(to + 4, <uint32_t>self.body.size)
        memcpy(to + RUN_HEADER, self.table.data, self.table.size)
        memcpy(to + RUN_HEADER + self.table.size, self.body.data, self.body.size)
        self.items.append(Run(run, self.commands))
        self.table.size = self.body.size = 0
        self.commands = 0
        return 0


def parse(bytes buffer not None, bytes secret not None, limits):
    """See `resp.py_parse`."""
    cdef Parser parser = Parser()
    if PyBytes_GET_SIZE(secret) != 16:
        raise ValueError(f"the secret has {PyBytes_GET_SIZE(secret)} bytes, not 16")
    parser.start = <const unsigned char *>PyBytes_AS_STRING(buffer)
    parser.size = PyBytes_GET_SIZE(buffer)
    parser.secret = <const unsigned char *>PyBytes_AS_STRING(secret)
    parser.limits = limits
    parser.key_limit = limits.key_bytes
    parser.value_limit = limits.value_bytes
    parser.run_limit = limits.run_bytes
    parser.run_commands = limits.run_commands
    parser.bulk_limit = pure.bulk_bytes(limits)
    parser.command_limit = pure.command_bytes(limits)
    parser.items = []
    parser.run()
    return Parsed(parser.at, parser.items)
