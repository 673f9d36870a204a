"""The codec of runs: packing, checking, cutting and merging commands, and who conflicts with whom.

The format is defined in `command.py`. Every function here takes a run as `bytes`, or the data of a whole batch with
`at=HEADER.size`, so that nothing is copied only to be looked at. `py_…` are the pure Python twins; the plain names are
the twins in use (`ext/batch.pyx` when it was built).

Trust: bytes from outside go through `check_run` or `check_batch` once, on receipt. The other functions take sound runs;
they verify the frame (lengths and limits) again, because that costs nothing, and no bytes make them read or write
outside of a buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from epaxos.accel import choose
from epaxos.command import (
    BARRIER_OP,
    CONT,
    ENTRY,
    HEADER,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_RUN_BYTES,
    READ,
    RESERVED,
    RUN_HEADER,
    SESSION_OPEN_OP,
    WHOLE,
    Batch,
    Command,
    Entry,
    Footprint,
)
from epaxos.errors import ProtocolError, Rejected

SECRET_BYTES: Final = 16
"""The length of the cluster-wide secret that keys the hash, so that nobody outside can aim at a collision."""

_U64: Final = (1 << 64) - 1


# ------------------------------------------------------------------------------------------------------ the key hash


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _U64
    v1 = ((v1 << 13 | v1 >> 51) & _U64) ^ v0
    v0 = (v0 << 32 | v0 >> 32) & _U64
    v2 = (v2 + v3) & _U64
    v3 = ((v3 << 16 | v3 >> 48) & _U64) ^ v2
    v0 = (v0 + v3) & _U64
    v3 = ((v3 << 21 | v3 >> 43) & _U64) ^ v0
    v2 = (v2 + v1) & _U64
    v1 = ((v1 << 17 | v1 >> 47) & _U64) ^ v2
    v2 = (v2 << 32 | v2 >> 32) & _U64
    return v0, v1, v2, v3


def py_key_hash(secret: bytes, key: bytes) -> int:
    """SipHash-2-4 of `key` (Aumasson and Bernstein, 2012) under the 16-byte `secret`; ValueError for another length."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
    k0, k1 = int.from_bytes(secret[:8], "little"), int.from_bytes(secret[8:], "little")
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = key + bytes(7 - len(key) % 8) + bytes((len(key) & 0xFF,))
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v0, v1, v2, v3 = _sip_round(*_sip_round(v0, v1, v2, v3 ^ word))
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


# ---------------------------------------------------------------------------------------------------------- checking


def _frame(run: bytes, at: int) -> tuple[int, int]:
    """(entries, body bytes) of the run that fills `run` from `at` to its end; ProtocolError when it does not."""
    if at < 0 or len(run) - at < RUN_HEADER.size:
        raise ProtocolError(f"{len(run)} bytes hold no run at {at}")
    n, body_bytes = RUN_HEADER.unpack_from(run, at)
    if not 1 <= n <= MAX_ENTRIES:
        raise ProtocolError(f"a run of {n} entries; 1 to {MAX_ENTRIES} are allowed")
    size = RUN_HEADER.size + n * ENTRY.size + body_bytes
    if size > MAX_RUN_BYTES:
        raise ProtocolError(f"a run of {size} bytes; at most {MAX_RUN_BYTES} are allowed")
    if size != len(run) - at:
        raise ProtocolError(f"a run of {size} bytes by its header has {len(run) - at}")
    return n, body_bytes


def walk(run: bytes, at: int = 0) -> Iterator[tuple[int, int, int, int, int]]:
    """The entries as (key hash, offset, key bytes, operation, flags)."""
    n, _ = _frame(run, at)
    first = at + RUN_HEADER.size
    return ENTRY.iter_unpack(memoryview(run)[first : first + n * ENTRY.size])


def py_check_run(run: bytes, at: int = 0) -> int:
    """The number of commands of a run of any origin; ProtocolError names what is unsound. Hashes are not recomputed."""
    n, body_bytes = _frame(run, at)
    commands = 0
    key_end = 0
    for i, (_, offset, key_bytes, op, flags) in enumerate(walk(run, at)):
        if i == 0 and (offset or flags & CONT):
            raise ProtocolError(f"the first entry has offset {offset}, flags {flags:#04x}: it does not begin the run")
        if offset < key_end:
            raise ProtocolError(f"entry {i} begins at {offset}, before the key in front of it ends at {key_end}")
        if flags & RESERVED:
            raise ProtocolError(f"entry {i} has flags {flags:#04x} with the reserved bit")
        if flags & WHOLE and key_bytes:
            raise ProtocolError(f"entry {i} touches the whole state and has a key of {key_bytes} bytes")
        if op == BARRIER_OP and (n != 1 or flags != WHOLE):
            raise ProtocolError(f"entry {i} of {n} is a Barrier with flags {flags:#04x}: a Barrier stands alone")
        key_end = offset + key_bytes
        commands += not flags & CONT
    if key_end > body_bytes:
        raise ProtocolError(f"the last key ends at {key_end} in a body of {body_bytes} bytes")
    return commands


def py_check_batch(data: bytes) -> int:
    """The number of commands of a batch of any origin; ProtocolError names what is unsound."""
    batch = Batch(data)
    commands = py_check_run(data, HEADER.size)
    if batch.engine_entries != py_count_engine_entries(data, HEADER.size):
        raise ProtocolError(f"the header announces {batch.engine_entries} engine entries, and the run has others")
    return commands


# --------------------------------------------------------------------------------------------- packing and unpacking


def entry_fault(entry: Entry, alone: bool) -> str:
    """Why this entry, `alone` in its run or not, is malformed; empty when it is not. For `encode_run` of both twins."""
    if not 0 <= entry.op <= 0xFF or not 0 <= entry.flags <= 0xFF:
        return f"operation {entry.op}, flags {entry.flags}: each is one byte"
    if entry.flags & (CONT | RESERVED):
        return f"flags {entry.flags:#04x} contain a bit that is the codec's"
    if entry.flags & WHOLE and entry.key:
        return f"an entry that touches the whole state has a key of {len(entry.key)} bytes"
    if entry.op == BARRIER_OP and not (alone and entry.flags == WHOLE):
        return "a Barrier stands alone, with the flag WHOLE only"
    return ""


def _flatten(commands: Iterable[Command]) -> list[tuple[Entry, int]]:
    """The entries of `commands` with the codec's own flag of each."""
    flat: list[tuple[Entry, int]] = []
    for command in commands:
        if not command:
            raise Rejected("malformed", "a command without entries")
        flat += [(entry, CONT if i else 0) for i, entry in enumerate(command)]
    if not flat:
        raise Rejected("malformed", "a run without commands")
    if len(flat) > MAX_ENTRIES:
        raise Rejected("too_large", f"{len(flat)} entries; at most {MAX_ENTRIES} are allowed")
    return flat


def py_encode_run(secret: bytes, commands: Iterable[Command]) -> bytes:
    """Pack `commands`, hashing their keys under `secret`.

    Raises Rejected: "too_large" beyond the limits of the format, "malformed" for what it cannot say.
    """
    flat = _flatten(commands)
    table: list[bytes] = []
    body: list[bytes] = []
    offset = 0
    for entry, cont in flat:
        if fault := entry_fault(entry, len(flat) == 1):
            raise Rejected("malformed", fault)
        if len(entry.key) > MAX_KEY_BYTES:
            raise Rejected("too_large", f"a key of {len(entry.key)} bytes; at most {MAX_KEY_BYTES} are allowed")
        hash_ = 0 if entry.flags & WHOLE else py_key_hash(secret, entry.key)
        if RUN_HEADER.size + len(flat) * ENTRY.size + offset + len(entry.key) + len(entry.payload) > MAX_RUN_BYTES:
            raise Rejected("too_large", f"the run is longer than the {MAX_RUN_BYTES} bytes allowed")
        table.append(ENTRY.pack(hash_, offset, len(entry.key), entry.op, entry.flags | cont))
        body += (entry.key, entry.payload)
        offset += len(entry.key) + len(entry.payload)
    return b"".join((RUN_HEADER.pack(len(flat), offset), *table, *body))


def py_decode_run(run: bytes, at: int = 0) -> list[Command]:
    """The inverse of `encode_run`. Checks the run as `check_run` does."""
    py_check_run(run, at)
    n, _ = _frame(run, at)
    body = at + RUN_HEADER.size + n * ENTRY.size
    entries = list(walk(run, at))
    ends = [body + entry[1] for entry in entries[1:]] + [len(run)]
    commands: list[list[Entry]] = []
    for (_, offset, key_bytes, op, flags), end in zip(entries, ends, strict=True):
        start = body + offset
        entry = Entry(op, flags & ~CONT, run[start : start + key_bytes], run[start + key_bytes : end])
        if flags & CONT:
            commands[-1].append(entry)
        else:
            commands.append([entry])
    return [tuple(command) for command in commands]


def barrier_run(payload: bytes = b"") -> bytes:
    """The run of a Barrier: ordered against everything. `payload` is for the session table."""
    return RUN_HEADER.pack(1, len(payload)) + ENTRY.pack(0, 0, 0, BARRIER_OP, WHOLE) + payload


# ----------------------------------------------------------------------------------------------- merging and cutting


def py_merge_runs(runs: Sequence[bytes]) -> bytes:
    """The commands of all `runs`, in order, as one run.

    Raises ValueError when there is none or a Barrier among several, Rejected("too_large") beyond the format's limits.
    """
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise ValueError("no run to merge")
    frames = [_frame(run, 0) for run in runs]
    n, body_bytes = sum(frame[0] for frame in frames), sum(frame[1] for frame in frames)
    if n > MAX_ENTRIES or RUN_HEADER.size + n * ENTRY.size + body_bytes > MAX_RUN_BYTES:
        raise Rejected("too_large", f"{n} entries and a body of {body_bytes} bytes in one run")
    table, bodies, base = [], [], 0
    for run, (_, size) in zip(runs, frames, strict=True):
        for hash_, offset, key_bytes, op, flags in walk(run):
            if op == BARRIER_OP:
                raise ValueError("a Barrier stands alone in its run")
            table.append(ENTRY.pack(hash_, base + offset, key_bytes, op, flags))
        bodies.append(memoryview(run)[len(run) - size :])
        base += size
    return b"".join((RUN_HEADER.pack(n, body_bytes), *table, *bodies))


def py_cut_run(run: bytes, first: int, count: int, at: int = 0) -> bytes:
    """Commands first … first+count-1 as a run of their own; ValueError when they are not all there, or count is 0."""
    n, body_bytes = _frame(run, at)
    entries = list(walk(run, at))
    starts = [i for i, entry in enumerate(entries) if i == 0 or not entry[4] & CONT] + [n]
    if first < 0 or count < 1 or first + count >= len(starts):
        raise ValueError(f"commands {first} to {first + count - 1} of a run of {len(starts) - 1}")
    low, high = starts[first], starts[first + count]
    base, end = entries[low][1], entries[high][1] if high < n else body_bytes
    table = [ENTRY.pack(hash_, offset - base, *rest) for hash_, offset, *rest in entries[low:high]]
    body = at + RUN_HEADER.size + n * ENTRY.size
    return b"".join((RUN_HEADER.pack(high - low, end - base), *table, run[body + base : body + end]))


def without_engine_entries(run: bytes, keep: Sequence[bool], at: int = 0) -> bytes:
    """The commands that `keep` says (one word a command), without their engine entries; hashes stay as they are.

    Raises ValueError when nothing is left, or `keep` speaks of another number of commands.
    """
    n, body_bytes = _frame(run, at)
    body = at + RUN_HEADER.size + n * ENTRY.size
    entries = list(walk(run, at))
    ends = [entry[1] for entry in entries[1:]] + [body_bytes]
    table, parts, base, command = [], [], 0, -1
    for (hash_, offset, key_bytes, op, flags), end in zip(entries, ends, strict=True):
        command += not flags & CONT
        if command < len(keep) and keep[command] and op < SESSION_OPEN_OP:
            table.append(ENTRY.pack(hash_, base, key_bytes, op, flags))
            parts.append(run[body + offset : body + end])
            base += end - offset
    if command + 1 != len(keep) or not table:
        raise ValueError(f"{sum(keep)} of {len(keep)} commands of a run of {command + 1}")
    return b"".join((RUN_HEADER.pack(len(table), base), *table, *parts))


# ----------------------------------------------------------------------------------------------------------- looking


def py_count_commands(run: bytes, at: int = 0) -> int:
    """How many commands the run holds."""
    return sum(i == 0 or not entry[4] & CONT for i, entry in enumerate(walk(run, at)))


def py_count_engine_entries(run: bytes, at: int = 0) -> int:
    """How many entries have one of the engine's own operations."""
    return sum(op >= SESSION_OPEN_OP for _, _, _, op, _ in walk(run, at))


def py_read_mask(run: bytes, at: int = 0) -> bytes:
    """One byte a command: 1 when every entry of it only reads, else 0."""
    mask = bytearray()
    for *_, flags in walk(run, at):
        if flags & CONT and mask:
            mask[-1] &= flags & READ
        else:
            mask.append(flags & READ)
    return bytes(mask)


def py_count_touching(run: bytes, key_hash: int, at: int = 0) -> int:
    """How many commands touch the key of that hash; one that touches the whole state touches every key."""
    count, counted = 0, False
    for hash_, _, _, _, flags in walk(run, at):
        counted = counted and bool(flags & CONT)
        if not counted and (flags & WHOLE or hash_ == key_hash):
            count, counted = count + 1, True
    return count


def footprint(run: bytes, at: int = 0) -> Footprint:
    """What the run touches, unpacked."""
    keys: tuple[set[int], set[int]] = (set(), set())
    whole = [False, False]
    for hash_, _, _, _, flags in walk(run, at):
        if flags & WHOLE:
            whole[flags & READ] = True
        else:
            keys[flags & READ].add(hash_)
    return Footprint(frozenset(keys[1]), frozenset(keys[0]), whole_read=whole[1], whole_write=whole[0])


def py_conflicting(a: bytes, b: bytes, at_a: int = 0, at_b: int = 0) -> bool:
    """Do two runs conflict (protocol.md 1.2)? Equal to `Footprint.conflicts` of the two."""
    return footprint(a, at_a).conflicts(footprint(b, at_b))


key_hash = choose("batch", "key_hash", py_key_hash)
check_run = choose("batch", "check_run", py_check_run)
check_batch = choose("batch", "check_batch", py_check_batch)
encode_run = choose("batch", "encode_run", py_encode_run)
decode_run = choose("batch", "decode_run", py_decode_run)
merge_runs = choose("batch", "merge_runs", py_merge_runs)
cut_run = choose("batch", "cut_run", py_cut_run)
count_commands = choose("batch", "count_commands", py_count_commands)
count_engine_entries = choose("batch", "count_engine_entries", py_count_engine_entries)
read_mask = choose("batch", "read_mask", py_read_mask)
count_touching = choose("batch", "count_touching", py_count_touching)
conflicting = choose("batch", "conflicting", py_conflicting)
