"""Random commands, mostly meaningful, some wrong in every way there is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

Words = tuple[bytes, ...]

KEYS: Final = (
    *(b"s%d" % i for i in range(5)),
    *(b"n%d" % i for i in range(3)),
    *(b"h%d" % i for i in range(4)),
    *(b"m%d" % i for i in range(4)),
    *(b"l%d" % i for i in range(4)),
    *(b"", b"\x00\r\n\xff", b"k" * 300, b"{tag}x"),
)
WORDS: Final = (
    *(b"a", b"b", b"c", b"field", b"x y", b"", b"\r\n", b"\x00\x01", bytes(range(256)), b"0", b"1", b"-1", b"007"),
    *(b"42", b"3.14", b"-0", b"1e3", b"9223372036854775807", b"-9223372036854775808", b"hello", b"w" * 70, b"*", b"$5"),
)
NUMBERS: Final = (
    *(b"0", b"1", b"-1", b"2", b"-2", b"3", b"5", b"-5", b"10", b"-100", b"100", b"9223372036854775807"),
    *(b"-9223372036854775808", b"9223372036854775808", b"x", b"", b"1.5", b" 1", b"+1", b"01", b"-0"),
)
FLOATS: Final = (
    *(
        b"1.5",
        b"-1.5",
        b"0.1",
        b"3",
        b"1e3",
        b"-2.5e-3",
        b".5",
        b"5.",
        b"1e",
        b"inf",
        b"-inf",
        b"nan",
        b"x",
        b"",
        b" 1",
    ),
    *(b"1e4000", b"1e4932", b"1e5000", b"1e-5000", b"+7", b"0.30000000000000004", b"123456789.123456789123", b"1e18"),
    *(b"-0", b"-0.0", b"1_000", b"0x", b"99999999999999999999", b"1.0000000000000000001", b"infinity", b"1e-18"),
    *(b"0x1p-3", b"-0xA.8"),
)
PATTERNS: Final = (
    *(
        b"*",
        b"s*",
        b"?1",
        b"[hm]*",
        b"[^s]?",
        b"[a-m]*",
        b"\\s1",
        b"*1",
        b"h[0-2",
        b"",
        b"**",
        b"*k*k*",
        b"[z-a]?",
        b"[]a]",
    ),
    *(b"s[\\0-9]", b"[^]", b"\\", b"a*b*c*", b"[\xff-k]*"),
)

_INFIX: Final = (b"nx", b"xx", b"GET", b"XX", b"foo", b"nx")


class Stream:
    """Commands from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self._makers: list[Callable[[], Words]] = [
            maker for maker, share in self._shares().items() for _ in range(share)
        ]

    def next(self) -> Words:
        """One more command."""
        words = self.rng.choice(self._makers)()
        fate = self.rng.random()
        if fate < 0.01:
            words = words[:-1] if len(words) > 1 else words
        elif fate < 0.02:
            words = (*words, self.word())
        elif fate < 0.025:
            words = (b"NOSUCH" + words[0], *words[1:])
        name = words[0]
        return (name.upper() if self.rng.random() < 0.5 else name, *words[1:])

    # -- words

    def key(self, kind: bytes = b"") -> bytes:
        """A key, most often one of its kind."""
        return self.rng.choice([key for key in KEYS if key.startswith(kind)] if self.rng.random() < 0.93 else KEYS)

    def word(self) -> bytes:
        """Any word."""
        return self.rng.choice(WORDS) if self.rng.random() < 0.7 else b"%d" % self.rng.randrange(-50, 200)

    def number(self) -> bytes:
        """A small integer, or now and then something else."""
        return b"%d" % self.rng.randrange(-6, 12) if self.rng.random() < 0.8 else self.rng.choice(NUMBERS)

    def _some(self, make: Callable[[], bytes], most: int = 4) -> Words:
        return tuple(make() for _ in range(self.rng.randint(1, most)))

    def _pairs(self, make: Callable[[], bytes]) -> Words:
        pairs = tuple(word for _ in range(self.rng.randint(1, 3)) for word in (make(), self.word()))
        return pairs if self.rng.random() < 0.95 else pairs[:-1]

    # -- commands

    def _shares(self) -> dict[Callable[[], Words], int]:
        return {
            self._string: 14,
            self._counter: 7,
            self._several: 6,
            self._range: 4,
            self._generic: 8,
            self._hash: 14,
            self._set: 10,
            self._list: 14,
            self._whole: 1,
            self._local: 3,
        }

    def _string(self) -> Words:
        key, name = self.key(b"s"), self.rng.choice((b"set", b"set", b"get", b"setopt", b"getset", b"getdel", b"setnx"))
        if name == b"setopt":
            return (b"set", key, self.word(), *self._some(lambda: self.rng.choice(_INFIX), 3))
        return (name, key, self.word()) if name in (b"set", b"getset", b"setnx") else (name, key)

    def _counter(self) -> Words:
        key = self.key(b"n")
        name = self.rng.choice((b"incr", b"decr", b"incrby", b"decrby", b"incrbyfloat", b"get", b"set"))
        if name in (b"incr", b"decr", b"get"):
            return (name, key)
        amount = self.rng.choice(FLOATS) if name == b"incrbyfloat" else self.number()
        return (name, key, amount)

    def _several(self) -> Words:
        name = self.rng.choice((b"mget", b"mset", b"msetnx"))
        return (name, *(self._some(self.key) if name == b"mget" else self._pairs(lambda: self.key(b"s"))))

    def _range(self) -> Words:
        key = self.key(b"s")
        name = self.rng.choice((b"append", b"strlen", b"setrange", b"getrange", b"substr"))
        if name == b"append":
            return (name, key, self.word())
        if name == b"strlen":
            return (name, key)
        if name == b"setrange":
            offset = self.number() if self.rng.random() < 0.9 else self.rng.choice((b"33554432", b"33554431"))
            return (name, key, offset, self.word() + b"zz" if offset.startswith(b"335") else self.word())
        return (name, key, self.number(), self.number())

    def _generic(self) -> Words:
        name = self.rng.choice((b"del", b"del", b"unlink", b"exists", b"touch", b"type", b"rename", b"renamenx"))
        if name == b"type":
            return (name, self.key())
        return (name, self.key(), self.key()) if name.startswith(b"rename") else (name, *self._some(self.key))

    def _hash(self) -> Words:
        key, field = self.key(b"h"), self.word()
        name = self.rng.choice(
            (
                *(b"hset", b"hset", b"hmset", b"hget", b"hmget", b"hgetall", b"hdel", b"hlen", b"hexists", b"hincrby"),
                *(b"hkeys", b"hvals", b"hsetnx", b"hstrlen", b"hscan"),
            )
        )
        if name in (b"hset", b"hmset"):
            return (name, key, *self._pairs(self.word))
        if name in (b"hgetall", b"hlen", b"hkeys", b"hvals"):
            return (name, key)
        if name in (b"hmget", b"hdel"):
            return (name, key, *self._some(self.word))
        if name == b"hincrby":
            return (name, key, field, self.number())
        if name == b"hsetnx":
            return (name, key, field, self.word())
        return (name, key, *self._scan()) if name == b"hscan" else (name, key, field)

    def _scan(self) -> Words:
        options: Words = ()
        if self.rng.random() < 0.5:
            options += (b"match", self.rng.choice(PATTERNS))
        if self.rng.random() < 0.3:
            options += (b"COUNT", self.rng.choice((b"1000", b"9999", b"0", b"-1", b"x")))
        if self.rng.random() < 0.05:
            options += (self.word(),)
        return (self.rng.choice((b"0", b"0", b"0", b"0", b"x", b"-0", b"")), *options)

    def _set(self) -> Words:
        key = self.key(b"m")
        name = self.rng.choice(
            (b"sadd", b"sadd", b"srem", b"sismember", b"smismember", b"smembers", b"scard", b"spop", b"sscan")
        )
        if name in (b"smembers", b"scard"):
            return (name, key)
        if name == b"spop":
            return (name, key) if self.rng.random() < 0.6 else (name, key, self.number())
        if name == b"sscan":
            return (name, key, *self._scan())
        return (name, key, self.word()) if name == b"sismember" else (name, key, *self._some(self.word))

    def _list(self) -> Words:
        key = self.key(b"l")
        name = self.rng.choice(
            (
                *(b"lpush", b"rpush", b"rpush", b"lpushx", b"rpushx", b"lpop", b"rpop", b"llen", b"lrange", b"lindex"),
                *(b"lset", b"ltrim"),
            )
        )
        if b"push" in name:
            return (name, key, *self._some(self.word))
        if b"pop" in name:
            return (name, key) if self.rng.random() < 0.6 else (name, key, self.number())
        if name == b"llen":
            return (name, key)
        if name == b"lindex":
            return (name, key, self.number())
        return (name, key, self.number(), self.word() if name == b"lset" else self.number())

    def _whole(self) -> Words:
        name = self.rng.choice((b"dbsize", b"keys", b"keys", b"scan", b"randomkey", b"flushall", b"flushdb"))
        if name == b"keys":
            return (name, self.rng.choice(PATTERNS))
        if name == b"scan":
            return (name, b"0", b"count", b"1000", *self._scan()[1:])
        if name.startswith(b"flush") and self.rng.random() < 0.5:
            return (name, self.rng.choice((b"async", b"SYNC", b"now")))
        return (name,)

    def _local(self) -> Words:
        return self.rng.choice(
            (
                *((b"ping",), (b"ping", self.word()), (b"echo", self.word()), (b"select", b"0"), (b"select", b"99")),
                *((b"select", b"x"), (b"wait", b"0", b"0"), (b"wait", b"x", b"1"), (b"wait", b"0", b"-1")),
                *((b"client", b"getname"), (b"client", b"setname", b"a b"), (b"client", b"setname", b"me")),
                *((b"client", b"no-evict", b"on"), (b"client", b"no-evict", b"x"), (b"client", b"nosuch")),
                *((b"auth", b"x"), (b"auth", b"default", b"x"), (b"auth", b"other", b"x"), (b"unwatch",)),
                *((b"config", b"get", b"maxmemory"), (b"latency", b"latest"), (b"latency", b"reset")),
                *((b"command", b"getkeys", b"mset", b"a", b"1", b"b", b"2"), (b"command", b"getkeys", b"ping")),
                *((b"command", b"getkeys", b"nosuch", b"a"), (b"command", b"getkeys", b"get")),
            )
        )
