"""The commands of scenario files and what each means.

A command acts on a `Narrator` and returns what it has to tell, a line each. Whatever is wrong with its words is a
`ScenarioError` that says what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from epaxos.command import Command
from epaxos.errors import Rejected
from epaxos.ids import ReplicaId
from epaxos.packing import encode_run
from epaxos.protocols.interface import PeerDown, PeerUp, Protocol, Rtt, Timer
from epaxos.protocols.registry import PROTOCOLS
from epaxos.quorums import MAX_REPLICAS
from epaxos.session import Ended, Stamp, end_run, open_run, stamped
from epaxos.submission import Limits
from epaxos.testing import agreement
from epaxos.testing.byhand import FOREVER_US, RETRY_US, SECRET, Flight
from epaxos.testing.narrator import NOTHING, Narrator
from epaxos.testing.reading import ScenarioError, Words, duration_us, fitting, number, run_of, under_way
from epaxos.testing.words import LETTERS

# ---------------------------------------------------------------------------------------------------------- commands


def _option(words: Words, key: str, low: int, high: int, default: int) -> int:
    """The number of an option, or what it is without."""
    return number(key, words.options[key], low, high) if key in words.options else default


def _submit(told: Narrator, words: Words) -> Iterator[str]:
    site, name = words.up(), words.name()
    stream = _option(words, "stream", 0, 1 << 32, len(told.submissions) + 1)
    timeout_us = duration_us(words.options["timeout"]) if "timeout" in words.options else FOREVER_US
    run = run_of(words.options["run"]) if "run" in words.options else encode_run(SECRET, [_command(told, words)])
    yield from _handed_in(told, site, name, lambda: told.submit(site, name, run, stream=stream, timeout_us=timeout_us))


def _command(told: Narrator, words: Words) -> Command:
    command = words.command()
    return _of_session(told, words, command) if "session" in words.options else command


def _cancel(told: Narrator, words: Words) -> Iterator[str]:
    site, name = words.up(), words.take("the name of a command")
    submission = told.submissions.get(name)
    if submission is None or submission.site != site:
        known = ", ".join(each.name for each in told.submissions.values() if each.site == site)
        raise ScenarioError(f"no command {name!r} was handed in at {LETTERS[site]}; there are: {known or 'none'}")
    yield from told.event(lambda: told.cluster.cancel(site, submission.waiter))


def _handed_in(told: Narrator, site: ReplicaId, name: str, act: Callable[[], None]) -> list[str]:
    return told.event(act) or [f"{LETTERS[site]}  {name} waits for its turn"]


def _of_session(told: Narrator, words: Words, command: Command) -> Command:
    session, fifo = words.session(words.options["session"])
    number = _option(words, "number", 1, 1 << 32, 1)
    floor = _option(words, "floor", 0, number - 1, number - 1)
    try:
        return stamped(command, Stamp(session, number, floor, fifo))
    except Rejected as error:
        raise ScenarioError(str(error)) from None


def _open(told: Narrator, words: Words) -> Iterator[str]:
    site, name, fifo = words.up(), words.name(), words.flag("fifo")
    session = told.cluster.sites[site].engine.new_session()
    told.sessions[name] = session, fifo
    run, stream = open_run(SECRET, session, fifo=fifo), len(told.submissions) + 1
    yield from _handed_in(told, site, name, lambda: told.submit(site, name, run, stream=stream))


def _end(told: Narrator, words: Words) -> Iterator[str]:
    site, name = words.up(), words.name()
    session, _ = words.session(words.take("a session"))
    run, stream = end_run([Ended(session, None)]), len(told.submissions) + 1
    yield from _handed_in(told, site, name, lambda: told.submit(site, name, run, stream=stream))


def _deliver(told: Narrator, words: Words) -> Iterator[str]:
    once, perhaps = words.flag("once"), words.flag("if-any")
    found = (fitting if perhaps else under_way)(told, words, once=once)
    for flight in found:
        yield from _arrives(told, flight)
    if not found:
        yield "no such message is under way"


def _arrives(told: Narrator, flight: Flight) -> Iterator[str]:
    """Nothing comes of it when its target is down."""
    if flight not in told.cluster.flights:
        return
    if not told.cluster.sites[flight.target].up:
        yield f"{LETTERS[flight.target]}  is down: the message is lost"
    yield from told.event(partial(told.cluster.deliver, flight))


def _there_and_back(told: Narrator, flight: Flight) -> Iterator[str]:
    """A message arrives, and the answers that come of it."""
    known = set(told.cluster.flights)
    yield from _arrives(told, flight)
    for answer in told.cluster.pick(source=flight.target, target=flight.source):
        if answer not in known:
            yield from _arrives(told, answer)


def _exchange(told: Narrator, words: Words) -> Iterator[str]:
    for flight in under_way(told, words):
        yield from _there_and_back(told, flight)


def _drop(told: Narrator, words: Words) -> Iterator[str]:
    once = words.flag("once")
    lost = fitting(told, words, once=once)
    for flight in lost:
        told.cluster.flights.remove(flight)
    return told.messages(lost, "lost: ")


def _dup(told: Narrator, words: Words) -> Iterator[str]:
    twice = [Flight(each.source, each.target, each.message) for each in under_way(told, words, once=True)]
    told.cluster.flights += twice
    return told.messages(twice, "twice: ")


def _settle(told: Narrator, words: Words) -> Iterator[str]:
    yield from told.event(told.cluster.settle, brief=True)


def _heal(told: Narrator, words: Words) -> Iterator[str]:
    us = duration_us(words.take("a duration, such as 200ms"))
    yield from told.event(lambda: told.cluster.heal(us), brief=True)


def _wait(told: Narrator, words: Words) -> Iterator[str]:
    us = duration_us(words.take("a duration, such as 200ms"))
    yield from told.event(lambda: told.cluster.wait(us))


def _wake(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    timer = _timer(told, site, words.rest())
    yield from told.event(lambda: told.cluster.wake(site, timer))


def _timer(told: Narrator, site: ReplicaId, wanted: list[str]) -> Timer:
    timers = [timer for _, timer in told.cluster.sites[site].engine.timers()]
    fits = [timer for timer in timers if told.words.timer(timer).split()[: len(wanted)] == wanted]
    if not fits:
        raise ScenarioError(f"no such timer is set; there are: {', '.join(map(told.words.timer, timers)) or 'none'}")
    return fits[0]


def _hold_turns(told: Narrator, words: Words) -> Iterator[str]:
    told.cluster.hold_turns.update(words.replicas())
    return iter(())


def _release_turns(told: Narrator, words: Words) -> Iterator[str]:
    for site in words.replicas():
        told.cluster.hold_turns.discard(site)
        if told.cluster.sites[site].up:
            yield from told.event(partial(told.cluster.take, site))


def _turn(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    after_us = duration_us(words.take("a duration")) if words.next_is_duration() else 0
    timers = [_timer(told, site, each) for each in words.timers()]
    yield from told.event(lambda: told.cluster.take(site, after_us, timers))


def _hold_disk(told: Narrator, words: Words) -> Iterator[str]:
    told.cluster.hold_disk.update(words.replicas())
    return iter(())


def _release_disk(told: Narrator, words: Words) -> Iterator[str]:
    for site in words.replicas():
        told.cluster.hold_disk.discard(site)
        yield from told.event(partial(told.cluster.sync, site))


def _sync(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    waiting = told.cluster.sites[site].disk.unsynced
    if not waiting:
        raise ScenarioError(f"the disk of {LETTERS[site]} has nothing to sync")
    groups = _option(words, "groups", 1, len(waiting), len(waiting))
    yield from told.event(lambda: told.cluster.sync(site, waiting[groups - 1]))


def _crash(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    unsynced = len(told.cluster.sites[site].disk.unsynced)
    keep = _option(words, "keep", 0, unsynced, 0)
    yield f"{LETTERS[site]}  is down; of {unsynced} unsynced writes, {keep} had reached the disk"
    yield from told.event(lambda: told.cluster.crash(site, keep, lose=False))


def _restart(told: Narrator, words: Words) -> Iterator[str]:
    site, alone = words.replica(), words.flag("alone")
    if told.cluster.sites[site].up:
        raise ScenarioError(f"{LETTERS[site]} is up")
    yield from told.event(lambda: told.cluster.restart(site, alone=alone))


def _link_down(told: Narrator, words: Words) -> Iterator[str]:
    for site, peer in words.links():
        if told.cluster.sites[site].up:
            yield from told.event(partial(told.cluster.turn, site, PeerDown(peer=peer)))


def _link_up(told: Narrator, words: Words) -> Iterator[str]:
    for site, peer in words.links():
        if told.cluster.sites[site].up:
            yield from told.event(partial(told.cluster.turn, site, PeerUp(peer=peer)))


def _rtt(told: Narrator, words: Words) -> Iterator[str]:
    links, us = words.links(), duration_us(words.take("a duration, such as 200ms"))
    for site, peer in links:
        yield from told.event(partial(told.cluster.turn, site, Rtt(peer=peer, rtt_us=us)))


def _name(told: Narrator, words: Words) -> Iterator[str]:
    id_ = words.id()
    name = words.name()
    told.words.give(name, id_)
    yield f"{name} is {LETTERS[id_.lane]}.{id_.slot}"


# -- views


def _state(told: Narrator, words: Words) -> Iterator[str]:
    about = words.rest()
    for i, site in enumerate(told.cluster.sites):
        rows = [row for row in told.rows(i) if not about or row.about in about]
        if not site.up:
            yield f"{LETTERS[i]}  is down"
        for row in rows:
            yield f"{LETTERS[i]}  {row.about}: {row.text}"
        if not rows and site.up:
            yield f"{LETTERS[i]}  {NOTHING}"


def _disk(told: Narrator, words: Words) -> Iterator[str]:
    site = words.replica()
    unsynced = len(told.cluster.sites[site].disk.unsynced)
    rows = told.stored(site)
    for row in rows:
        yield f"{LETTERS[site]}  {row.about}: {row.text}"
    if not rows:
        yield f"{LETTERS[site]}  {NOTHING}"
    if unsynced:
        yield f"{LETTERS[site]}  has {unsynced} unsynced writes"


def _flights(told: Narrator, words: Words) -> Iterator[str]:
    return told.messages(told.cluster.flights)


def _timers(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    for at_us, timer in told.cluster.sites[site].engine.timers():
        in_ms = (at_us - told.cluster.clock_us(site)) / 1_000
        yield f"{LETTERS[site]}  {told.words.timer(timer)} in {in_ms:g} ms"


def _log(told: Narrator, words: Words) -> Iterator[str]:
    site = words.up()
    for place, group in enumerate(told.cluster.sites[site].groups, start=1):
        for id_ in group:
            yield f"{LETTERS[site]}  {place}. {told.words.id(id_)}: {told.payload_text(id_)}"


def _history(told: Narrator, words: Words) -> Iterator[str]:
    for each in told.submissions.values():
        answers = "; ".join(each.heard()) or "no answer"
        yield f"{each.name} at {LETTERS[each.site]}: {each.text}: {answers}"


def _agreement(told: Narrator, words: Words) -> Iterator[str]:
    yield from agreement.report(told)


# ------------------------------------------------------------------------------------------------------------ the table

Run = Callable[[Narrator, Words], Iterator[str]]


class Usage(NamedTuple):
    """How a command is written, and what it does."""

    words: str
    about: str
    options: tuple[str, ...] = ()
    """Keys that may stand anywhere as `key=value`."""


class Verb(NamedTuple):
    """A command, and who carries it out."""

    usage: Usage
    run: Run


_MESSAGE_WORDS: Final = "FROM->TO [MESSAGE [WORD]...]"

VERBS: Final[dict[str, Verb]] = {
    "submit": Verb(
        Usage(
            "submit SITE NAME [stream=N] [timeout=TIME] [session=NAME [number=N] [floor=N]] COMMAND | run=HEX",
            "a client of SITE hands in a command; the id it goes into is called NAME. In a session it has a number, and"
            " says up to which number its client has all outcomes (one less, unless `floor` says otherwise). What"
            " nobody types, as several commands in one run, stands as the bytes of the run",
            ("stream", "timeout", "session", "number", "floor", "run"),
        ),
        _submit,
    ),
    "open": Verb(
        Usage("open SITE NAME [fifo]", "a client of SITE opens a session; it and the id it goes into are called NAME"),
        _open,
    ),
    "end": Verb(Usage("end SITE NAME SESSION", "a client of SITE ends a session, by a Barrier called NAME"), _end),
    "cancel": Verb(Usage("cancel SITE NAME", "the client of that command goes away"), _cancel),
    "deliver": Verb(
        Usage(
            f"deliver {_MESSAGE_WORDS} [once] [if-any]",
            "the messages under way that fit arrive, oldest first; what comes of them does not"
            " (`once`: the oldest of each link); that there is none is an error, unless `if-any`",
        ),
        _deliver,
    ),
    "exchange": Verb(
        Usage(f"exchange {_MESSAGE_WORDS}", "as deliver, and the answers that come of each arrive at once"), _exchange
    ),
    "drop": Verb(Usage(f"drop {_MESSAGE_WORDS} [once]", "the messages that fit are lost"), _drop),
    "dup": Verb(
        Usage(f"dup {_MESSAGE_WORDS}", "the oldest message of each link that fits is under way once more"), _dup
    ),
    "settle": Verb(
        Usage("settle", "every message arrives, and what comes of them, until nothing is under way; told in brief"),
        _settle,
    ),
    "heal": Verb(
        Usage("heal TIME", "settle, let time pass, and so on: whatever can converge does; told in brief"), _heal
    ),
    "wait": Verb(Usage("wait TIME", "time passes everywhere, no message arrives"), _wait),
    "wake": Verb(
        Usage("wake SITE [TIMER]", "the clock of SITE alone runs on to that timer, or to the next one"), _wake
    ),
    "hold-turns": Verb(
        Usage("hold-turns SITES", "from now on what arrives there is taken only when a turn is told to"), _hold_turns
    ),
    "turn": Verb(
        Usage(
            "turn SITE [TIME] [TIMER[, TIMER]...]",
            "the clock of SITE alone runs on by so much, and to those timers, and it takes all that has arrived in one"
            " turn",
        ),
        _turn,
    ),
    "release-turns": Verb(
        Usage("release-turns SITES", "they take what has arrived, and from now on everything at once"), _release_turns
    ),
    "hold-disk": Verb(Usage("hold-disk SITES", "from now on their disks sync only when told to"), _hold_disk),
    "sync": Verb(
        Usage("sync SITE [groups=N]", "a held disk syncs what it was given, or the first N writes", ("groups",)), _sync
    ),
    "release-disk": Verb(Usage("release-disk SITES", "their disks sync, and from now on by themselves"), _release_disk),
    "crash": Verb(
        Usage(
            "crash SITE [keep=N]",
            "the power goes; of the unsynced writes only the first N survive, or none; what is under"
            " way to SITE may still reach its next life",
            ("keep",),
        ),
        _crash,
    ),
    "restart": Verb(
        Usage("restart SITE [alone]", "a new life on what the disk kept; its links come up, unless it is `alone`"),
        _restart,
    ),
    "link-down": Verb(Usage("link-down FROM->TO", "FROM loses its link to TO, so it suspects it"), _link_down),
    "link-up": Verb(Usage("link-up FROM->TO", "the link of FROM to TO comes up"), _link_up),
    "rtt": Verb(Usage("rtt FROM->TO TIME", "FROM measures this round trip to TO"), _rtt),
    "name": Verb(Usage("name ID NAME", "an id that no command of the file gave a name"), _name),
    "state": Verb(Usage("state [NAME]...", "what every replica knows, or the rows of that name"), _state),
    "disk": Verb(Usage("disk SITE", "what is durable there"), _disk),
    "flights": Verb(Usage("flights", "the messages under way"), _flights),
    "timers": Verb(Usage("timers SITE", "the timers that are set there"), _timers),
    "log": Verb(Usage("log SITE", "what ran there, in order, group by group"), _log),
    "history": Verb(Usage("history", "the commands of the clients, and what they were told"), _history),
    "agreement": Verb(
        Usage("agreement", "all decisions, orders and states, and whether the replicas agree"), _agreement
    ),
}
"""Every command but `cluster`, which comes first, and the actions that the protocol adds."""

CLUSTER: Final = Usage(
    "cluster N [protocol=NAME] [retry=TIME] [preferred=SITE] [eager] [chance=N] [LIMIT=N]...",
    f"the first command of a file: 1 to {MAX_REPLICAS} replicas, called {LETTERS[0]}, {LETTERS[1]}, …; with a protocol"
    " that has a leader, `preferred` should be it; `eager` ones recover at once; `chance` is the seed of the simulator"
    f" whose draws they get. LIMIT is one of {', '.join(Limits._fields)}",
    ("protocol", "retry", "preferred", "chance", *Limits._fields),
)

_LIMITS: Final = {**Limits()._asdict(), "batch_age_us": 0}
"""Those of a file that says nothing of them: what is handed in is proposed at once, not a millisecond later."""

USUAL: Final[Mapping[str, Any]] = {"retry_us": RETRY_US, "preferred": None, "eager": False, "chance": None, **_LIMITS}
"""The settings of `ByHand` that a file has without saying so."""

ACTION: Final = Usage(
    "ACTION SITE ID [quorum=SITES] [late=SITES]",
    "what the protocol would do by itself sooner or later; with `quorum`, its messages and their answers pass between"
    " SITE and these only, and nobody else is waited for; the messages to the others are lost, but to `late` they are"
    " still under way",
    ("quorum", "late"),
)


def begin(words: Sequence[str]) -> Narrator:
    """The cluster that the first command of a file asks for."""
    if not words or words[0] != "cluster":
        raise ScenarioError(f"the first command makes the cluster: {CLUSTER.words}")
    options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    numbers = [word for word in words[1:] if "=" not in word and word != "eager"]
    unknown = sorted(options.keys() - set(CLUSTER.options))
    if unknown or len(numbers) != 1 or not numbers[0].isdecimal() or not 1 <= int(numbers[0]) <= MAX_REPLICAS:
        raise ScenarioError(f"{CLUSTER.words}: {CLUSTER.about}")
    protocol = options.get("protocol", "epaxos")
    if protocol not in PROTOCOLS:
        raise ScenarioError(f"protocol={protocol} is unknown; there are {', '.join(PROTOCOLS)}")
    limits = {limit: _limit(limit, options[limit]) if limit in options else usual for limit, usual in _LIMITS.items()}
    settings = {"n": int(numbers[0]), "eager": "eager" in words, **limits}
    if "chance" in options:
        settings["chance"] = number("chance", options["chance"], 0, 1 << 62)
    if "retry" in options:
        settings["retry_us"] = duration_us(options["retry"])
    if "preferred" in options:
        sites = LETTERS[: settings["n"]]
        if options["preferred"] not in sites:
            raise ScenarioError(f"preferred={options['preferred']} is no replica; there are {', '.join(sites)}")
        settings["preferred"] = sites.index(options["preferred"])
    return Narrator(protocol=protocol, **settings)


def _limit(name: str, text: str) -> int:
    """A time may be nought, and nothing else."""
    return number(name, text, 0 if name.endswith("_us") else 1, 1 << 20 if name == "window" else 1 << 40)


def act(told: Narrator, words: Sequence[str]) -> list[str]:
    """Carry out one command; what it has to tell."""
    verb, rest = words[0], words[1:]
    if verb in told.view.actions:
        return list(_act(told, verb, Words(told, rest, ACTION.options)))
    if verb not in VERBS:
        known = ", ".join((*VERBS, *told.view.actions))
        raise ScenarioError(f"{verb!r} is no command; there are {known}")
    usage, run = VERBS[verb]
    reader = Words(told, rest, usage.options)
    try:
        lines = list(run(told, reader))
        reader.end()
    except ScenarioError as error:
        raise ScenarioError(f"{error} ({usage.words})") from None
    return lines


def _act(told: Narrator, verb: str, words: Words) -> Iterator[str]:
    action, cluster = told.view.actions[verb], told.cluster
    site, id_ = words.up(), words.id()
    words.end()
    known = set(cluster.flights)

    def begin(protocol: Protocol) -> None:
        try:
            action.begin(protocol, id_)
        except ValueError as error:
            raise ScenarioError(f"{verb} {told.words.id(id_)} at {LETTERS[site]}: {error}") from None

    yield from told.event(lambda: cluster.poke(site, begin))
    if "quorum" not in words.options:
        return
    late = words.replicas(words.options["late"]) if "late" in words.options else []
    quorum = words.replicas(words.options["quorum"])
    mine = [flight for flight in cluster.pick(source=site) if flight not in known]
    for flight in sorted(mine, key=lambda flight: flight.target):
        if flight.target in quorum:
            yield from _there_and_back(told, flight)
        elif flight.target not in late:
            cluster.flights.remove(flight)
    yield from told.event(lambda: cluster.poke(site, lambda protocol: action.hurry(protocol, id_)))
