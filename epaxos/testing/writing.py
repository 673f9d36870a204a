"""Write a scenario file from events that something else found: counterexamples of the model, tapes of the simulator.

The events are those of `events.py`. They are played while they are written, so that the file can call every id by the
name that its command got and say what comes of each. A message may be delivered as often as the events say; whoever
found them need not tell first arrivals from repeated ones.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from epaxos.command import READ, Command
from epaxos.ids import ReplicaId
from epaxos.messages import Message
from epaxos.packing import decode_run, encode_run
from epaxos.testing.byhand import SECRET
from epaxos.testing.events import (
    Act,
    Cancel,
    Crash,
    Deliver,
    Drop,
    Event,
    HoldDisk,
    HoldTurns,
    LinkDown,
    LinkUp,
    Measure,
    Restart,
    Submit,
    Sync,
    Turn,
    Wake,
)
from epaxos.testing.narrator import Narrator
from epaxos.testing.reading import ScenarioError, has_words, parsed
from epaxos.testing.scenario import QUIET, Block
from epaxos.testing.vocabulary import USUAL, act, begin
from epaxos.testing.words import LETTERS, command_text

_NAMES: Final = "xyzwvutsr"


def write_scenario(
    n: int,
    events: Sequence[Event],
    *,
    story: str,
    protocol: str = "epaxos",
    settings: Mapping[str, Any] | None = None,
) -> str:
    """The file of these events among `n` replicas, with what comes of each, and in the end whether they agree.

    `story` becomes the comment at its head; `settings` are further ones of `ByHand`. Where an event cannot be replayed
    (a model may be freer than an engine), the file says so in its place and ends there. Raises ScenarioError for a
    cluster that cannot be.
    """
    opening = _cluster_line(n, protocol, settings or {})
    writer = _Writer(begin(opening.split()), [*(f"# {line}".rstrip() for line in story.splitlines()), opening])
    try:
        for at, event in enumerate(events):
            writer.write(event, events[at + 1 :])
        for view in ("history", "agreement"):
            writer.line(view)
    except ScenarioError as error:
        writer.tell([f"does not replay: {error}"])
    return "\n\n".join(block.text() for block in writer.blocks) + "\n"


def _cluster_line(n: int, protocol: str, settings: Mapping[str, Any]) -> str:
    """As short as it can be: what is as it is without saying is not said."""
    words = [f"cluster {n}"]
    if protocol != "epaxos":
        words.append(f"protocol={protocol}")
    for key, usual in USUAL.items():
        value = settings.get(key, usual)
        if value == usual:
            continue
        if key == "retry_us":
            words.append(f"retry={_time(value)}")
        elif key == "preferred":
            words.append(f"preferred={LETTERS[value]}")
        elif key == "eager":
            words.append(key)
        else:
            words.append(f"{key}={value}")
    return " ".join(words)


class _Writer:
    """The blocks so far. Commands that tell nothing stand in one block with the next one that does."""

    def __init__(self, told: Narrator, head: list[str]) -> None:
        self._told = told
        self._names: dict[int, str] = {}
        self._open = False
        self.blocks = [Block(head=head, commands=[(0, [])], expected=[QUIET])]

    def write(self, event: Event, later: Sequence[Event]) -> None:
        """What is written for an event. Raises ScenarioError when it cannot be."""
        for line in self._lines(event, later):
            self.line(line)

    def line(self, text: str) -> None:
        """A command. Raises ScenarioError when it cannot be carried out."""
        if not self._open:
            self.blocks.append(Block())
        block, self._open = self.blocks[-1], True
        block.head.append(text)
        block.commands.append((0, []))
        block.expected = [QUIET]
        lines = act(self._told, shlex.split(text))
        if lines:
            self.tell(lines)

    def tell(self, lines: list[str]) -> None:
        """What has come of the commands of a block, which ends it."""
        self.blocks[-1].expected = lines
        self._open = False

    def _lines(self, event: Event, later: Sequence[Event]) -> Iterator[str]:
        match event:
            case Submit():
                yield self._submit(event)
            case Cancel(site, number):
                yield f"cancel {LETTERS[site]} {self._names[number]}"
            case Deliver(source, target, message):
                words = self._message(source, target, message)
                if event in later:
                    yield f"dup {words}"
                yield f"deliver {words} once"
            case Drop(source, target, message):
                yield f"drop {self._message(source, target, message)} once"
            case Turn():
                yield self._turn(event)
            case Wake(site, timer):
                yield f"wake {LETTERS[site]} {self._told.words.timer(timer)}"
            case Act(verb, site, id_):
                yield f"{verb} {LETTERS[site]} {self._told.words.id(id_)}"
            case _:
                yield _of_a_site(event)

    def _submit(self, event: Submit) -> str:
        known = len(self._names)
        name = self._names[event.number] = _NAMES[known] if known < len(_NAMES) else f"i{known}"
        words = ["submit", LETTERS[event.site], name]
        if event.stream is not None:
            words.append(f"stream={event.stream}")
        if event.timeout_us is not None:
            words.append(f"timeout={_time(event.timeout_us)}")
        return " ".join([*words, _command(event.run)])

    def _turn(self, event: Turn) -> str:
        site, after_us, timers = event
        set_there = [timer for _, timer in self._told.cluster.sites[site].engine.timers() if timer in timers]
        words = ", ".join(map(self._told.words.timer, set_there))
        return " ".join(["turn", LETTERS[site], *([_time(after_us)] if after_us else []), *([words] if words else [])])

    def _message(self, source: ReplicaId, target: ReplicaId, message: Message) -> str:
        """As few words as pick this message of those under way on its link, else all of them."""
        whole = self._told.words.message(message)
        flights = self._told.cluster.pick(source=source, target=target)
        there = [self._told.words.message(flight.message) for flight in flights]
        words = whole.split()
        for few in (words[:1], words[:2]):
            if next((text for text in there if has_words(text, few)), None) == whole:
                words = few
                break
        return f"{LETTERS[source]}->{LETTERS[target]} {_quoted(words)}"


def _of_a_site(event: HoldDisk | HoldTurns | Sync | Crash | Restart | LinkUp | LinkDown | Measure) -> str:
    """What is written of an event that needs no names."""
    site = LETTERS[event.site]
    match event:
        case HoldDisk():
            return f"hold-disk {site}"
        case HoldTurns():
            return f"hold-turns {site}"
        case Sync(_, groups):
            return f"sync {site} groups={groups}"
        case Crash(_, keep):
            return f"crash {site}{f' keep={keep}' if keep else ''}"
        case Restart(_, alone):
            return f"restart {site}{' alone' if alone else ''}"
        case LinkUp(_, peer):
            return f"link-up {site}->{LETTERS[peer]}"
        case LinkDown(_, peer):
            return f"link-down {site}->{LETTERS[peer]}"
        case Measure(_, peer, rtt_us):
            return f"rtt {site}->{LETTERS[peer]} {_time(rtt_us)}"


def _command(run: bytes) -> str:
    """As people type it where that is the same command, else the bytes."""
    commands = decode_run(run)
    text = command_text(commands[0])
    if len(commands) == 1 and encode_run(SECRET, [_untagged(commands[0])]) == _typed(text):
        return text
    return f"run={run.hex()}"


def _untagged(command: Command) -> Command:
    """What a read carries is ignored; the simulator makes reads unique by it."""
    return tuple(entry._replace(payload=b"") if entry.flags & READ else entry for entry in command)


def _typed(text: str) -> bytes | None:
    try:
        return encode_run(SECRET, [parsed(shlex.split(text))])
    except ScenarioError:
        return None


def _time(us: int) -> str:
    for unit, size in (("s", 1_000_000), ("ms", 1_000)):
        if us % size == 0:
            return f"{us // size}{unit}"
    return f"{us}us"


def _quoted(words: Iterable[str]) -> str:
    return " ".join(word if set(word) <= _PLAIN else shlex.quote(word) for word in words)


_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=.,{}()_-:;")
