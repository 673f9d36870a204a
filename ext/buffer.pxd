"""A growing buffer of bytes for compiled code."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef struct Buffer:
    unsigned char *data
    size_t size
    size_t room


cdef inline void buffer_init(Buffer *buffer) noexcept nogil:
    """Empty, without memory."""
    buffer.data = NULL
    buffer.size = buffer.room = 0


cdef inline void buffer_free(Buffer *buffer) noexcept nogil:
    """Give the memory back; the buffer is as after `buffer_init`."""
    free(buffer.data)
    buffer_init(buffer)


cdef inline unsigned char *buffer_extend(Buffer *buffer, size_t count) except NULL:
    """Make the buffer `count` bytes longer; where they begin."""
    cdef size_t room = buffer.room or 512
    cdef unsigned char *data
    if buffer.data == NULL or buffer.size + count > buffer.room:
        while room < buffer.size + count:
            room *= 2
        data = <unsigned char *>realloc(buffer.data, room)
        if data == NULL:
            raise MemoryError
        buffer.data = data
        buffer.room = room
    buffer.size += count
    return buffer.data + buffer.size - count


cdef inline int buffer_append(Buffer *buffer, const void *source, size_t count) except -1:
    """Make the buffer longer by these bytes."""
    memcpy(buffer_extend(buffer, count), source, count)
    return 0
