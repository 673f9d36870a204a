"""The key-value machine: typed values under keys, with the replies of Redis byte for byte.

A command has an entry for every key; the operation is that of its first entry. The frequent operations on strings are
here, in the pure twin of `ext/kv.pyx`; all others are functions in the modules beside this one, and `OPERATIONS` says
which. The compiled twin runs those through this one. Everything is a function of the commands alone, also what is wrong
with them: an operation nobody knows is answered with an error, the same at every replica.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from epaxos import replies
from epaxos.accel import choose
from epaxos.command import HEADER, OPTION_1, OPTION_2, OPTION_3, Batch, Command
from epaxos.machines import hashes, keys, lists, operations, sets, strings, transactions
from epaxos.machines.interface import BatchMachine
from epaxos.machines.numbers import I64_MAX, I64_MIN, parse_i64
from epaxos.machines.operations import ANY, Operation
from epaxos.machines.saved import digest_chunks, load_records, records, save_records
from epaxos.machines.store import MAX_VALUE_BYTES, Refusal, Store
from epaxos.packing import decode_run


class Op(enum.IntEnum):
    """Operation codes. They stand in every log: a code is never changed and never used again."""

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
    MSETNX = 0x0B
    GETDEL = 0x0C
    SETRANGE = 0x0D
    GETRANGE = 0x0E
    INCRBYFLOAT = 0x0F

    TYPE = 0x10
    RENAME = 0x11
    RENAMENX = 0x12
    DBSIZE = 0x13
    SCAN = 0x14
    KEYS = 0x15
    RANDOMKEY = 0x16
    FLUSH = 0x17

    HSET = 0x20
    HMSET = 0x21
    HSETNX = 0x22
    HGET = 0x23
    HMGET = 0x24
    HGETALL = 0x25
    HKEYS = 0x26
    HVALS = 0x27
    HLEN = 0x28
    HEXISTS = 0x29
    HSTRLEN = 0x2A
    HDEL = 0x2B
    HINCRBY = 0x2C
    HSCAN = 0x2D

    SADD = 0x30
    SREM = 0x31
    SISMEMBER = 0x32
    SMISMEMBER = 0x33
    SMEMBERS = 0x34
    SCARD = 0x35
    SPOP = 0x36
    SSCAN = 0x37

    LPUSH = 0x40
    RPUSH = 0x41
    LPUSHX = 0x42
    RPUSHX = 0x43
    LPOP = 0x44
    RPOP = 0x45
    LLEN = 0x46
    LRANGE = 0x47
    LINDEX = 0x48
    LSET = 0x49
    LTRIM = 0x4A

    EXEC = 0x50
    WATCH = 0x51
    UNWATCH = 0x52
    SAY = 0x53


SET_NX: Final = OPTION_1
"""SET only if there is no value yet."""
SET_XX: Final = OPTION_2
"""SET only if there is a value already."""
SET_GET: Final = OPTION_3
"""SET answers with the value before."""

INCREMENT: Final = struct.Struct("<q")
"""The payload of INCRBY."""

NOT_AN_INTEGER: Final = replies.error(b"ERR " + operations.NOT_AN_INTEGER)
OVERFLOW: Final = replies.error(b"ERR " + operations.OVERFLOW)
TOO_LONG: Final = replies.error(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)")

OPERATIONS: Final[dict[int, Operation]] = {
    Op.GETDEL: Operation(strings.getdel),
    Op.SETRANGE: Operation(strings.setrange, 2),
    Op.GETRANGE: Operation(strings.getrange, 2),
    Op.INCRBYFLOAT: Operation(strings.incrbyfloat, 1),
    Op.TYPE: Operation(keys.type_),
    Op.RENAME: Operation(keys.rename, keys=2),
    Op.RENAMENX: Operation(keys.renamenx, keys=2),
    Op.DBSIZE: Operation(keys.dbsize),
    Op.SCAN: Operation(keys.scan, -2),
    Op.KEYS: Operation(keys.keys, 1),
    Op.RANDOMKEY: Operation(keys.randomkey),
    Op.FLUSH: Operation(keys.flush, -1),
    Op.HSET: Operation(hashes.hset, -3),
    Op.HMSET: Operation(hashes.hmset, -3),
    Op.HSETNX: Operation(hashes.hsetnx, 2),
    Op.HGET: Operation(hashes.hget, 1),
    Op.HMGET: Operation(hashes.hmget, -2),
    Op.HGETALL: Operation(hashes.hgetall),
    Op.HKEYS: Operation(hashes.hkeys),
    Op.HVALS: Operation(hashes.hvals),
    Op.HLEN: Operation(hashes.hlen),
    Op.HEXISTS: Operation(hashes.hexists, 1),
    Op.HSTRLEN: Operation(hashes.hstrlen, 1),
    Op.HDEL: Operation(hashes.hdel, -2),
    Op.HINCRBY: Operation(hashes.hincrby, 2),
    Op.HSCAN: Operation(hashes.hscan, -2),
    Op.SADD: Operation(sets.sadd, -2),
    Op.SREM: Operation(sets.srem, -2),
    Op.SISMEMBER: Operation(sets.sismember, 1),
    Op.SMISMEMBER: Operation(sets.smismember, -2),
    Op.SMEMBERS: Operation(sets.smembers),
    Op.SCARD: Operation(sets.scard),
    Op.SPOP: Operation(sets.spop, -1),
    Op.SSCAN: Operation(sets.sscan, -2),
    Op.LPUSH: Operation(lists.lpush, -2),
    Op.RPUSH: Operation(lists.rpush, -2),
    Op.LPUSHX: Operation(lists.lpushx, -2),
    Op.RPUSHX: Operation(lists.rpushx, -2),
    Op.LPOP: Operation(lists.lpop, -1),
    Op.RPOP: Operation(lists.rpop, -1),
    Op.LLEN: Operation(lists.llen),
    Op.LRANGE: Operation(lists.lrange, 2),
    Op.LINDEX: Operation(lists.lindex, 1),
    Op.LSET: Operation(lists.lset, 2),
    Op.LTRIM: Operation(lists.ltrim, 2),
    Op.WATCH: Operation(transactions.watch, 1, keys=ANY),
    Op.UNWATCH: Operation(transactions.unwatch, 1, keys=ANY),
    Op.SAY: Operation(transactions.say, 1),
}
"""What runs an operation, unless it is one of the frequent ones on strings."""


def unknown_operation(op: int) -> bytes:
    """The answer to an operation that this release does not know."""
    return replies.error(b"ERR unknown operation 0x%02x" % op)


class PyKv(BatchMachine):
    """Values under keys. `apply_batch` answers in RESP2, or in RESP3 where a command says so."""

    def __init__(self) -> None:
        self.store = Store()
        """The compiled twin works on the same one."""
        self._strings: dict[int, Callable[[Command], bytes]] = {
            Op.GET: self._get,
            Op.SET: self._set,
            Op.SETNX: self._setnx,
            Op.DEL: self._del,
            Op.EXISTS: self._exists,
            Op.INCRBY: self._incrby,
            Op.APPEND: self._append,
            Op.STRLEN: self._strlen,
            Op.MGET: self._mget,
            Op.MSET: self._mset,
            Op.MSETNX: self._msetnx,
        }

    def __len__(self) -> int:
        return len(self.store.values)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key` if it is a string, without a command."""
        value = self.store.values.get(key)
        return value if isinstance(value, bytes) else None

    def apply_batch(self, batch: Batch, spans: Sequence[int]) -> list[bytes]:
        commands = decode_run(batch.data, HEADER.size)
        if not spans:
            for command in commands:
                self.apply(command)
            return []
        if sum(spans) != len(commands):
            raise ValueError(f"{sum(spans)} commands are waited for, of {len(commands)} in the batch")
        each = iter(commands)
        return [b"".join(self.apply(next(each)) for _ in range(span)) for span in spans]

    def save(self) -> Iterable[bytes]:
        """The state at this moment, also when commands are applied before the last chunk is taken."""
        return save_records(records(self.store.values, self.store.marks))

    def load(self, chunks: Iterable[bytes]) -> None:
        self.store.replace(*load_records(chunks))

    def digest(self) -> bytes:
        """16 bytes, equal for equal states."""
        return digest_chunks(self.save())

    def apply(self, command: Command) -> bytes:
        """Run one command; its reply."""
        op = command[0].op
        if operation := OPERATIONS.get(op):
            return operation(self.store, command)
        if op == Op.EXEC:
            return transactions.execute(self.store, command, self.apply, (Op.EXEC,))
        frequent = self._strings.get(op)
        if frequent is None:
            return unknown_operation(op)
        try:
            return frequent(command)
        except Refusal as refusal:
            return refusal.reply

    def _get(self, command: Command) -> bytes:
        return replies.bulk(self.store.get(command[0].key, bytes))

    def _set(self, command: Command) -> bytes:
        _, flags, key, value = command[0]
        before = self.store.get(key, bytes) if flags & SET_GET else None
        refused = bool(flags & (SET_NX if key in self.store.values else SET_XX))
        if not refused:
            self.store.put(key, value)
        if flags & SET_GET:
            return replies.bulk(before)
        return replies.NIL if refused else replies.OK

    def _setnx(self, command: Command) -> bytes:
        _, _, key, value = command[0]
        if key in self.store.values:
            return replies.integer(0)
        self.store.put(key, value)
        return replies.integer(1)

    def _del(self, command: Command) -> bytes:
        return replies.integer(sum(self.store.drop(entry.key) for entry in command))

    def _exists(self, command: Command) -> bytes:
        return replies.integer(sum(entry.key in self.store.values for entry in command))

    def _incrby(self, command: Command) -> bytes:
        _, _, key, payload = command[0]
        value = self.store.get(key, bytes)
        before = 0 if value is None else parse_i64(value)
        if before is None or len(payload) != INCREMENT.size:
            return NOT_AN_INTEGER
        after = before + int(INCREMENT.unpack(payload)[0])
        if not I64_MIN <= after <= I64_MAX:
            return OVERFLOW
        self.store.put(key, b"%d" % after)
        return replies.integer(after)

    def _append(self, command: Command) -> bytes:
        _, _, key, suffix = command[0]
        before = self.store.get(key, bytes) or b""
        if len(before) + len(suffix) > MAX_VALUE_BYTES:
            return TOO_LONG
        self.store.put(key, before + suffix)
        return replies.integer(len(before) + len(suffix))

    def _strlen(self, command: Command) -> bytes:
        return replies.integer(len(self.store.get(command[0].key, bytes) or b""))

    def _mget(self, command: Command) -> bytes:
        return replies.array(replies.bulk(self.get(entry.key)) for entry in command)

    def _mset(self, command: Command) -> bytes:
        for entry in command:
            self.store.put(entry.key, entry.payload)
        return replies.OK

    def _msetnx(self, command: Command) -> bytes:
        if any(entry.key in self.store.values for entry in command):
            return replies.integer(0)
        self._mset(command)
        return replies.integer(1)


Kv = choose("kv", "Kv", PyKv)
"""The twin in use."""
BatchMachine.register(Kv)
