# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/gateway/resp.py`; what each refusal means is said there.

Plain commands (by `Shape` in the table of commands) are packed from where they stand: in the bytes that came, or in
those that are held. Everything else, and everything that is wrong, is handed to the Python functions that the pure twin
uses.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memmove

from buffer cimport Buffer, buffer_append, buffer_extend, buffer_free, buffer_init
from digits cimport parse_i64
from layout cimport CONT, ENTRY, MAX_ENTRIES, RUN_HEADER, Entry, store_u32
from siphash cimport siphash

from epaxos.gateway import commands, resp as pure
from epaxos.gateway.inline import split_inline
from epaxos.gateway.items import Run
from epaxos.gateway.table import TABLE

cdef enum:
    LINE_BYTES = 64 * 1024
    MAX_ARGS = 0x7FFFFFFF
    STRANGER_WORDS = 10
    STRANGER_BULK_BYTES = 16 * 1024
    SHORT_LINE_BYTES = 8

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


cdef struct Place:
    # Where a word stands behind the beginning of what has not been consumed.
    Py_ssize_t at
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
    """The compiled twin of `epaxos.gateway.resp.PyParser`."""

    cdef bytes secret_bytes
    cdef const unsigned char *secret
    cdef Buffer buffer
    cdef Py_ssize_t at
    cdef Py_ssize_t looked
    cdef Buffer places
    cdef int64_t announced
    cdef bint begun

    # During one call of `feed`: what there is, where the command at hand begins in it, and what is allowed.
    cdef const unsigned char *start
    cdef Py_ssize_t size
    cdef Py_ssize_t begin
    cdef object limits
    cdef int64_t key_limit
    cdef int64_t value_limit
    cdef int64_t bulk_limit
    cdef int64_t command_limit
    cdef int64_t run_limit
    cdef int64_t run_commands
    cdef bint stranger
    cdef list items
    cdef Buffer words
    cdef Buffer table
    cdef Buffer body
    cdef int64_t commands
    cdef bint paused

    def __cinit__(self):
        buffer_init(&self.buffer)
        buffer_init(&self.places)
        buffer_init(&self.words)
        buffer_init(&self.table)
        buffer_init(&self.body)

    def __init__(self, bytes secret not None):
        """See `PyParser.__init__`."""
        if PyBytes_GET_SIZE(secret) != 16:
            raise ValueError(f"the secret has {PyBytes_GET_SIZE(secret)} bytes, not 16")
        self.secret_bytes = secret
        self.secret = <const unsigned char *>PyBytes_AS_STRING(secret)

    def __dealloc__(self):
        buffer_free(&self.buffer)
        buffer_free(&self.places)
        self.forget()

    @property
    def held(self):
        """See `PyParser.held`."""
        return self.buffer.size

    def feed(self, bytes data not None, limits):
        """See `PyParser.feed`."""
        cdef bint direct = self.buffer.size == 0
        if not direct:
            buffer_append(&self.buffer, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.start = <const unsigned char *>PyBytes_AS_STRING(data) if direct else self.buffer.data
        self.size = PyBytes_GET_SIZE(data) if direct else <Py_ssize_t>self.buffer.size
        self.begin = 0
        self.limit(limits)
        self.items = []
        try:
            self.run()
            self.hold(direct)
            return self.items
        finally:
            self.items = None
            self.forget()

    cdef int limit(self, limits) except -1:
        """What is allowed in this call."""
        if limits is self.limits:
            return 0
        self.limits = limits
        self.key_limit = limits.key_bytes
        self.value_limit = limits.value_bytes
        self.run_limit = limits.run_bytes
        self.run_commands = limits.run_commands
        self.stranger = limits.stranger
        self.bulk_limit = pure.bulk_bytes(limits)
        self.command_limit = pure.command_bytes(limits)
        return 0

    cdef int hold(self, bint direct) except -1:
        """Keep what was not consumed; without any, not even room for it."""
        cdef Py_ssize_t left = self.size - self.begin
        if direct:
            buffer_append(&self.buffer, self.start + self.begin, left)
        elif self.begin:
            memmove(self.buffer.data, self.buffer.data + self.begin, left)
            self.buffer.size = left
        if not left:
            buffer_free(&self.buffer)
            buffer_free(&self.places)
        self.at -= self.begin
        self.looked -= self.begin
        return 0

    cdef void forget(self) noexcept:
        """Give the memory back that one call needs."""
        buffer_free(&self.words)
        buffer_free(&self.table)
        buffer_free(&self.body)
        self.commands = 0

    cdef int run(self) except -1:
        """Parse until the end, a partial command, or a breach of the protocol."""
        cdef int step = DONE
        self.paused = False
        while step == DONE and self.begin < self.size and not self.paused:
            step = self.multibulk() if self.start[self.begin] == c"*" else self.inline()
        return self.flush()

    cdef int wrong(self, item) except -1:
        """The client broke the protocol: this is the last item."""
        self.flush()
        self.items.append(item)
        return WRONG

    cdef void consumed(self, Py_ssize_t at) noexcept:
        """The command at hand ended there."""
        self.begin = self.at = at
        self.begun = False
        self.places.size = 0

    cdef Py_ssize_t end_of_line(self, char mark) noexcept:
        """Where the line at hand ends; negative when that is not there yet."""
        cdef Py_ssize_t limit = min(self.size, self.at + LINE_BYTES + 1), first = max(self.at, self.looked)
        cdef const unsigned char *end = NULL
        cdef Py_ssize_t near = min(limit, first + SHORT_LINE_BYTES)
        while first < near:
            if self.start[first] == <unsigned char>mark:
                self.looked = first
                return first
            first += 1
        if first < limit:
            end = <const unsigned char *>memchr(self.start + first, mark, limit - first)
        self.looked = limit if end == NULL else end - self.start
        return -1 if end == NULL else self.looked

    cdef int inline(self) except -1:
        cdef Py_ssize_t end = self.end_of_line(c"\n"), size
        if end < 0:
            if self.size - self.at > LINE_BYTES:
                return self.wrong(pure.broken(b"too big inline request"))
            return MORE
        size = end - self.at
        if size and self.start[end - 1] == c"\r":
            size -= 1
        words = split_inline(PyBytes_FromStringAndSize(<const char *>self.start + self.at, size))
        if words is None:
            return self.wrong(pure.broken(b"unbalanced quotes in request"))
        self.consumed(end + 1)
        if words:
            self.plan(words)
        return DONE

    cdef int multibulk(self) except -1:
        cdef Py_ssize_t next_
        cdef int64_t size = 0
        cdef Place *place
        cdef int step
        if not self.begun:
            step = self.length(&next_, &self.announced, b"too big mbulk count string", b"invalid multibulk length")
            if step != DONE:
                return step
            if self.announced > MAX_ARGS:
                return self.wrong(pure.broken(b"invalid multibulk length"))
            if self.stranger and self.announced > STRANGER_WORDS:
                return self.wrong(pure.broken(b"unauthenticated multibulk length"))
            self.at = next_
            self.begun = True
        while <int64_t>(self.places.size // sizeof(Place)) < self.announced:
            step = self.length(&next_, &size, b"too big bulk count string", b"invalid bulk length")
            if step != DONE:
                return step
            if size < 0 or size > self.bulk_limit:
                return self.wrong(pure.broken(b"invalid bulk length"))
            if self.stranger and size > STRANGER_BULK_BYTES:
                return self.wrong(pure.broken(b"unauthenticated bulk length"))
            if next_ + size + 2 - self.begin > self.command_limit:
                return self.wrong(pure.oversized(self.limits))
            if next_ + size + 2 > self.size:
                return MORE
            place = <Place *>buffer_extend(&self.places, sizeof(Place))
            place.at = next_ - self.begin
            place.size = size
            self.at = next_ + size + 2
        self.command()
        return DONE

    cdef int length(self, Py_ssize_t *next_, int64_t *value, bytes too_big, bytes invalid) except -1:
        """The length in the line at hand: of the array, or of a bulk string (then its first byte is checked)."""
        cdef Py_ssize_t end = self.end_of_line(c"\r")
        cdef const unsigned char *line = self.start + self.at
        if end < 0:
            if self.size - self.at > LINE_BYTES:
                return self.wrong(pure.broken(too_big))
            return MORE
        if end + 2 > self.size:
            return MORE
        if self.begun and line[0] != c"$":
            return self.wrong(pure.broken(b"expected '$', got '%c'" % line[0]))
        if not parse_i64(<const char *>line + 1, end - self.at - 1, value):
            return self.wrong(pure.broken(invalid))
        next_[0] = end + 2
        return DONE

    # ------------------------------------------------------------------------------------------------------ commands

    cdef int command(self) except -1:
        """The command at hand is complete."""
        cdef Py_ssize_t count = self.places.size // sizeof(Place), i
        cdef const Place *places = <const Place *>self.places.data
        cdef const unsigned char *base = self.start + self.begin
        cdef Word *words
        cdef const Spec *spec
        self.consumed(self.at)
        if count == 0:
            return 0
        self.words.size = 0
        words = <Word *>buffer_extend(&self.words, count * sizeof(Word))
        for i in range(count):
            words[i] = Word(base + places[i].at, places[i].size)
        spec = find(words, count)
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
            self.paused = pure.halts(outcome)
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
