"""64-bit integers in their one canonical decimal form, for compiled code: no sign `+`, no space, no leading zero."""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t


cdef enum:
    DIGITS = 20


cdef inline bint parse_i64(const char *text, Py_ssize_t size, int64_t *value) noexcept nogil:
    """Is this text a canonical 64-bit integer? Then it is in `value`."""
    cdef bint negative = size > 0 and text[0] == c"-"
    cdef Py_ssize_t at = negative
    cdef uint64_t total = 0
    if size == at or size - at > 19 or (text[at] == c"0" and size > 1):
        return False
    while at < size:
        if not c"0" <= text[at] <= c"9":
            return False
        total = 10 * total + <uint64_t>(text[at] - c"0")
        at += 1
    if total > <uint64_t>INT64_MAX + negative:
        return False
    value[0] = <int64_t>(0 - total if negative else total)
    return True


cdef inline int write_i64(char *text, int64_t value) noexcept nogil:
    """Write the integer, at most `DIGITS` characters; how many they are."""
    cdef char reversed_[DIGITS]
    cdef uint64_t rest = 0 - <uint64_t>value if value < 0 else <uint64_t>value
    cdef int count = 0, size = 0
    while True:
        reversed_[count] = <char>(c"0" + rest % 10)
        count += 1
        rest //= 10
        if not rest:
            break
    if value < 0:
        text[0] = c"-"
        size = 1
    while count:
        count -= 1
        text[size] = reversed_[count]
        size += 1
    return size
