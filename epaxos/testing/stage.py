"""A stage for whole engines in virtual time: a heap of events, the links between replicas, and their lives.

What happens on it is up to a subclass: the hostile world of `loop`, or a calm one on which something is measured. It
sets `record` and `watch` before the first replica starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from epaxos import messages
from epaxos.command import Payload
from epaxos.ids import InstanceId, ReplicaId
from epaxos.machines.interface import BatchMachine
from epaxos.messages import Message
from epaxos.protocols.interface import PeerDown, PeerUp, Protocol, Receive, Rtt
from epaxos.protocols.registry import Factory
from epaxos.protocols.view import View
from epaxos.testing import faults
from epaxos.testing.faults import Swarm
from epaxos.testing.forks import Forks, between, chance
from epaxos.testing.invariants import Watch
from epaxos.testing.network import Network
from epaxos.testing.node import Node
from epaxos.testing.record import Life, Record, Violation
from epaxos.testing.tape import Tape
from epaxos.testing.trace import Trace


class Stage:
    """The replicas `nodes`, none of them up yet, and all that is between them."""

    record: Record
    watch: Watch

    def __init__(
        self,
        build: Factory,
        *,
        forks: Forks,
        swarm: Swarm,
        make_machine: Callable[[], BatchMachine],
        trace: Trace,
        view: View | None = None,
        tape: Tape | None = None,
    ) -> None:
        self.n = n = len(swarm.delay_us)
        self.build = build
        self.make_machine = make_machine
        self.trace = trace
        self.tape = tape
        self.forks = forks
        self.swarm = swarm
        self.now_us = 0
        self.sync_us = swarm.sync_us
        self.stuck = swarm.stuck
        self.loses_writes = faults.LOST_WRITES in swarm.kinds
        self.measured = swarm.measured
        """Do replicas learn the round trips of links that come up from now on?"""
        self.delivered = 0
        """Messages that arrived."""
        self.decided: dict[InstanceId, Payload] = {}
        self.cells: Counter[tuple[str, str]] = Counter()
        """How often a message (its type) found a replica in which phase: the fields of `Cell`. Empty without a view."""
        self._view = view
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ties = 0
        self._ticks = 0
        self._link_rng = forks["links"]
        self._network = Network(n, swarm, forks["net"])
        self._breaks = [[0] * n for _ in range(n)]
        # Who is back at once is soon talked to as if it had not been away.
        self._haunted = faults.GHOSTS in swarm.kinds or faults.RELAPSE in swarm.kinds
        self._ghosts: list[list[Receive]] = [[] for _ in range(n)]
        self.nodes = [Node(self, me) for me in range(n)]

    # -- time

    def at(self, at_us: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` at that moment of simulated time."""
        self._ties = tie = self._ties + 1
        heappush(self._heap, (at_us, tie, what, args))

    def after(self, delay_us: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` after that time."""
        self.at(self.now_us + delay_us, what, *args)

    def tick(self) -> int:
        """A number greater than all before: the times of a history, no two of which are equal."""
        self._ticks += 1
        return self._ticks

    def advance(self, until_us: int) -> bool:
        """Let the next event happen, if there is one by then."""
        heap = self._heap
        if not heap or heap[0][0] > until_us:
            return False
        self.now_us, _, what, args = heappop(heap)
        what(*args)
        return True

    # -- messages

    def send(self, source: Node, peers: tuple[ReplicaId, ...], message: Message) -> None:
        """`message` leaves `source` for each of `peers`."""
        self.watch.sends(source.life, peers, message)
        if self.trace.verbose:
            self.trace.detail(f"{source.life} sends {message} to {peers}")
        if self.swarm.codec and messages.TABLE.get(getattr(message, "code", -1)) is type(message):
            decoded = messages.decode(*messages.encode(message), self.n)
            if decoded != message:
                raise Violation("codec", f"{message} became {decoded}")
            message = decoded
        receive = Receive(peer=source.me, message=message)
        me, now_us, breaks = source.me, self.now_us, self._breaks[source.me]
        arrivals, nodes = self._network.arrivals, self.nodes
        for peer in peers:
            if peer not in source.linked:
                continue  # no link, no queue for what goes there
            target = nodes[peer]
            for at_us in arrivals(me, peer, now_us):
                self.at(at_us, self._arrive, target, receive, target.life, breaks, breaks[peer])

    def _arrive(self, target: Node, receive: Receive, life: object, breaks: list[int], unbroken: int) -> None:
        if breaks[target.me] != unbroken:
            return
        if not target.up:
            if self._haunted and chance(self._link_rng, 0.5):
                self._ghosts[target.me].append(receive)
            return
        if life is not target.life and not self._haunted:
            return
        self.delivered += 1
        self.trace.line(f"{self.now_us} {receive.peer}>{target.me} {type(receive.message).__name__}")
        target.put(receive)

    def received(self, protocol: Protocol, message: Message) -> None:
        """`protocol` is about to take `message`."""
        if self._view is not None:
            self.cells[self._view.phase(protocol, message), type(message).__name__] += 1

    # -- links

    def connect(self, a: Node, b: Node) -> None:
        """Bring up the links between two replicas, if it can be: one a direction, each at its own time."""
        self.call(a, b)
        self.call(b, a)

    def call(self, node: Node, peer: Node) -> None:
        """Bring up the link that one replica makes to another, if it can be, and tell it."""
        rtt_us = self._network.rtt_us(node.me, peer.me)
        handshake_us = between(self._link_rng, rtt_us, 3 * rtt_us + 5_000)
        self.after(handshake_us, self._connected, node, node.life, peer, peer.life)

    def _connected(self, node: Node, life: Life, peer: Node, peer_life: Life) -> None:
        if not (node.up and peer.up and node.life == life and peer.life == peer_life):
            return
        if self._is_parted(node, peer):
            return
        if peer.me in node.linked:
            node.put(PeerDown(peer=peer.me))
        node.linked[peer.me] = peer_life
        node.put(PeerUp(peer=peer.me))
        if self.measured:
            self.measure(node, peer)

    def _is_parted(self, a: Node, b: Node) -> bool:
        return self._network.is_cut(a.me, b.me) or self._network.is_cut(b.me, a.me)

    def measure(self, node: Node, peer: Node) -> None:
        """Tell a replica the round trip of its link to another."""
        node.put(Rtt(peer=peer.me, rtt_us=self._network.rtt_us(node.me, peer.me)))

    def _disconnect(self, node: Node, peer: Node, peer_life: Life) -> None:
        """Tell a replica that its link to that life of another is down, unless it came up again."""
        gone = not peer.up or peer.life != peer_life
        if node.up and node.linked.get(peer.me) == peer_life and (gone or self._is_parted(node, peer)):
            node.put(PeerDown(peer=peer.me))

    def lose_sent(self, node: Node) -> None:
        """What is under way from a replica is lost, as it is when its links are reset."""
        breaks = self._breaks[node.me]
        breaks[:] = [broken + 1 for broken in breaks]

    def flap(self, a: Node, b: Node, lasts_us: int) -> None:
        """Break the link between two replicas for that time; what was under way is lost."""
        self._breaks[a.me][b.me] += 1
        self._breaks[b.me][a.me] += 1
        for node, peer in ((a, b), (b, a)):
            if node.up and peer.me in node.linked:
                node.put(PeerDown(peer=peer.me))
        self.after(lasts_us, self.connect, a, b)

    # -- lives

    def kill(self, node: Node, lasts_us: int, *, forgets: bool = False) -> None:
        """This replica dies, and comes back after that time; `forgets` takes all that was not synced."""
        life = node.life
        node.crash(forgets=forgets)
        self.died(life)
        for peer in self.nodes:
            if life.replica in peer.linked:
                silence_us = 0 if chance(self._link_rng, 0.3) else self.swarm.down_after_us
                self.after(silence_us, self._disconnect, peer, node, life)
        self.after(lasts_us, self.restart, node)

    def restart(self, node: Node) -> None:
        """Begin the next life of a replica that is down."""
        if node.up:
            return
        node.start()
        self.trace.line(f"{self.now_us} {node.life} starts")
        ghosts, self._ghosts[node.me] = self._ghosts[node.me], []
        for ghost in ghosts:
            self.after(between(self._link_rng, 0, 20_000), self._haunt, node, node.life, ghost)
        for peer in self.nodes:
            if peer is not node and peer.up:
                self.connect(node, peer)
        self.born(node)

    def _haunt(self, node: Node, life: object, ghost: Receive) -> None:
        if node.up and node.life == life:
            self.delivered += 1
            node.put(ghost)

    # -- what a subclass makes of it

    def born(self, node: Node) -> None:
        """A replica has begun a life."""

    def died(self, life: Life) -> None:
        """That life is over."""

    def noted(self, node: Node, event: str) -> None:
        """Its protocol found something worth noting."""
