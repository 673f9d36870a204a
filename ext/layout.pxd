"""The layout of runs and batches (epaxos/command.py) for compiled code: read in place, never unpacked.

Everything here is inline. `framed` is the one gate: pointers into a run come from it, after it has found the lengths
right. It says nothing about the entries: what has not been through `check_run` needs its offsets bounded before use.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "packed buffers are little-endian and are read in place: this machine uses the pure Python twins"
    #endif
    #if defined(__GNUC__) || defined(__clang__)
    #define EPAXOS_PREFETCH(address) __builtin_prefetch((const void *)(address), 1, 3)
    #else
    #define EPAXOS_PREFETCH(address) ((void)0)
    #endif
    """
    void prefetch "EPAXOS_PREFETCH"(const void *address) noexcept nogil


cdef packed struct Entry:
    uint64_t key_hash
    uint32_t offset
    uint16_t key_bytes
    uint8_t op
    uint8_t flags


cdef enum:
    BATCH_HEADER = 24
    RUN_HEADER = 8
    ENTRY = 16

    READ = 0x01
    CONT = 0x02
    WHOLE = 0x04
    RESERVED = 0x08
    SESSION_OPEN_OP = 0xFD
    BARRIER_OP = 0xFF

    MAX_KEY_BYTES = 0xFFFF
    MAX_ENTRIES = 1 << 16
    MAX_RUN_BYTES = 1 << 26


cdef inline uint32_t load_u32(const unsigned char *p) noexcept nogil:
    """A little-endian u32 at any alignment."""
    cdef uint32_t value
    memcpy(&value, p, 4)
    return value


cdef inline void store_u32(unsigned char *p, uint32_t value) noexcept nogil:
    memcpy(p, &value, 4)


cdef inline uint32_t entry_count(const unsigned char *run) noexcept nogil:
    """How many entries the run has."""
    return load_u32(run)


cdef inline uint32_t body_bytes(const unsigned char *run) noexcept nogil:
    """How long its body is."""
    return load_u32(run + 4)


cdef inline const Entry *entry_table(const unsigned char *run) noexcept nogil:
    """Its entries."""
    return <const Entry *>(run + RUN_HEADER)


cdef inline const unsigned char *run_body(const unsigned char *run) noexcept nogil:
    """Where the offsets of its entries are counted from."""
    return run + RUN_HEADER + <size_t>load_u32(run) * ENTRY


cdef inline uint32_t entry_end(const Entry *table, uint32_t i, uint32_t n, uint32_t body) noexcept nogil:
    """Where the payload of entry `i` of `n` ends, as an offset into the body."""
    return table[i + 1].offset if i + 1 < n else body


cdef inline bint frame(const unsigned char *run, int64_t size) noexcept nogil:
    """Do these `size` bytes have the lengths, within the limits, of one run? Says nothing about its entries."""
    if size < RUN_HEADER or size > MAX_RUN_BYTES:
        return False
    cdef int64_t n = load_u32(run)
    return 1 <= n <= MAX_ENTRIES and size == RUN_HEADER + n * ENTRY + <int64_t>load_u32(run + 4)


cdef inline const unsigned char *framed(bytes run, Py_ssize_t at) except NULL:
    """Where the run begins that fills `run` from `at` to its end; ProtocolError when it does not."""
    if run is None:
        raise TypeError("a run is bytes")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(run)
    cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(run)
    if at < 0 or at > size or not frame(start + at, size - at):
        explain(run, at)
    return start + at


cdef inline int explain(bytes run, Py_ssize_t at) except -1:
    """Raise the ProtocolError that names the fault: the pure twin has the words, the compiled one the speed."""
    from epaxos.errors import ProtocolError
    from epaxos.packing import py_check_run

    py_check_run(run, at)
    raise ProtocolError("an unsound run")


cdef inline uint64_t mixed(uint64_t key_hash) noexcept nogil:
    """A hash whose top bits may index a table, also when the hashes are not as random as they should be. Top bits,
    so that a table of twice the size holds its entries in the same order."""
    return key_hash * <uint64_t>0x9E3779B97F4A7C15
