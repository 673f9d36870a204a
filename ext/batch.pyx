# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `epaxos/packing.py`; what each function means is said there."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layout cimport (
    BARRIER_OP,
    BATCH_HEADER,
    CONT,
    ENTRY,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_RUN_BYTES,
    READ,
    RESERVED,
    RUN_HEADER,
    SESSION_OPEN_OP,
    WHOLE,
    Entry,
    body_bytes,
    entry_count,
    entry_end,
    entry_table,
    explain,
    framed,
    mixed,
    run_body,
    store_u32,
)
from siphash cimport siphash

from epaxos.command import Batch, Entry as CommandEntry
from epaxos.errors import ProtocolError, Rejected


# ---------------------------------------------------------------------------------------------------------- checking


cdef int64_t sound(const unsigned char *run) noexcept nogil:
    """The number of commands of a framed run, or -1 when its entries are not sound."""
    cdef uint32_t n = entry_count(run), i
    cdef const Entry *table = entry_table(run)
    cdef int64_t commands = 0, key_end = 0
    cdef unsigned int wrong = table[0].offset != 0
    wrong |= table[0].flags & CONT
    for i in range(n):
        wrong |= table[i].offset < key_end
        wrong |= table[i].flags & RESERVED
        wrong |= (table[i].flags & WHOLE) != 0 and table[i].key_bytes != 0
        wrong |= table[i].op == BARRIER_OP and (n != 1 or table[i].flags != WHOLE)
        key_end = <int64_t>table[i].offset + table[i].key_bytes
        commands += not table[i].flags & CONT
    return -1 if wrong or key_end > body_bytes(run) else commands


cdef int64_t checked(bytes run, Py_ssize_t at) except -1:
    cdef int64_t commands = sound(framed(run, at))
    if commands < 0:
        explain(run, at)
    return commands


def check_run(bytes run not None, Py_ssize_t at=0):
    """See `packing.py_check_run`."""
    return checked(run, at)


def check_batch(bytes data not None):
    """See `packing.py_check_batch`."""
    batch = Batch(data)
    cdef int64_t commands = checked(data, BATCH_HEADER)
    if batch.engine_entries != engine_entries(framed(data, BATCH_HEADER)):
        raise ProtocolError(f"the header announces {batch.engine_entries} engine entries, and the run has others")
    return commands


# ------------------------------------------------------------------------------------------- packing and unpacking


cdef const unsigned char *secret_bytes(bytes secret) except NULL:
    if PyBytes_GET_SIZE(secret) != 16:
        raise ValueError(f"the secret has {PyBytes_GET_SIZE(secret)} bytes, not 16")
    return <const unsigned char *>PyBytes_AS_STRING(secret)


def key_hash(bytes secret not None, bytes key not None):
    """See `packing.py_key_hash`."""
    return siphash(secret_bytes(secret), <const unsigned char *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


cdef list flatten(commands, bytearray conts):
    """The entries of `commands`; `conts` receives the codec's own flag of each."""
    cdef list flat = []
    cdef tuple command
    for command in commands:
        if not command:
            raise Rejected("malformed", "a command without entries")
        flat.extend(command)
        conts.append(0)
        if len(command) > 1:
            conts.extend(bytes((CONT,)) * (len(command) - 1))
    if not flat:
        raise Rejected("malformed", "a run without commands")
    if len(flat) > MAX_ENTRIES:
        raise Rejected("too_large", f"{len(flat)} entries; at most {MAX_ENTRIES} are allowed")
    return flat


cdef int64_t admit(list flat) except -1:
    """How long the body of these entries is; Rejected when one of them, or the whole, cannot be packed."""
    cdef int64_t size = 0, limit = MAX_RUN_BYTES - RUN_HEADER - ENTRY * <int64_t>len(flat)
    cdef int64_t op, flags
    cdef bytes key, payload
    for entry in flat:
        op, flags, key, payload = entry
        if key is None or payload is None:
            raise TypeError("keys and payloads are bytes")
        if (
            op < 0
            or op >= BARRIER_OP
            or flags < 0
            or flags > 0xFF
            or flags & (CONT | RESERVED)
            or (flags & WHOLE and PyBytes_GET_SIZE(key))
        ):
            refuse(entry, len(flat) == 1)
        if PyBytes_GET_SIZE(key) > MAX_KEY_BYTES:
            raise Rejected(
                "too_large", f"a key of {PyBytes_GET_SIZE(key)} bytes; at most {MAX_KEY_BYTES} are allowed"
            )
        size += PyBytes_GET_SIZE(key) + PyBytes_GET_SIZE(payload)
        if size > limit:
            raise Rejected("too_large", f"the run is longer than the {MAX_RUN_BYTES} bytes allowed")
    return size


cdef int refuse(entry, bint alone) except -1:
    """Raise what the pure twin says against `entry`; it is silent about a Barrier that stands alone."""
    from epaxos.packing import entry_fault

    fault = entry_fault(entry, alone)
    if fault:
        raise Rejected("malformed", fault)
    return 0


def encode_run(bytes secret not None, commands):
    """See `packing.py_encode_run`."""
    cdef const unsigned char *keyed = secret_bytes(secret)
    cdef bytearray conts = bytearray()
    cdef list flat = flatten(commands, conts)
    cdef int64_t size = admit(flat)
    cdef uint32_t n = <uint32_t>len(flat), i, offset = 0
    cdef bytes run = PyBytes_FromStringAndSize(NULL, RUN_HEADER + <Py_ssize_t>n * ENTRY + size)
    cdef unsigned char *start = <unsigned char *>PyBytes_AS_STRING(run)
    cdef unsigned char *body = start + RUN_HEADER + <Py_ssize_t>n * ENTRY
    cdef Entry *table = <Entry *>(start + RUN_HEADER)
    cdef bytes key, payload
    cdef int op, flags
    cdef const unsigned char *cont = <const unsigned char *>PyByteArray_AS_STRING(conts)
    store_u32(start, n)
    store_u32(start + 4, <uint32_t>size)
    for i in range(n):
        op, flags, key, payload = flat[i]
        memcpy(body + offset, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        table[i].op = <uint8_t>op
        table[i].flags = <uint8_t>flags | cont[i]
        table[i].offset = offset
        table[i].key_bytes = <uint16_t>PyBytes_GET_SIZE(key)
        table[i].key_hash = 0 if table[i].flags & WHOLE else siphash(keyed, body + offset, PyBytes_GET_SIZE(key))
        offset += <uint32_t>PyBytes_GET_SIZE(key)
        memcpy(body + offset, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        offset += <uint32_t>PyBytes_GET_SIZE(payload)
    return run


def decode_run(bytes run not None, Py_ssize_t at=0):
    """See `packing.py_decode_run`."""
    checked(run, at)
    cdef const unsigned char *start = framed(run, at)
    cdef uint32_t n = entry_count(start), i, key_end, end
    cdef const Entry *table = entry_table(start)
    cdef const char *body = <const char *>run_body(start)
    cdef list commands = [], command = []
    for i in range(n):
        key_end = table[i].offset + table[i].key_bytes
        end = entry_end(table, i, n, body_bytes(start))
        if i and not table[i].flags & CONT:
            commands.append(tuple(command))
            command = []
        key = PyBytes_FromStringAndSize(body + table[i].offset, table[i].key_bytes)
        payload = PyBytes_FromStringAndSize(body + key_end, end - key_end)
        command.append(CommandEntry(table[i].op, table[i].flags & ~CONT, key, payload))
    commands.append(tuple(command))
    return commands


# ---------------------------------------------------------------------------------------------- merging and cutting


def merge_runs(runs):
    """See `packing.py_merge_runs`."""
    cdef Py_ssize_t count = len(runs)
    if count == 1:
        return runs[0]
    if not count:
        raise ValueError("no run to merge")
    cdef int64_t n = 0, size = 0
    cdef const unsigned char *source
    cdef bytes run
    for run in runs:
        source = framed(run, 0)
        n += entry_count(source)
        size += body_bytes(source)
    if n > MAX_ENTRIES or RUN_HEADER + n * ENTRY + size > MAX_RUN_BYTES:
        raise Rejected("too_large", f"{n} entries and a body of {size} bytes in one run")
    cdef bytes merged = PyBytes_FromStringAndSize(NULL, RUN_HEADER + n * ENTRY + size)
    cdef unsigned char *start = <unsigned char *>PyBytes_AS_STRING(merged)
    cdef Entry *table = <Entry *>(start + RUN_HEADER)
    cdef uint32_t base = 0
    store_u32(start, <uint32_t>n)
    store_u32(start + 4, <uint32_t>size)
    for run in runs:
        source = <const unsigned char *>PyBytes_AS_STRING(run)
        if copy_table(table, source, base):
            raise ValueError("a Barrier stands alone in its run")
        memcpy(start + RUN_HEADER + n * ENTRY + base, run_body(source), body_bytes(source))
        table += entry_count(source)
        base += body_bytes(source)
    return merged


cdef bint copy_table(Entry *target, const unsigned char *run, uint32_t base) noexcept nogil:
    """Copy the entries of `run` with `base` added to their offsets; is there a Barrier among them?"""
    cdef uint32_t n = entry_count(run), i
    cdef bint barrier = False
    memcpy(target, entry_table(run), <size_t>n * ENTRY)
    for i in range(n):
        target[i].offset += base
        barrier |= target[i].op == BARRIER_OP
    return barrier


cdef uint32_t skip_commands(const Entry *table, uint32_t i, uint32_t n, int64_t count) noexcept nogil:
    """The entry where the command `count` commands behind the one that begins at `i` begins; n for the end of the
    last command, n + 1 when there are not so many."""
    while count and i < n:
        i += 1
        while i < n and table[i].flags & CONT:
            i += 1
        count -= 1
    return n + 1 if count else i


def cut_run(bytes run not None, int64_t first, int64_t count, Py_ssize_t at=0):
    """See `packing.py_cut_run`."""
    cdef const unsigned char *source = framed(run, at)
    cdef uint32_t n = entry_count(source), low = n, high = n + 1, i
    cdef const Entry *table = entry_table(source)
    if first >= 0 and count >= 1:
        low = skip_commands(table, 0, n, first)
        if low < n:
            high = skip_commands(table, low, n, count)
    if high > n:
        raise ValueError(f"commands {first} to {first + count - 1} of a run of {commands_in(source)}")
    cdef int64_t base = table[low].offset, end = entry_end(table, high - 1, n, body_bytes(source))
    if not base <= end <= body_bytes(source):
        explain(run, at)
    cdef int64_t head = RUN_HEADER + <int64_t>(high - low) * ENTRY
    cdef bytes piece = PyBytes_FromStringAndSize(NULL, head + end - base)
    cdef unsigned char *start = <unsigned char *>PyBytes_AS_STRING(piece)
    cdef Entry *target = <Entry *>(start + RUN_HEADER)
    store_u32(start, high - low)
    store_u32(start + 4, <uint32_t>(end - base))
    memcpy(target, table + low, <size_t>(high - low) * ENTRY)
    for i in range(high - low):
        target[i].offset -= <uint32_t>base
    memcpy(start + head, run_body(source) + base, end - base)
    return piece


# ----------------------------------------------------------------------------------------------------------- looking


cdef uint32_t commands_in(const unsigned char *run) noexcept nogil:
    """How many commands a framed run holds: its first entry begins one, whatever its flags say."""
    cdef uint32_t n = entry_count(run), i, count = 1
    cdef const Entry *table = entry_table(run)
    for i in range(1, n):
        count += not table[i].flags & CONT
    return count


def count_commands(bytes run not None, Py_ssize_t at=0):
    """See `packing.py_count_commands`."""
    return commands_in(framed(run, at))


cdef int64_t engine_entries(const unsigned char *run) noexcept nogil:
    """How many entries have one of the engine's own operations."""
    cdef uint32_t n = entry_count(run), i
    cdef const Entry *table = entry_table(run)
    cdef int64_t found = 0
    for i in range(n):
        found += table[i].op >= SESSION_OPEN_OP
    return found


def count_engine_entries(bytes run not None, Py_ssize_t at=0):
    """See `packing.py_count_engine_entries`."""
    return engine_entries(framed(run, at))


def read_mask(bytes run not None, Py_ssize_t at=0):
    """See `packing.py_read_mask`."""
    cdef const unsigned char *start = framed(run, at)
    cdef uint32_t n = entry_count(start), i
    cdef const Entry *table = entry_table(start)
    cdef bytes mask = PyBytes_FromStringAndSize(NULL, commands_in(start))
    cdef unsigned char *write = <unsigned char *>PyBytes_AS_STRING(mask)
    write[0] = table[0].flags & READ
    for i in range(1, n):
        if table[i].flags & CONT:
            write[0] &= table[i].flags & READ
        else:
            write += 1
            write[0] = table[i].flags & READ
    return mask


def count_touching(bytes run not None, uint64_t key_hash, Py_ssize_t at=0):
    """See `packing.py_count_touching`."""
    cdef const unsigned char *start = framed(run, at)
    cdef uint32_t n = entry_count(start), i, count = 0
    cdef const Entry *table = entry_table(start)
    cdef bint counted = False
    for i in range(n):
        counted = counted and (table[i].flags & CONT) != 0
        if not counted and ((table[i].flags & WHOLE) != 0 or table[i].key_hash == key_hash):
            count += 1
            counted = True
    return count


cdef struct Touch:
    bint writes
    bint whole_reads
    bint whole_writes


cdef Touch touch(const unsigned char *run) noexcept nogil:
    """What a run touches beyond single keys."""
    cdef uint32_t n = entry_count(run), i
    cdef const Entry *table = entry_table(run)
    cdef Touch found = Touch(False, False, False)
    for i in range(n):
        found.writes |= not table[i].flags & READ
        found.whole_reads |= (table[i].flags & (WHOLE | READ)) == (WHOLE | READ)
        found.whole_writes |= (table[i].flags & (WHOLE | READ)) == WHOLE
    return found


cdef int meet(const unsigned char *small, const unsigned char *large) noexcept nogil:
    """Does a key stand in both runs, not read only by both? -1 when there is no memory to find out."""
    cdef uint32_t n = entry_count(small), i
    cdef const Entry *table = entry_table(small)
    cdef int bits = 1
    while (<size_t>1 << bits) < 2 * <size_t>n:
        bits += 1
    cdef size_t mask = (<size_t>1 << bits) - 1, slot
    cdef uint64_t *keys = <uint64_t *>malloc((mask + 1) * 9)
    if keys == NULL:
        return -1
    cdef unsigned char *modes = <unsigned char *>(keys + mask + 1)
    memset(modes, 0, mask + 1)
    for i in range(n):
        if table[i].flags & WHOLE:
            continue
        slot = mixed(table[i].key_hash) >> (64 - bits)
        while modes[slot] and keys[slot] != table[i].key_hash:
            slot = (slot + 1) & mask
        keys[slot] = table[i].key_hash
        modes[slot] |= 1 if table[i].flags & READ else 2
    table = entry_table(large)
    cdef int met = 0
    for i in range(entry_count(large)):
        if table[i].flags & WHOLE:
            continue
        slot = mixed(table[i].key_hash) >> (64 - bits)
        while modes[slot] and keys[slot] != table[i].key_hash:
            slot = (slot + 1) & mask
        if modes[slot] > (table[i].flags & READ):  # a write meets any mode, a read any but 1
            met = 1
            break
    free(keys)
    return met


def conflicting(bytes a not None, bytes b not None, Py_ssize_t at_a=0, Py_ssize_t at_b=0):
    """See `packing.py_conflicting`."""
    cdef const unsigned char *one = framed(a, at_a)
    cdef const unsigned char *two = framed(b, at_b)
    cdef Touch mine = touch(one), theirs = touch(two)
    if mine.whole_writes or theirs.whole_writes:
        return True
    if not mine.writes and not theirs.writes:
        return False
    if (mine.whole_reads and theirs.writes) or (theirs.whole_reads and mine.writes):
        return True
    cdef int met = meet(one, two) if entry_count(one) <= entry_count(two) else meet(two, one)
    if met < 0:
        raise MemoryError
    return met == 1
