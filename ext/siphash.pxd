"""SipHash-2-4 (Aumasson and Bernstein, 2012) for compiled code: the keyed hash of every key."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef inline uint64_t rotate(uint64_t x, int bits) noexcept nogil:
    return x << bits | x >> (64 - bits)


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[0] = rotate(v[0], 32)
    v[2] += v[3]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[2] = rotate(v[2], 32)


cdef inline uint64_t siphash(const unsigned char *secret, const unsigned char *key, size_t size) noexcept nogil:
    """The hash of `size` bytes at `key` under the 16 bytes at `secret`."""
    cdef uint64_t v[4]
    cdef uint64_t k[2]
    cdef uint64_t word
    cdef size_t i, _i
    memcpy(k, secret, 16)
    v[0] = k[0] ^ <uint64_t>0x736F6D6570736575
    v[1] = k[1] ^ <uint64_t>0x646F72616E646F6D
    v[2] = k[0] ^ <uint64_t>0x6C7967656E657261
    v[3] = k[1] ^ <uint64_t>0x7465646279746573
    for i in range(size // 8):
        memcpy(&word, key + 8 * i, 8)
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
    word = 0
    memcpy(&word, key + (size & ~<size_t>7), size & 7)
    word |= <uint64_t>size << 56
    v[3] ^= word
    sip_round(v)
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xFF
    for _i in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
