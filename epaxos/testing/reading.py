"""How the words of a scenario's command are read: replicas, links, ids, durations, and which messages are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from epaxos.command import Command
from epaxos.errors import EpaxosError, ProtocolError
from epaxos.gateway.commands import plan
from epaxos.gateway.items import Foreign, Local, ParseLimits, Refused
from epaxos.ids import InstanceId, ReplicaId
from epaxos.limits import LimitsConfig
from epaxos.messages import TABLE
from epaxos.packing import check_run
from epaxos.session import SessionId
from epaxos.testing.byhand import Flight
from epaxos.testing.narrator import Narrator
from epaxos.testing.words import ID, LETTERS, NAME

_UNITS_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000}
_DURATION: Final = re.compile(r"([1-9][0-9]*)(us|ms|s)")
_LINK: Final = re.compile(r"([A-Z,]+|\*)->([A-Z,]+|\*)")
_MESSAGES: Final = {cls.__name__: cls for cls in TABLE.values()}
_DAY_US: Final = 86_400_000_000


class ScenarioError(EpaxosError):
    """A scenario file says something that means nothing, or nothing now; the message says what is allowed."""


class Words:
    """The words of one command, taken one by one."""

    def __init__(self, told: Narrator, words: Sequence[str], options: Sequence[str]) -> None:
        """`options` are the keys that may stand anywhere as `key=value`."""
        self._told = told
        self._n = told.cluster.n
        self.options: dict[str, str] = {}
        self._rest: list[str] = []
        for word in words:
            key, equals, value = word.partition("=")
            if equals and key in options:
                self.options[key] = value
            else:
                self._rest.append(word)

    def __bool__(self) -> bool:
        return bool(self._rest)

    def take(self, what: str) -> str:
        """The next word. Raises ScenarioError when there is none."""
        if not self._rest:
            raise ScenarioError(f"{what} is missing")
        return self._rest.pop(0)

    def rest(self) -> list[str]:
        """All other words."""
        words, self._rest = self._rest, []
        return words

    def flag(self, word: str) -> bool:
        """Is that word there? It is taken out."""
        found = word in self._rest
        if found:
            self._rest.remove(word)
        return found

    def end(self) -> None:
        """Raises ScenarioError when there is another word."""
        if self._rest:
            raise ScenarioError(f"{' '.join(self._rest)!r} is too much")

    # -- kinds of words

    def replicas(self, text: str | None = None) -> list[ReplicaId]:
        """Letters with commas, or * for all."""
        text = self.take("a replica") if text is None else text
        if text == "*":
            return list(range(self._n))
        letters = text.split(",")
        for letter in letters:
            if len(letter) != 1 or letter not in LETTERS[: self._n]:
                raise ScenarioError(f"{letter!r} is no replica; there are {', '.join(LETTERS[: self._n])}")
        return [LETTERS.index(letter) for letter in letters]

    def replica(self) -> ReplicaId:
        """One letter."""
        found = self.replicas()
        if len(found) != 1:
            raise ScenarioError("one replica is meant here")
        return found[0]

    def up(self) -> ReplicaId:
        """One replica that is running."""
        found = self.replica()
        if not self._told.cluster.sites[found].up:
            raise ScenarioError(f"{LETTERS[found]} is down")
        return found

    def links(self) -> list[tuple[ReplicaId, ReplicaId]]:
        """FROM->TO, each letters with commas or *."""
        word = self.take("a link, such as A->B,C")
        match = _LINK.fullmatch(word)
        if match is None:
            raise ScenarioError(f"{word!r} is no link; write A->B, A->B,C, *->A or A->*")
        return [(a, b) for a in self.replicas(match[1]) for b in self.replicas(match[2]) if a != b]

    def name(self) -> str:
        """A new name for an id."""
        word = self.take("a name")
        if NAME.fullmatch(word) is None:
            raise ScenarioError(f"{word!r} is no name; a name is a lower-case letter, then letters, digits or _")
        if word in self._told.words.names or word in self._told.submissions:
            raise ScenarioError(f"the name {word} is taken")
        return word

    def id(self) -> InstanceId:
        """A name, or a lane and a slot."""
        word = self.take("an id")
        known = self._told.words.names
        if word in known:
            return known[word]
        match = ID.fullmatch(word)
        if match is None or match[1] not in LETTERS[: self._n]:
            raise ScenarioError(f"{word!r} is no id; known are {', '.join(known) or 'none'}, others are written as A.1")
        return InstanceId(0, int(match[2]), LETTERS.index(match[1]))

    def session(self, word: str) -> tuple[SessionId, bool]:
        """A session of that name, and whether it is FIFO."""
        known = self._told.sessions
        if word not in known:
            raise ScenarioError(f"{word!r} is no session; there are: {', '.join(known) or 'none'}")
        return known[word]

    def command(self) -> Command:
        """The words of a command of the key-value machine, to the end."""
        return parsed(self.rest())

    def next_is_duration(self) -> bool:
        """Is the next word one?"""
        return bool(self._rest) and _DURATION.fullmatch(self._rest[0]) is not None

    def timers(self) -> list[list[str]]:
        """The words of some timers with commas between them, to the end."""
        return [words.split() for words in " ".join(self.rest()).split(",") if words.strip()]


def parsed(words: Sequence[str]) -> Command:
    """A command of the key-value machine, as people type it."""
    if not words:
        raise ScenarioError("a command is missing, such as SET k 1")
    found = plan([word.encode() for word in words], ParseLimits.of(LimitsConfig()))
    if isinstance(found, Refused):
        raise ScenarioError(found.reply.decode().strip().lstrip("-"))
    if isinstance(found, Local | Foreign):
        raise ScenarioError(f"{words[0]} is answered by the replica at hand, and nothing is replicated")
    return found


def run_of(text: str) -> bytes:
    """A run in hexadecimal digits."""
    try:
        run = bytes.fromhex(text)
        check_run(run)
    except (ValueError, ProtocolError) as error:
        raise ScenarioError(f"run={text} is no run: {error}") from None
    return run


def duration_us(text: str) -> int:
    """A number and its unit."""
    match = _DURATION.fullmatch(text)
    us = 0 if match is None else int(match[1]) * _UNITS_US[match[2]]
    if not 0 < us <= _DAY_US:
        raise ScenarioError(f"{text!r} is no duration up to a day; write 50us, 200ms or 5s")
    return us


def number(key: str, text: str, low: int, high: int) -> int:
    """The number that an option has."""
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ScenarioError(f"{key}={text} is not from {low} to {high}")
    return int(text)


def fitting(told: Narrator, words: Words, *, once: bool = False) -> list[Flight]:
    """The messages under way that a link and further words name: FROM->TO [KIND [WORD…]].

    Each further word must stand in the message as `flights` shows it. With `once`, the oldest of every link.
    """
    links = words.links()
    wanted = words.rest()
    if wanted and wanted[0] != "*" and wanted[0] not in _MESSAGES:
        raise ScenarioError(f"{wanted[0]!r} is no message; there are {', '.join(_MESSAGES)}")
    if wanted[:1] == ["*"]:
        del wanted[0]
    found = [
        flight
        for flight in told.cluster.flights
        if (flight.source, flight.target) in links and has_words(told.words.message(flight.message), wanted)
    ]
    if not once:
        return found
    oldest: dict[tuple[ReplicaId, ReplicaId], Flight] = {}
    for flight in found:
        oldest.setdefault((flight.source, flight.target), flight)
    return list(oldest.values())


def has_words(message: str, wanted: Sequence[str]) -> bool:
    """Does each word stand in a message, as it is shown, as often as it is wanted?"""
    words = message.split()
    return all(wanted.count(word) <= words.count(word) for word in wanted)


def under_way(told: Narrator, words: Words, *, once: bool = False) -> list[Flight]:
    """As `fitting`. Raises ScenarioError when there is none."""
    found = fitting(told, words, once=once)
    if not found:
        there = "; ".join(told.messages(told.cluster.flights))
        raise ScenarioError(f"no such message is under way; there are: {there or 'none'}")
    return found
