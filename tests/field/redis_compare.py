"""The same commands to Redis and to a replica of ours, and every reply compared, byte for byte.

What may differ is listed in `DIFFERENCES`, as in docs/reference/redis-differences.md; nothing else may. Random commands
meet the first four of them only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, Self

import hiredis

from tests.field.redis_corpus import DIFFERENCES, conversations
from tests.field.redis_pair import Talk, packed
from tests.field.redis_stream import Stream, Words

_SETS: Final = frozenset({b"smembers", b"sscan"})
_HASHES: Final = frozenset({b"hgetall", b"hkeys", b"hvals", b"hscan"})
_PAGED: Final = frozenset({b"hscan", b"sscan"})
_WHOLE: Final = frozenset({b"keys", b"scan"})
_NUMBER: Final = re.compile(rb"(?<=\$2\r\nid\r\n):\d+")
_QUEUED: Final = b"+QUEUED\r\n"


class Unequal(AssertionError):
    """A reply that Redis does not give."""


class Asked(NamedTuple):
    """One command and both replies."""

    words: Words
    ours: bytes
    theirs: bytes


class Comparison:
    """Connections to both servers, and what was compared so far."""

    def __init__(self, ours: Sequence[int], theirs: int) -> None:
        self.connections = len(ours)
        self._ours = [Talk(port) for port in ours]
        self._theirs = [Talk(theirs) for _ in ours]
        self.commands = 0
        self.seen: Counter[str] = Counter()
        """How often each of `DIFFERENCES` was met."""
        self._recent: list[Asked] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for talk in (*self._ours, *self._theirs):
            talk.close()

    def differ(self, words: Words) -> bool:
        """Do both not give the same reply to this command?"""
        return self._ours[0].ask(*words) != self._theirs[0].ask(*words)

    def both(self, *words: bytes) -> tuple[Any, Any]:
        """What the replies to one command mean, not compared: ours, and Redis's."""
        return _understood(self._ours[0].ask(*words)), _understood(self._theirs[0].ask(*words))

    def ask(self, chunk: Sequence[Words], at: int = 0) -> None:
        """Pipeline these commands over connection `at` of both, and compare. Raises Unequal."""
        ours = self._ours[at]
        ours.send(b"".join(packed(*words) for words in chunk))
        answers = [ours.reply() for _ in chunk]
        theirs = self._theirs[at]
        translated = [self._translated(words, answer) for words, answer in zip(chunk, answers, strict=True)]
        theirs.send(b"".join(packed(*words) for words in translated))
        for words, told, answer in zip(chunk, translated, answers, strict=True):
            asked = Asked(words, answer, theirs.reply())
            self._recent = [*self._recent[-30:], asked]
            if told is not words:
                self._judge_spop(asked, len(told) - 2)
            else:
                self._judge(asked)
        self.commands += len(chunk)

    def greet(self, dialect: bytes, at: int) -> None:
        """HELLO: the numbers of connections are everybody's own."""
        words = (b"hello", dialect)
        asked = Asked(words, self._ours[at].ask(*words), self._theirs[at].ask(*words))
        if _NUMBER.sub(b"id", asked.ours) != _NUMBER.sub(b"id", asked.theirs):
            self._fail(asked)
        self.commands += 1

    def _translated(self, words: Words, answer: bytes) -> Words:
        """What Redis is told: to take out of a set what ours took."""
        if words[0].lower() != b"spop" or answer in (b"$-1\r\n", b"_\r\n", _QUEUED) or answer[:1] == b"-":
            return words
        gone = _understood(answer)
        members = tuple(gone) if isinstance(gone, list) else (gone,)
        return (b"srem", words[1], *members) if members else words

    def _judge_spop(self, asked: Asked, members: int) -> None:
        self.seen["spop"] += 1
        if asked.theirs != b":%d\r\n" % members:
            self._fail(asked)

    def _judge(self, asked: Asked) -> None:
        if asked.ours == asked.theirs:
            return
        name = asked.words[0].lower()
        ours, theirs = _understood(asked.ours), _understood(asked.theirs)
        if name == b"randomkey" and isinstance(ours, bytes) and isinstance(theirs, bytes):
            self.seen["order of keys"] += 1
            return
        if name == b"wait" and isinstance(ours, int) and theirs == 0:
            self.seen["wait"] += 1
            return
        if name in _PAGED and _is_first_page(ours, theirs):
            self.seen["order of members"] += 1
            return
        for names, difference in ((_SETS | _HASHES, "order of members"), (_WHOLE, "order of keys")):
            alike = name in names and asked.ours[:1] == asked.theirs[:1]
            if alike and _unordered(name, ours) == _unordered(name, theirs):
                self.seen[difference] += 1
                return
        self._fail(asked)

    def _fail(self, asked: Asked) -> None:
        story = "\n".join(f"  {each.words!r} -> {each.ours!r}" for each in self._recent[:-1])
        raise Unequal(f"{asked.words!r}\n  ours  {asked.ours!r}\n  Redis {asked.theirs!r}\nbefore:\n{story}")


def _understood(reply: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def _is_first_page(ours: object, theirs: object) -> bool:
    """Does Redis give a part of what ours gives as a whole?"""
    if not (isinstance(ours, list) and isinstance(theirs, list)):
        return False
    return ours[0] == b"0" != theirs[0] and set(theirs[1]) <= set(ours[1])


def _unordered(name: bytes, reply: object) -> object:
    """The reply with what has no order sorted."""
    if name in (b"scan", b"hscan", b"sscan") and isinstance(reply, list) and len(reply) == 2:
        return [reply[0], _unordered(b"hgetall" if name == b"hscan" else b"keys", reply[1])]
    if isinstance(reply, set):
        return sorted(reply)
    if isinstance(reply, dict):
        return sorted(reply.items())
    if isinstance(reply, list):
        if name == b"hgetall":
            return sorted(zip(reply[::2], reply[1::2], strict=True))
        return sorted(reply, key=repr)
    return reply


def run_random(comparison: Comparison, seed: int, commands: int) -> None:
    """So many random commands, in pipelines, some of them in transactions, over all connections in turn."""
    connections = comparison.connections
    stream = Stream(seed)
    rng = stream.rng
    until = comparison.commands + commands
    while comparison.commands < until:
        at = rng.randrange(connections)
        fate = rng.random()
        if fate < 0.02:
            comparison.greet(rng.choice((b"2", b"3")), at)
        elif fate < 0.03:
            comparison.ask([(b"reset",)], at)
        elif fate < 0.25:
            _transaction(comparison, stream, at, rng.randrange(connections))
        else:
            comparison.ask([stream.next() for _ in range(rng.choice((1, 5, 40, 120)))], at)


def _transaction(comparison: Comparison, stream: Stream, at: int, other: int) -> None:
    """Watching or not, with commands in between by somebody else or not."""
    rng = stream.rng
    if rng.random() < 0.6:
        comparison.ask([(b"watch", *(stream.key() for _ in range(rng.randint(1, 3))))], at)
        if rng.random() < 0.2:
            comparison.ask([(b"unwatch",)], at)
        comparison.ask([stream.next() for _ in range(rng.randint(0, 3))], at)
        if other != at:
            comparison.ask([stream.next() for _ in range(rng.randint(0, 3))], other)
    inside = [words for words in (stream.next() for _ in range(rng.randint(0, 6))) if _ordered(words)]
    if rng.random() < 0.1:
        inside.append(rng.choice([(b"multi",), (b"watch", b"s1"), (b"unwatch",), (b"get",), (b"incrby", b"n1", b"x")]))
    last: Words = (b"discard",) if rng.random() < 0.1 else (b"exec",)
    comparison.ask([(b"multi",), *inside, last], at)


def _ordered(words: Words) -> bool:
    """Can its reply be compared inside another, and may it stand in a transaction here?"""
    name = words[0].lower()
    alone = name in (b"auth", b"hello") or (name, *words[1:2]) == (b"client", b"setname")
    return name not in _SETS | _HASHES | _WHOLE | {b"spop", b"randomkey", b"wait"} and not alone


# ------------------------------------------------------------------------------------------------------- chosen cases


def run_corpus(comparison: Comparison) -> set[bytes]:
    """Every conversation of the corpus, in both dialects, the keys deleted before each; the names of its commands."""
    met: set[bytes] = set()
    for dialect in (b"2", b"3"):
        for title, lines in conversations().items():
            for at in range(comparison.connections):
                comparison.ask([(b"reset",)], at)
                comparison.greet(dialect, at)
            comparison.ask([(b"flushall",)])
            for at, chunk in groupby(map(_told, lines), lambda told: told[0]):
                commands = [words for _, words in chunk]
                met |= {words[0].lower() for words in commands}
                try:
                    comparison.ask(commands, at)
                except Unequal as error:
                    raise Unequal(f"{title}, RESP{dialect.decode()}: {error}") from None
    return met


def run_differences(comparison: Comparison) -> None:
    """The examples of every difference. Raises Unequal when one is none, or when there is another."""
    for title, lines in DIFFERENCES.items():
        comparison.ask([(b"reset",), (b"flushall",)])
        for line in lines:
            _, words = _told(line.removeprefix("! "))
            if not line.startswith("! "):
                comparison.ask([words])
            elif not comparison.differ(words):
                raise Unequal(f"{title}: {line[:200]} is answered as by Redis")


def _told(line: str) -> tuple[int, Words]:
    """(which connection, what it says) of a line of the corpus."""
    return int(line.startswith("B: ")), tuple(map(_word, line.removeprefix("B: ").split(" ")))


def _word(text: str) -> bytes:
    """A word of the corpus: `~` is the empty one."""
    return b"" if text == "~" else text.encode().decode("unicode_escape").encode("latin-1")


def run_raw(ours: int, theirs: int, said: Sequence[bytes]) -> None:
    """Bytes, commands or none, each on a connection of its own until the server closes it."""
    for data in said:
        answers = []
        for port in (ours, theirs):
            talk = Talk(port)
            talk.send(data + b"QUIT\r\n")
            answers.append(_NUMBER.sub(b"id", talk.rest()))
            talk.close()
        if answers[0] != answers[1]:
            raise Unequal(f"{data[:200]!r}\n  ours  {answers[0]!r}\n  Redis {answers[1]!r}")
