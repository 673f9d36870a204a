"""Virtual time: a heap of events around whole engines, in plain Python, with everything drawn from one seed.

A run has two phases. While faults strike, nothing may go wrong (safety). Then everything is healed, the clients read
every key at every replica, and the world has `SETTLE_US` of simulated time to come to rest: nobody waits, every
replica has executed everything, every consumer has read it (liveness).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from epaxos.ids import ReplicaId
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import Kv
from epaxos.messages import Message
from epaxos.protocols.interface import PeerDown
from epaxos.protocols.registry import Factory
from epaxos.protocols.view import View
from epaxos.testing import faults
from epaxos.testing.faults import Strike
from epaxos.testing.forks import Forks, between, chance, log_between, pick
from epaxos.testing.invariants import ALL, Final as World_at_rest, Invariant, Watch
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.node import Node
from epaxos.testing.record import Call, Life, Model, Record, Violation
from epaxos.testing.stage import Stage
from epaxos.testing.trace import Trace
from epaxos.testing.workload import Clients, Commands, Source

RELAPSES_MAX: Final = 2
"""Of one run behind messages or events of one type: somebody has to get something done."""
SIEGE_COMMANDS: Final = 10
"""Of clients that come because of a siege, some of them to who is besieged."""
SETTLE_US: Final = 30_000_000
"""The simulated time the world has to come to rest after the last fault."""
LOOK_US: Final = 20_000
EVENTS_MAX: Final = 12_000
"""Of one run, for each link. A run takes some hundred a link; a protocol that sends for ever is stopped here."""


class Play(NamedTuple):
    """What is performed: a machine, commands for it, and what is demanded of the two."""

    make_machine: Callable[[], BatchMachine]
    make_commands: Callable[[Random], Source]
    model: Model
    invariants: Sequence[type[Invariant]] = ALL


KV: Final = Play(Kv, Commands, KvModel())
"""The key-value machine."""


class World(Stage):
    """One run."""

    def __init__(
        self,
        seed: int,
        build: Factory,
        *,
        n: int,
        play: Play,
        without: frozenset[str],
        trace: Trace,
        view: View | None = None,
    ) -> None:
        forks = Forks(seed)
        swarm = faults.draw(forks, n, without)
        super().__init__(build, forks=forks, swarm=swarm, make_machine=play.make_machine, trace=trace, view=view)
        self.events = 0
        self.struck: Counter[str] = Counter()
        self._events_max = EVENTS_MAX * n * n
        self._fault_rng = forks["strikes"]
        self._healed = False
        self._surveyed = False
        self._at_rest = False
        self._encore = swarm.encore
        self._end_us = swarm.fault_us + SETTLE_US
        self._ambushes = list(swarm.ambush_replies)
        self._sieges = list(swarm.sieges)
        self._interrupts = {kind: list(numbers) for kind, numbers in swarm.interrupts.items()}
        self._relapses = faults.RELAPSE in swarm.kinds
        self._relapse_rng = forks["relapses"]
        self._odds: dict[str, float] = {}
        """By type of message and of event: how likely a replica is to die right behind one."""
        self._relapsed: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        """Messages so far, by type; kept for those types only that are interrupted."""
        self._busy = [0] * n
        """Messages that each replica sent, those since the last strike above all."""
        self.clients = Clients(self, forks, swarm.limits.batch_commands, swarm.fault_us, play.make_commands)
        self.clients.on_reply = self._replied
        self.record = Record(play.model, self.clients.commands.keys)
        self.watch = Watch(self.record, play.invariants)

    def run(self) -> None:
        """From the first start to rest. Raises Violation."""
        for node in self.nodes:
            self.restart(node)
        for strike in self.swarm.strikes:
            self.at(strike.at_us, self._strike, strike)
        self.at(self.swarm.fault_us, self._heal)
        while not self._at_rest and self.advance(self._end_us):
            self.events += 1
            if self.events > self._events_max:
                raise Violation("convergence", f"{self.events} events by {self.now_us} us: somebody talks for ever")
        self._judge()

    def born(self, node: Node) -> None:
        self.clients.arrive(node)

    def died(self, life: Life) -> None:
        self.clients.lose(life)

    # -- faults

    def _strike(self, strike: Strike) -> None:
        if self._healed:
            return
        if strike.aimed:
            busiest = self._busiest()
            strike = strike._replace(victims=(busiest, *(other for other in strike.victims if other != busiest)))
        self._busy = [sent // 4 for sent in self._busy]
        self.struck[strike.kind] += 1
        self.trace.line(f"{self.now_us} {strike.kind} {strike.victims} for {strike.lasts_us}")
        node, other = self.nodes[strike.victims[0]], self.nodes[strike.victims[1 % self.n]]
        if strike.kind == faults.CRASH:
            self._crash_one([self.nodes[victim] for victim in strike.victims], strike.lasts_us)
        elif strike.kind == faults.BLACKOUT:
            self._blackout(strike.lasts_us)
        elif strike.kind == faults.PARTITION:
            self._partition(strike)
        elif strike.kind == faults.FLAP and node is not other:
            self._flap(node, other, strike.lasts_us)
        elif strike.kind == faults.SLOW_LINK:
            self._network.clog(node.me, other.me, self.now_us + strike.lasts_us)
        elif strike.kind == faults.PAUSE:
            node.pause(self.now_us + strike.lasts_us)
        elif strike.kind == faults.FULL_DISK:
            node.fill_disk(strike.lasts_us)
        elif strike.kind == faults.CLOCK:
            node.jump(strike.number % 20_000_001 - 10_000_000)

    def _crash_one(self, candidates: list[Node], lasts_us: int, *, forgets: bool = False) -> None:
        down = sum(not node.up for node in self.nodes)
        alive = [node for node in candidates if node.up]
        if down < (self.n - 1) // 2 and alive:
            self.kill(alive[0], lasts_us, forgets=forgets)

    def _blackout(self, lasts_us: int) -> None:
        for node in self.nodes:
            if node.up:
                self.kill(node, between(self._fault_rng, 1, lasts_us))

    def _partition(self, strike: Strike) -> None:
        cut_off = strike.victims[: 1 + strike.number % max(1, self.n // 2)]
        self._part(cut_off, strike.number // 8 % 4, strike.lasts_us)

    def _busiest(self) -> ReplicaId:
        return max(range(self.n), key=self._busy.__getitem__)

    def _siege(self, lasts_us: int) -> None:
        """What a leader that is none any more takes from its clients must neither last nor be told to them."""
        besieged = self.nodes[self._busiest()]
        self.struck[faults.SIEGE] += 1
        self.trace.line(f"{self.now_us} siege of {besieged.me} for {lasts_us}")
        # Nothing gets out, or nothing at all: who hears a leader chooses no other.
        self._part((besieged.me,), pick(self._fault_rng, (0, 2, 2)), lasts_us)
        rng = self._fault_rng
        share = pick(rng, (0.3, 0.5, 0.9))
        for number in range(SIEGE_COMMANDS):
            # It takes some commands at once, the others take some when they are ready to, and it is asked for more.
            inside = chance(rng, share)
            early, late = (0.4, 0.9) if not inside else (0.0, 0.3) if chance(rng, 0.6) else (0.7, 1.0)
            when_us = int(lasts_us * (early + (late - early) * rng.random()))
            who = besieged.me if inside else (besieged.me + 1 + number % max(1, self.n - 1)) % self.n
            self.after(when_us, self.clients.visit, self.nodes[who])
        if chance(rng, 0.7):
            self.after(lasts_us + log_between(rng, 1_000, lasts_us), self._relieved, besieged)

    def _relieved(self, besieged: Node) -> None:
        """It dies when it has just learned what the others had agreed on."""
        if not self._surveyed:
            self._crash_one([besieged], 1_000)

    def _part(self, cut_off: tuple[ReplicaId, ...], shape: int, lasts_us: int) -> None:
        pairs = [(a, b) for a in cut_off for b in range(self.n) if b not in cut_off]
        # Nothing gets out, nothing gets in, or neither, which is the most usual.
        back = [(b, a) for a, b in pairs]
        cuts = (pairs, back, pairs + back, pairs + back)[shape]
        for a, b in cuts:
            self._network.cut(a, b)
        silence_us = 0 if chance(self._fault_rng, 0.5) else self.swarm.down_after_us
        for a, b in pairs:
            for node, peer in ((self.nodes[a], self.nodes[b]), (self.nodes[b], self.nodes[a])):
                self.after(silence_us, self._disconnect, node, peer, peer.life)
        self.after(lasts_us, self._mend, cuts, pairs)

    def _mend(self, cuts: list[tuple[int, int]], pairs: list[tuple[int, int]]) -> None:
        for a, b in cuts:
            self._network.mend(a, b)
        for a, b in pairs:
            self.connect(self.nodes[a], self.nodes[b])

    def _flap(self, a: Node, b: Node, lasts_us: int) -> None:
        self._breaks[a.me][b.me] += 1
        self._breaks[b.me][a.me] += 1
        for node, peer in ((a, b), (b, a)):
            if node.up and peer.me in node.linked:
                node.put(PeerDown(peer=peer.me))
        self.after(lasts_us, self.connect, a, b)

    def _replied(self, call: Call) -> None:
        self.trace.line(f"{self.now_us} call {call.number} is answered {call.reply!r}")
        for hook in self.watch.answered:
            hook(call)
        if not self._healed and self._sieges and self.clients.replies >= self._sieges[0].reply:
            self.after(0, self._siege, self._sieges.pop(0).lasts_us)
        if not self._healed and self._ambushes and self.clients.replies >= self._ambushes[0]:
            self._ambushes.pop(0)
            # Not in the middle of the turn that replies: at the same moment, right behind it.
            self.after(0, self._ambush, call.life.replica)

    def _ambush(self, victim: ReplicaId) -> None:
        self.struck[faults.AMBUSH] += 1
        lasts_us = log_between(self._fault_rng, 1_000, 300_000)
        if chance(self._fault_rng, 0.4):
            self._blackout(lasts_us)
        else:
            self._crash_one([self.nodes[victim]], lasts_us, forgets=chance(self._fault_rng, 0.5))

    def send(self, source: Node, peers: tuple[ReplicaId, ...], message: Message) -> None:
        super().send(source, peers, message)
        self._busy[source.me] += len(peers)
        if self._healed or not (self._interrupts or self._relapses):
            return
        kind = type(message).__name__
        if self._relapses and self._is_fatal(kind):
            self.after(0, self._relapse, source, source.life, kind, True)
        numbers = self._interrupts.get(kind)
        if numbers:
            self._sent[kind] += 1
            if self._sent[kind] == numbers[0]:
                numbers.pop(0)
                self.after(0, self._interrupt, source, source.life)

    def noted(self, node: Node, event: str) -> None:
        if self._relapses and not self._healed and self._is_fatal(event):
            # What it rests on may have reached the disk by then, or not.
            self.after(log_between(self._relapse_rng, 1, 20_000), self._relapse, node, node.life, event, False)

    def _is_fatal(self, what: str) -> bool:
        """Is this message, or this event, one behind which its replica dies? A type is drawn when it is first seen."""
        odds = self._odds.get(what)
        if odds is None:
            rng = self.forks[f"relapses.{what}"]
            odds = self._odds[what] = log_between(rng, 50, 1_000) / 1_000 if chance(rng, 0.3) else 0.0
        return odds > 0.0 and chance(self._relapse_rng, odds)

    def _relapse(self, node: Node, life: Life, what: str, forgets: bool) -> None:
        if self._healed or not node.up or node.life != life or self._relapsed[what] == RELAPSES_MAX:
            return
        self._relapsed[what] += 1
        self.struck[faults.RELAPSE] += 1
        self._crash_one([node], between(self._relapse_rng, 50, 3_000), forgets=forgets)

    def _interrupt(self, node: Node, life: Life) -> None:
        if self._healed or not node.up or node.life != life:
            return
        self.struck[faults.INTERRUPT] += 1
        lasts_us = log_between(self._fault_rng, 5_000, 1_000_000)
        self.trace.line(f"{self.now_us} interrupts {life} for {lasts_us}")
        what = pick(self._fault_rng, (faults.CRASH, faults.CRASH, faults.PARTITION, faults.PAUSE))
        if what == faults.CRASH:
            self._crash_one([node], lasts_us)
        elif what == faults.PARTITION:
            self._part((node.me,), between(self._fault_rng, 0, 3), lasts_us)
        else:
            node.pause(self.now_us + lasts_us)

    # -- the end

    def _heal(self) -> None:
        self._healed = self.measured = True
        self.trace.line(f"{self.now_us} heals")
        self._network.heal()
        self.sync_us, self.stuck = min(self.sync_us, 1_000), 0.0
        self.clients.think_us = 1_000
        # Whoever gives up before a round trip is over, and tries again, never comes to rest.
        self.clients.deadline_us = SETTLE_US
        for node in self.nodes:
            if node.up and node.disk.failure is not None:
                self.kill(node, 0)
            self.restart(node)
            node.resume()
        for a in self.nodes:
            for b in self.nodes[: a.me]:
                self.connect(a, b)
        self.after(LOOK_US, self._look)

    def _look(self) -> None:
        """Is everybody done? Then read everything; and then, has everybody come to rest?"""
        if self.clients.left == 0 and self.clients.open == 0:
            if not self._surveyed:
                self._surveyed = True
                for node in self.nodes:
                    self.clients.survey(node, SETTLE_US)
            elif self._rests():
                if not self._encore:
                    self._at_rest = True
                    return
                self._once_more()
        self.after(LOOK_US, self._look)

    def _once_more(self) -> None:
        """Everybody dies and restarts, with nothing under way: what their disks hold must be all there is."""
        self.trace.line(f"{self.now_us} encore")
        self._encore = self._surveyed = False
        self._end_us = self.now_us + SETTLE_US
        self._blackout(LOOK_US // 2)

    def _rests(self) -> bool:
        frontiers = [node.executor.executed() for node in self.nodes]
        if any(frontier != frontiers[0] for frontier in frontiers) or any(n.executor.waiting() for n in self.nodes):
            return False
        for node in self.nodes:
            node.consume(1_000_000)
        logs = self.record.newest()
        return all(node.consumed == sum(len(a.commands) for a in logs[node.me]) for node in self.nodes)

    def _judge(self) -> None:
        for node in self.nodes:
            state = node.state()
            self.trace.line(f"{node.life} ends as {b''.join(state)!r} {node.engine.protocol.digest().hex()}")
        self.watch.finished(
            World_at_rest(
                states={node.me: node.state() for node in self.nodes},
                frontiers={node.me: node.executor.executed() for node in self.nodes},
                waiting={node.me: node.executor.waiting() for node in self.nodes},
                settled=self._at_rest,
            )
        )
