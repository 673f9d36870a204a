"""Virtual time: a heap of events around whole engines, in plain Python, with everything drawn from one seed.

A run has two phases. While faults strike, nothing may go wrong (safety). Then everything is healed, the clients read
every key at every replica, and the world has `SETTLE_US` of simulated time to come to rest: nobody waits, every
replica has executed everything, every consumer has read it (liveness).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Final, NamedTuple

from epaxos.ids import ReplicaId
from epaxos.machines.interface import BatchMachine
from epaxos.machines.kv import Kv
from epaxos.messages import Message
from epaxos.protocols.registry import Factory
from epaxos.protocols.view import View
from epaxos.testing import faults
from epaxos.testing.doom import Doom, said
from epaxos.testing.faults import Betrayal, Strike
from epaxos.testing.forks import Forks, between, chance, log_between, pick
from epaxos.testing.invariants import ALL, Final as World_at_rest, Invariant, Watch
from epaxos.testing.kvmodel import KvModel
from epaxos.testing.node import Node
from epaxos.testing.record import Call, Life, Model, Record, Violation
from epaxos.testing.stage import Stage
from epaxos.testing.tape import Tape
from epaxos.testing.trace import Trace
from epaxos.testing.workload import Clients, Commands, Source

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


@dataclass(slots=True)
class Traitor:
    """A replica that is about to die behind a reply, and what was done so that its disk and few peers know of it."""

    node: Node
    life: Life
    heard: tuple[ReplicaId, ...]
    cuts: list[tuple[ReplicaId, ReplicaId]]
    betrayal: Betrayal
    replies_left: int


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
        tape: Tape | None = None,
    ) -> None:
        forks = Forks(seed)
        swarm = faults.draw(forks, n, without)
        super().__init__(
            build, forks=forks, swarm=swarm, make_machine=play.make_machine, trace=trace, view=view, tape=tape
        )
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
        self._relapses = Doom(forks, "relapses") if faults.RELAPSE in swarm.kinds else None
        self._stutters = Doom(forks, "stutters") if faults.STUTTER in swarm.kinds else None
        self._silenced: Life | None = None
        """It dies while it sends: the rest of this turn is not heard."""
        self._traitor: Traitor | None = None
        self._sent: Counter[str] = Counter()
        """Messages so far, by type; kept for those types only that are interrupted."""
        self._busy = [0] * n
        """Messages that each replica sent, those since the last strike above all."""
        self.clients = Clients(self, forks, swarm.limits.batch_commands, swarm.fault_us, play.make_commands)
        self.clients.on_reply = self._replied
        self.record = Record(play.model, self.clients.commands.keys, swarm.limits.window)
        self.watch = Watch(self.record, play.invariants)

    def run(self) -> None:
        """From the first start to rest. Raises Violation."""
        for node in self.nodes:
            self.restart(node)
        for strike in self.swarm.strikes:
            self.at(strike.at_us, self._strike, strike)
        for betrayal in self.swarm.betrayals:
            self.at(betrayal.at_us, self._betray, betrayal)
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
            strike = strike._replace(victims=self._busiest_first(strike.victims))
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
            self.flap(node, other, strike.lasts_us)
        elif strike.kind == faults.SLOW_LINK:
            self._network.clog(node.me, other.me, self.now_us + strike.lasts_us)
        elif strike.kind == faults.PAUSE:
            node.pause(self.now_us + strike.lasts_us)
        elif strike.kind == faults.FULL_DISK:
            node.fill_disk(strike.lasts_us)
        elif strike.kind == faults.CLOCK:
            node.jump(strike.number % 20_000_001 - 10_000_000)

    def _crash_one(self, candidates: list[Node], lasts_us: int, *, forgets: bool = False) -> None:
        alive = [node for node in candidates if node.up]
        if alive and self._spares_one():
            self.kill(alive[0], lasts_us, forgets=forgets)

    def _spares_one(self) -> bool:
        """Does a majority live also when one more dies?"""
        return sum(not node.up for node in self.nodes) < (self.n - 1) // 2

    def _blackout(self, lasts_us: int) -> None:
        for node in self.nodes:
            if node.up:
                self.kill(node, between(self._fault_rng, 1, lasts_us))

    def _partition(self, strike: Strike) -> None:
        cut_off = strike.victims[: 1 + strike.number % max(1, self.n // 2)]
        self._part(cut_off, strike.number // 8 % 4, strike.lasts_us)

    def _busiest(self) -> ReplicaId:
        return max(range(self.n), key=self._busy.__getitem__)

    def _busiest_first(self, victims: tuple[ReplicaId, ...]) -> tuple[ReplicaId, ...]:
        busiest = self._busiest()
        return (busiest, *(other for other in victims if other != busiest))

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

    def _betray(self, betrayal: Betrayal) -> None:
        """From now on one replica is heard by as many as it needs, and its disk lags behind what it says."""
        if self._healed or self._traitor is not None:
            return
        order = self._busiest_first(betrayal.victims) if betrayal.aimed else betrayal.victims
        node, heard, deaf = self.nodes[order[0]], order[1 : 1 + self.n // 2], order[1 + self.n // 2 :]
        self.trace.line(f"{self.now_us} {node.me} is heard by {heard} only")
        pairs = [(node.me, each) for each in deaf]
        for a, b in pairs:
            self._network.cut(a, b)
        node.lag_us = betrayal.sync_us
        self._traitor = traitor = Traitor(node, node.life, heard, pairs, betrayal, betrayal.replies)
        self.after(2 * betrayal.lasts_us, self._betrayed, traitor)
        for _ in range(betrayal.replies):
            self.clients.visit(node)

    def _betrayed(self, traitor: Traitor) -> None:
        """It dies, if it has replied, and those who remain have never heard of what it said."""
        if self._traitor is not traitor:
            return
        self._traitor = None
        node = traitor.node
        node.lag_us = 0
        if not self._healed and not traitor.replies_left and node.life == traitor.life and self._spares_one():
            self.struck[faults.BETRAYAL] += 1
            self.lose_sent(node)
            returns, lasts_us = traitor.betrayal.returns, traitor.betrayal.lasts_us
            self._crash_one([node], between(self._fault_rng, 50, 3_000) if returns else lasts_us, forgets=returns)
            self._part(traitor.heard if returns else traitor.heard[1:], 2, lasts_us)
        self._mend(traitor.cuts, traitor.cuts)

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

    def _replied(self, call: Call) -> None:
        self.trace.line(f"{self.now_us} call {call.number} is answered {call.reply!r}")
        for hook in self.watch.answered:
            hook(call)
        traitor = self._traitor
        if traitor is not None and call.life == traitor.life and traitor.replies_left:
            traitor.replies_left -= 1
            if not traitor.replies_left:
                self.after(0, self._betrayed, traitor)
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
        if source.life == self._silenced:
            return
        kind = type(message).__name__
        if self._stutters is not None and not self._healed and self._stutters.is_fatal(kind):
            peers = self._stutter(self._stutters, source, peers, kind)
        super().send(source, peers, message)
        self._busy[source.me] += len(peers)
        if self._healed:
            return
        if self._relapses is not None:
            what = said(message)
            if self._relapses.is_fatal(what):
                self.after(0, self._relapse, self._relapses, source, source.life, what, True)
        numbers = self._interrupts.get(kind)
        if numbers:
            self._sent[kind] += 1
            if self._sent[kind] == numbers[0]:
                numbers.pop(0)
                self.after(0, self._interrupt, source, source.life)

    def noted(self, node: Node, event: str) -> None:
        doom = self._relapses
        if doom is not None and not self._healed and doom.is_fatal(event):
            # What it rests on may have reached the disk by then, or not.
            self.after(log_between(doom.rng, 1, 20_000), self._relapse, doom, node, node.life, event, False)

    def _relapse(self, doom: Doom, node: Node, life: Life, what: str, forgets: bool) -> None:
        if not self._healed and node.up and node.life == life and doom.strikes(what):
            self.struck[faults.RELAPSE] += 1
            self._crash_one([node], between(doom.rng, 50, 3_000), forgets=forgets)

    def _stutter(self, doom: Doom, node: Node, peers: tuple[ReplicaId, ...], what: str) -> tuple[ReplicaId, ...]:
        """To whom the message still goes."""
        if not self._spares_one() or not doom.strikes(what):
            return peers
        self.struck[faults.STUTTER] += 1
        self._silenced = node.life
        self.after(0, self._fall_silent, node, node.life, log_between(doom.rng, 1_000, 500_000))
        return peers[: between(doom.rng, 0, len(peers) - 1)]

    def _fall_silent(self, node: Node, life: Life, lasts_us: int) -> None:
        """Its turn is over, and so is its life, unless somebody else died at this very moment."""
        self._silenced = None
        if not self._healed and node.up and node.life == life:
            self._crash_one([node], lasts_us)

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
        self.clients.deadlines_us = (SETTLE_US, SETTLE_US)
        for node in self.nodes:
            node.lag_us = 0
            if node.up and node.disk.failure is not None:
                self.kill(node, 0)
            self.restart(node)
            node.resume()
        for node, peer in permutations(self.nodes, 2):
            if node.linked.get(peer.me) == peer.life:
                self.measure(node, peer)
            else:
                self.call(node, peer)
        self.after(LOOK_US, self._look)

    def _look(self) -> None:
        """Is everybody done, and there? Then read everything; and then, has everybody come to rest?"""
        if self.clients.left == 0 and self.clients.open == 0 and all(node.up for node in self.nodes):
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
        states = {node.me: node.state() for node in self.nodes}
        for node in self.nodes:
            ends_as = b"".join(states[node.me])
            self.trace.line(f"{node.life} ends as {ends_as!r} {node.engine.protocol.digest().hex()}")
        self.watch.finished(
            World_at_rest(
                states=states,
                frontiers={node.me: node.executor.executed() for node in self.nodes},
                waiting={node.me: node.executor.waiting() for node in self.nodes},
                settled=self._at_rest,
            )
        )
