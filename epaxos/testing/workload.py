"""The clients of a run: who submits which commands when, and what becomes of them.

Each replica has a few streams (connections), each with several commands under way. Keys are few and partly hot, so
that commands conflict; values are unique, so that a result says which command it saw. Every command has bytes of its
own (a reader carries its number as a payload that the machine ignores), by which it is found again in the logs.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from epaxos.command import READ, WHOLE, Command, Entry
from epaxos.errors import Rejected, Unknown
from epaxos.machines.kv import INCREMENT, SET_GET, Op
from epaxos.machines.transactions import WATCHER_BYTES, exec_command
from epaxos.packing import encode_run
from epaxos.submission import Cancel, Submit
from epaxos.testing.forks import Forks, between, chance, log_between, pick
from epaxos.testing.record import Call, Form, Life, Outcome, Part, Violation
from epaxos.testing.sessionload import SessionClient

if TYPE_CHECKING:
    from epaxos.testing.loop import World
    from epaxos.testing.node import Node

SECRET: Final = bytes(range(16))
COMMANDS_MIN: Final = 50
COMMANDS_MAX: Final = 60
COUNTER_BITS: Final = 62
"""Increments of one counter are different powers of two, so that its value tells which of them it counted."""
WHOLE_KEY: Final = b""
"""The key of commands that are marked as touching the whole state."""

_SHARES: Final = (
    ("set", 20),
    ("get", 20),
    ("incrby", 12),
    ("append", 6),
    ("exec", 8),
    ("mget", 12),
    ("mset", 10),
    ("getset", 4),
    ("del", 3),
    ("setnx", 3),
    ("exists", 2),
    ("strlen", 2),
    ("whole_set", 1),
    ("whole_get", 1),
)


class Source(Protocol):
    """Makes the commands of a run."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every key that more than one command may touch."""

    @property
    def run_max(self) -> int:
        """So many commands may be submitted at once: one, where replies cannot be told apart."""

    def next(self) -> Form:
        """One more command."""

    def survey(self) -> Form:
        """A command for each replica when everything is over, which reads as much as there is."""


class Commands:
    """Makes commands for the key-value machine, on a small set of keys."""

    run_max = 3

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._hot = pick(rng, (0.1, 0.3, 0.6, 0.9))
        self.registers = [b"r%d" % i for i in range(between(rng, 2, 8))]
        self.counters = [b"c%d" % i for i in range(between(rng, 1, 3))]
        self.lists = [b"l%d" % i for i in range(between(rng, 2, 3))]
        # Where commands tell whether a key exists, a write of unknown outcome may have been noticed without showing
        # its value, which is hard for the checker: such commands have keys of their own.
        self.fleeting = [b"x%d" % i for i in range(2)]
        self._increments = dict.fromkeys(self.counters, 0)
        self._verbs = [verb for verb, share in _SHARES for _ in range(share)]
        self._number = 0

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every key there is."""
        return (*self.registers, *self.counters, *self.lists, *self.fleeting, WHOLE_KEY)

    def next(self) -> Form:
        """One more command."""
        verb = pick(self._rng, self._verbs)
        if verb == "incrby":
            return self._incrby()
        if verb == "exec":
            return self._exec()
        return self._append() if verb == "append" else self._of_registers(verb)

    def survey(self) -> Form:
        """A command that reads everything."""
        return self._read("mget", self.keys)

    def _tag(self) -> bytes:
        self._number += 1
        return b"%d" % self._number

    def _one(self, keys: list[bytes]) -> bytes:
        # The first key of each kind is the hot one.
        return keys[0] if chance(self._rng, self._hot) else pick(self._rng, keys)

    def _several(self, keys: list[bytes]) -> tuple[bytes, ...]:
        count = between(self._rng, 2, 3)
        return tuple(dict.fromkeys(self._one(keys) for _ in range(count)))

    def _incrby(self) -> Form:
        key = self._one(self.counters)
        done = self._increments[key]
        if done == COUNTER_BITS:
            return self._read("get", (key,))
        self._increments[key] = done + 1
        command = (Entry(Op.INCRBY, 0, key, INCREMENT.pack(1 << done)),)
        return Form(command, "incrby", (Part(key, "incrby", 1 << done),), pure=False)

    def _append(self) -> Form:
        key, value = self._one(self.lists), b"<%b>" % self._tag()
        return Form((Entry(Op.APPEND, 0, key, value),), "append", (Part(key, "append", value),), pure=False)

    def _exec(self) -> Form:
        """Append to some lists, then read them and others, in one transaction."""
        tag = self._tag()
        keys = self._several(self.lists)
        appended = {key: b"<%b.%d>" % (tag, i) for i, key in enumerate(keys) if i == 0 or chance(self._rng, 0.6)}
        queued: list[Command] = [(Entry(Op.APPEND, 0, key, value),) for key, value in appended.items()]
        queued.append(tuple(Entry(Op.MGET, READ, key, tag) for key in keys))
        parts = [Part(key, "append_get", appended[key]) if key in appended else Part(key, "get") for key in keys]
        command = exec_command(Op.EXEC, Op.WATCH, bytes(WATCHER_BYTES), (), queued)
        return Form(command, "exec", tuple(parts), pure=False)

    def _read(self, verb: str, keys: tuple[bytes, ...]) -> Form:
        op, part = {"get": (Op.GET, "get"), "mget": (Op.MGET, "get"), "exists": (Op.EXISTS, "exists")}.get(
            verb, (Op.STRLEN, "strlen")
        )
        tag = self._tag()
        command = tuple(Entry(op, READ | WHOLE if key == WHOLE_KEY else READ, key, tag) for key in keys)
        return Form(command, verb, tuple(Part(key, part) for key in keys), pure=True)

    def _of_registers(self, verb: str) -> Form:
        kinds = (self.registers, self.counters, self.lists)
        if verb == "get":
            return self._read(verb, (self._one(pick(self._rng, kinds)),))
        if verb == "mget":
            return self._read(verb, self._several(self.registers + self.counters + self.lists))
        if verb == "strlen":
            return self._read(verb, (self._one(self.fleeting),))
        if verb == "exists":
            return self._read(verb, self._several(self.fleeting))
        if verb == "whole_get":
            return self._read("get", (WHOLE_KEY,))
        return self._write(verb)

    def _write(self, verb: str) -> Form:
        tag = self._tag()
        value = b"v" + tag
        if verb == "mset":
            pairs = [(key, b"%b.%d" % (value, i)) for i, key in enumerate(self._several(self.registers))]
            command: Command = tuple(Entry(Op.MSET, 0, key, each) for key, each in pairs)
            return Form(command, verb, tuple(Part(key, "set", each) for key, each in pairs), pure=False)
        if verb == "del":
            keys = self._several(self.fleeting)
            command = tuple(Entry(Op.DEL, 0, key, tag) for key in keys)
            return Form(command, verb, tuple(Part(key, "del") for key in keys), pure=False)
        if verb == "whole_set":
            return Form((Entry(Op.SET, WHOLE, WHOLE_KEY, value),), "set", (Part(WHOLE_KEY, "set", value),), pure=False)
        key = self._one(self.fleeting if verb == "setnx" else self.registers)
        op, flags = {"set": (Op.SET, 0), "getset": (Op.SET, SET_GET), "setnx": (Op.SETNX, 0)}[verb]
        return Form((Entry(op, flags, key, value),), verb, (Part(key, verb, value),), pure=False)


class Asker:
    """The waiter of one run."""

    def __init__(self, clients: Clients, stream: Stream | None, calls: list[Call]) -> None:
        self._clients = clients
        self._stream = stream
        self.calls = calls
        self._deaf = False

    def reply(self, first: int, count: int, data: bytes) -> None:
        """As `Waiter.reply`."""
        if self._deaf:
            return
        model = self._clients.world.record.model
        try:
            replies = model.split(data, count)
        except ValueError as error:
            raise Violation("answers", f"{self.calls[first]} and {count - 1} more: {error}") from None
        world = self._clients.world
        for call, reply in zip(self.calls[first : first + count], replies, strict=True):
            for hook in world.watch.replied:
                hook(call, world.nodes[call.life.replica].executor.executed())
            self._clients.close(call, Outcome.DONE, reply)
        self._next()

    def fail(self, first: int, count: int, error: Rejected | Unknown) -> None:
        """As `Waiter.fail`."""
        if self._deaf:
            return
        outcome = Outcome.REJECTED if isinstance(error, Rejected) else Outcome.UNKNOWN
        for call in self.calls[first : first + count]:
            self._clients.close(call, outcome, None)
        self._next()

    def lose(self) -> None:
        """The client stops waiting, without an answer, and hears none from now on."""
        self._deaf = True
        for call in self.calls:
            if call.outcome is Outcome.OPEN:
                self._clients.close(call, Outcome.UNKNOWN, None)
        self._next()

    def _next(self) -> None:
        if self._stream is not None and all(call.outcome is not Outcome.OPEN for call in self.calls):
            self._stream.finished(self)


class Stream:
    """One connection: commands in order, up to `depth` runs of them under way."""

    def __init__(self, clients: Clients, node: Node, number: int) -> None:
        rng = clients.rng
        self._clients = clients
        self._node = node
        self._life = node.life
        self.number = number
        self._depth = between(rng, 1, 4)
        self._open: list[Asker] = []
        self._later()

    def _later(self) -> None:
        think_us = int(self._clients.rng.expovariate(1.0) * self._clients.think_us)
        self._clients.world.after(think_us, self._issue)

    def _issue(self) -> None:
        if self._node.life != self._life or not self._node.up:
            return
        clients = self._clients
        while len(self._open) < self._depth and clients.left:
            asker = clients.ask(self._node, self.number, self, clients.draw_run())
            self._open.append(asker)
            if not chance(clients.rng, 0.5):
                break
        if len(self._open) < self._depth and clients.left:
            self._later()

    def finished(self, asker: Asker) -> None:
        """Nothing of that run is open any more."""
        if asker in self._open:
            self._open.remove(asker)
            if len(self._open) == self._depth - 1:
                self._later()

    def lost(self) -> None:
        """The replica died: what was under way has an unknown outcome."""
        for asker in list(self._open):
            asker.lose()


class Clients:
    """All clients of a run."""

    def __init__(
        self, world: World, forks: Forks, batch_commands: int, fault_us: int, make: Callable[[Random], Source]
    ) -> None:
        self.world = world
        self.secret = SECRET
        self.rng = rng = forks["workload"]
        self.commands = make(forks["workload.commands"])
        self.total = between(rng, COMMANDS_MIN, COMMANDS_MAX)
        self.left = self.total
        self._streams_each = between(rng, 1, 3)
        self.think_us = int(fault_us * world.n * self._streams_each / self.total * pick(rng, (0.2, 0.5, 1.0)))
        self._run_max = min(pick(rng, (1, 1, 3)), batch_commands, self.commands.run_max)
        self.deadlines_us = (50_000, 20_000_000)
        """The shortest and the longest time in which a command has to have its outcome."""
        self._deadline_rng = forks["workload.deadlines"]
        self._cancels = pick(rng, (0.0, 0.0, 0.05))
        self._streams: dict[Life, list[Stream]] = {}
        self._visitors: dict[Life, list[Asker]] = {}
        self._numbers = 0
        self._sessions = [SessionClient(self, i) for i in range(pick(forks["workload.sessions"], (0, 1, 2, 3)))]
        self.open = 0
        self.replies = 0
        self.on_reply: Callable[[Call], None] = lambda call: None

    def limit(self, commands: int) -> None:
        """Before the run: all but so many of the commands stay away. The others come as they would have."""
        self.left = self.total = min(self.total, commands)

    # -- the streams

    def arrive(self, node: Node) -> None:
        """Clients connect to a replica that begins a life."""
        self._streams[node.life] = [Stream(self, node, self.new_stream()) for _ in range(self._streams_each)]

    def new_stream(self) -> int:
        """The number of a further connection."""
        self._numbers += 1
        return self._numbers

    def lose(self, life: Life) -> None:
        """That life is over."""
        for stream in self._streams.pop(life, ()):
            stream.lost()
        for asker in self._visitors.pop(life, ()):
            asker.lose()
        for client in self._sessions:
            client.lose(life)

    def draw_run(self) -> list[Form]:
        """The commands of the next run."""
        count = min(between(self.rng, 1, self._run_max), self.left)
        self.left -= count
        return [self.commands.next() for _ in range(count)]

    def visit(self, node: Node) -> None:
        """Somebody comes by with one command more than the clients of the run have, if the replica is up."""
        if node.up and self.total:
            self.total += 1
            asker = self.ask(node, self.new_stream(), None, [self.commands.next()])
            self._visitors.setdefault(node.life, []).append(asker)

    def survey(self, node: Node, deadline_us: int) -> None:
        """Read everything at this replica, on a stream of its own."""
        self.ask(node, self.new_stream(), None, [self.commands.survey()], deadline_us)

    # -- the calls

    def draw_deadline_us(self) -> int:
        """In how long the next run has to have its outcome. Batches mix the impatient with the patient."""
        return log_between(self._deadline_rng, *self.deadlines_us)

    def ask(
        self, node: Node, stream: int, owner: Stream | None, forms: list[Form], deadline_us: int | None = None
    ) -> Asker:
        """Submit a run to a replica."""
        calls = [self._call(node, stream, form) for form in forms]
        for hook in self.world.watch.asked:
            for call in calls:
                hook(call)
        asker = Asker(self, owner, calls)
        run = encode_run(SECRET, [form.command for form in forms])
        deadline = node.mono_us(self.world.now_us + (deadline_us or self.draw_deadline_us()))
        node.put(Submit(asker, stream, run, len(calls), deadline))
        if owner is not None and chance(self.rng, self._cancels):
            self.world.after(between(self.rng, 0, 200_000), lambda: self._cancel(node, asker))
        return asker

    def new_call(self, node: Node, stream: int, *, pure: bool) -> Call:
        """One further command, which its client submits by itself; one that only reads when that is allowed."""
        self.left -= 1
        form = self.commands.next()
        while form.pure and not pure:
            form = self.commands.next()
        return self._call(node, stream, form)

    def _call(self, node: Node, stream: int, form: Form) -> Call:
        call = Call(len(self.world.record.calls), node.life, stream, form, self.world.tick())
        self.world.record.calls.append(call)
        self.open += 1
        return call

    def _cancel(self, node: Node, asker: Asker) -> None:
        if node.up and node.life == asker.calls[0].life and any(c.outcome is Outcome.OPEN for c in asker.calls):
            node.put(Cancel(asker))
            asker.lose()

    def close(self, call: Call, outcome: Outcome, reply: bytes | None) -> None:
        """A command has its outcome. Raises Violation when it had one."""
        if call.outcome is not Outcome.OPEN:
            raise Violation("answers", f"{call} is answered once more: {outcome.value} {reply!r}")
        call.outcome = outcome
        call.reply = reply
        self.open -= 1
        if outcome is not Outcome.UNKNOWN:
            call.returned = self.world.tick()
        if outcome is Outcome.DONE:
            self.replies += 1
            self.on_reply(call)
