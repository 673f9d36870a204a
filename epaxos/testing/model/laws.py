"""What must hold (protocol.md 1.7), of every step and of everything that was ever said.

`check_step` compares a replica before and after one event; `check_restart` a replica that came back with what it had
said before; `Judge` looks at what all replicas together have said: decisions, proposals, registrations, votes. The
laws of the last are the ones a user would notice: nobody can, of two decisions that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations, permutations
from typing import Any, Final

from epaxos.command import NOP, Batch, Payload
from epaxos.execution.graph import GraphExecutor
from epaxos.ids import Ballot, InstanceId, Vector, covers
from epaxos.messages import (
    Accept,
    AcceptOK,
    PreAccept,
    PreAcceptOK,
    RecoverOK,
    Validate,
    ValidateOK,
    Waiting,
)
from epaxos.protocols.epaxos.state import Instance, Phase
from epaxos.quorums import quorums
from epaxos.testing.model.scope import Scope
from epaxos.testing.model.site import Crash, Decided, Event, FastCommit, Said, Site, What

ARRIVALS_MAX: Final = 4
"""Decisions whose every order of arrival is executed."""


class Broken(AssertionError):
    """A law that does not hold."""

    def __init__(self, law: str, what: str) -> None:
        super().__init__(f"{law}: {what}")
        self.law = law


# ------------------------------------------------------------------------------------------------------------- a step


def check_step(before: Site, after: Site, event: Event, said: list[Said], scope: Scope) -> None:
    """I1, I2, I5, I11, I16 and that decisions are final, of one replica. Raises Broken."""
    if isinstance(event, Crash):
        return
    old = before.protocol.state.live
    for id_, instance in after.protocol.state.live.items():
        was = old.get(id_) or Instance(id_)
        _check_growth(was, instance)
        if was.ack_dep is None and instance.ack_dep is not None:
            _check_registration(old, instance, scope)
    for _, what in said:
        if isinstance(what, FastCommit) and old[what.id].bal:
            raise Broken("I11", f"{what.id} is decided at ballot 0 by {after.me}, which has joined {old[what.id].bal}")


def _check_growth(was: Instance, now: Instance) -> None:
    if was.phase is Phase.COM:
        if (now.phase, now.nop, now.dep) != (was.phase, was.nop, was.dep):
            raise Broken("I7", f"the decision of {was.id} changed from {was.nop} {was.dep} to {now.nop} {now.dep}")
        return
    if now.bal < was.bal or now.abal < was.abal or now.abal > now.bal:
        raise Broken("I1", f"{was.id}: bal, abal went from {was.bal}, {was.abal} to {now.bal}, {now.abal}")
    if was.init_dep is not None and (now.init_dep, now.batch) != (was.init_dep, was.batch):
        raise Broken("I3", f"{was.id}: initial dependencies went from {was.init_dep} to {now.init_dep}")
    if was.ack_dep is not None and now.ack_dep != was.ack_dep:
        raise Broken("I2", f"{was.id}: the answer to PreAccept went from {was.ack_dep} to {now.ack_dep}")
    if now.dep and now.dep[now.id.lane] >= now.id.slot:
        raise Broken("I16", f"{now.id} depends on itself or on a later id of its lane: {now.dep}")


def _check_registration(old: Mapping[InstanceId, Instance], instance: Instance, scope: Scope) -> None:
    ack, batch = instance.ack_dep, instance.batch
    assert ack is not None and batch is not None
    for other in old.values():
        if other.init_dep is None or other.batch is None or other.id == instance.id:
            continue
        seen = covers(ack, other.id) or covers(other.init_dep, instance.id)
        if (batch.data, other.batch.data) in scope.conflicts and not seen:
            raise Broken("I5", f"{other.id} was registered and is not in {ack}, the answer about {instance.id}")


def check_restart(site: Site, said: Iterable[What]) -> None:
    """I14: what a restarted replica has on its disk bears out everything it has ever said. Raises Broken."""
    live = site.protocol.state.live
    for what in said:
        id_ = getattr(what, "id", None)
        if id_ is None:
            continue
        instance = live.get(id_) or Instance(id_)
        if instance.phase is not Phase.COM and not _borne_out(instance, what):
            raise Broken("I14", f"replica {site.me} has said {what} and comes back with {instance.durable_state()}")


def _borne_out(instance: Instance, what: What) -> bool:
    match what:
        case Accept() | AcceptOK():
            return instance.abal >= what.ballot and instance.phase is Phase.ACC
        case RecoverOK():
            return instance.bal >= what.ballot
        case PreAccept() | ValidateOK() | Validate():
            return instance.init_dep is not None
        case PreAcceptOK():
            return instance.ack_dep == what.dep
        case FastCommit():
            return False
        case _:
            return True


# ---------------------------------------------------------------------------------------------------- all that was said

Value = tuple[bool, Vector]
"""(is it a Nop, dependencies)"""


Decisions = dict[InstanceId, tuple[bytes | None, Vector]]
"""id -> (payload, None being a Nop; dependencies)"""


class Facts:
    """What one replica has said, sorted out."""

    def __init__(self) -> None:
        self.decided: dict[InstanceId, set[tuple[bytes | None, Vector]]] = {}
        self.fast: dict[InstanceId, Vector] = {}
        self.proposed: dict[tuple[InstanceId, Ballot], set[Value]] = {}
        self.registered: dict[InstanceId, set[tuple[bytes, Vector]]] = {}
        self.acks: dict[InstanceId, set[Vector]] = {}
        self.waiting: set[tuple[InstanceId, int, Vector]] = set()

    @classmethod
    def of(cls, said: Iterable[What]) -> Facts:
        """Sort out what was said."""
        facts = cls()
        for what in said:
            facts._add(what)
        return facts

    @property
    def key(self) -> frozenset[object]:
        """Equal for equal facts."""
        kinds: tuple[Mapping[Any, set[Any]], ...] = (self.decided, self.proposed, self.registered, self.acks)
        found: set[object] = {(kind, key, one) for kind, of in enumerate(kinds) for key, s in of.items() for one in s}
        return frozenset(found | set(self.fast.items()) | self.waiting)

    def _add(self, what: What) -> None:
        sort = _SORTED.get(type(what))
        if sort is not None:
            sort(self, what)

    def _decision(self, what: Decided) -> None:
        self.decided.setdefault(what.id, set()).add((_data(what.payload), what.dep))

    def _fast(self, what: FastCommit) -> None:
        self.fast[what.id] = what.dep

    def _proposal(self, what: Accept) -> None:
        self.proposed.setdefault((what.id, what.ballot), set()).add((what.payload is NOP, what.dep))

    def _vote(self, what: AcceptOK) -> None:
        self.proposed.setdefault((what.id, what.ballot), set()).add((what.nop, what.dep))

    def _registration(self, what: PreAccept | Validate) -> None:
        self.registered.setdefault(what.id, set()).add((what.payload.data, what.init_dep))

    def _evidence(self, what: RecoverOK) -> None:
        if what.registered and what.payload is not None:
            self.registered.setdefault(what.id, set()).add((what.payload.data, what.init_dep))

    def _ack(self, what: PreAcceptOK) -> None:
        self.acks.setdefault(what.id, set()).add(what.dep)

    def _wait(self, what: Waiting) -> None:
        self.waiting.add((what.id, what.k, what.dep))


_SORTED: Final[dict[type, Callable[[Facts, Any], None]]] = {
    Decided: Facts._decision,
    FastCommit: Facts._fast,
    Accept: Facts._proposal,
    AcceptOK: Facts._vote,
    PreAccept: Facts._registration,
    Validate: Facts._registration,
    RecoverOK: Facts._evidence,
    PreAcceptOK: Facts._ack,
    Waiting: Facts._wait,
}


def _data(payload: Payload | None) -> bytes | None:
    return payload.data if isinstance(payload, Batch) else None


class Judge:
    """The laws of what all replicas have said together."""

    def __init__(self, scope: Scope, *, inside: bool = True) -> None:
        """Without `inside`, only what a user could notice is judged: agreement, visibility, the order of execution."""
        self.scope = scope
        self.inside = inside
        self._executed: set[frozenset[tuple[InstanceId, tuple[bytes | None, Vector]]]] = set()

    def judge(self, everybody: list[Facts]) -> Decisions:
        """What is decided, if all is well. Raises Broken."""
        decided = self._agreement(everybody)
        self._visibility(decided)
        if self.inside:
            registered = self._registration(everybody)
            self._proposals(everybody)
            self._floor(everybody, decided, registered)
            self._waiting(everybody)
        if len(decided) > 1:
            self._order(decided)
        return decided

    def _agreement(self, everybody: list[Facts]) -> Decisions:
        decided: Decisions = {}
        for facts in everybody:
            for id_, values in facts.decided.items():
                for value in values:
                    if decided.setdefault(id_, value) != value:
                        raise Broken("I7 agreement", f"{id_} is decided as {_show(value)} and as {_show(decided[id_])}")
        self._chosen(everybody, decided)
        for id_, (payload, dep) in decided.items():
            if payload is None:
                if any(dep):
                    raise Broken("I12", f"{id_} is a Nop with dependencies {dep}")
                continue
            if payload not in [batch.data for batch in self.scope.lanes[id_.lane]]:
                raise Broken("I10", f"{id_} is decided as something that its coordinator never submitted")
            if dep[id_.lane] >= id_.slot:
                raise Broken("I16", f"{id_} depends on itself or on a later id of its lane: {dep}")
        return decided

    def _chosen(self, everybody: list[Facts], decided: Decisions) -> None:
        """What a slow quorum has voted for is decided, whether or not anybody has counted the votes yet."""
        votes: dict[tuple[InstanceId, Ballot, Value], int] = {}
        for facts in everybody:
            for (id_, ballot), values in facts.proposed.items():
                for value in values:
                    key = id_, ballot, value
                    votes[key] = votes.get(key, 0) + 1
        bound = {id_: data for facts in everybody for id_, pairs in facts.registered.items() for data, _ in pairs}
        slow = quorums(self.scope.n).slow
        for (id_, ballot, (nop, dep)), count in votes.items():
            if count < slow:
                continue
            payload = None if nop else bound[id_]
            known = decided.setdefault(id_, (payload, dep))
            if (known[0] is None) != nop or known[1] != dep:
                what = "Nop" if nop else str(dep)
                raise Broken("I7 agreement", f"{id_} is decided as {_show(known)}, and {what} by votes at {ballot}")

    def _visibility(self, decided: Decisions) -> None:
        commands = [(id_, payload, dep) for id_, (payload, dep) in decided.items() if payload is not None]
        for (a, a_payload, a_dep), (b, b_payload, b_dep) in combinations(commands, 2):
            if (a_payload, b_payload) in self.scope.conflicts and not covers(a_dep, b) and not covers(b_dep, a):
                raise Broken("I9 visibility", f"{a} with {a_dep} and {b} with {b_dep} conflict without an edge")

    def _registration(self, everybody: list[Facts]) -> dict[InstanceId, Vector]:
        found: dict[InstanceId, tuple[bytes, Vector]] = {}
        for facts in everybody:
            for id_, pairs in facts.registered.items():
                for pair in pairs:
                    if found.setdefault(id_, pair) != pair:
                        raise Broken("I3", f"{id_} is registered with {pair[1]} and with {found[id_][1]}")
            for id_, acks in facts.acks.items():
                if len(acks) > 1:
                    raise Broken("I2", f"one replica answered PreAccept of {id_} with {sorted(acks)}")
        return {id_: dep for id_, (_, dep) in found.items()}

    def _proposals(self, everybody: list[Facts]) -> None:
        found: dict[tuple[InstanceId, Ballot], Value] = {}
        for facts in everybody:
            for key, values in facts.proposed.items():
                for value in values:
                    if found.setdefault(key, value) != value:
                        raise Broken("I6", f"{key[0]} at ballot {key[1]}: {value} and {found[key]} are proposed")
        fast = {id_: dep for facts in everybody for id_, dep in facts.fast.items()}
        for (id_, ballot), (nop, dep) in found.items():
            if id_ in fast and (ballot == 0 or nop or dep != fast[id_]):
                what = "Nop" if nop else str(dep)
                raise Broken("I8", f"{id_} is decided fast with {fast[id_]}, and {what} is proposed at {ballot}")

    def _floor(
        self,
        everybody: list[Facts],
        decided: Decisions,
        registered: Mapping[InstanceId, Vector],
    ) -> None:
        answers = [(id_, dep) for facts in everybody for id_, acks in facts.acks.items() for dep in acks]
        answers += [(id_, dep) for id_, (payload, dep) in decided.items() if payload is not None]
        for id_, dep in answers:
            floor = registered.get(id_)
            if floor is None or any(a > b for a, b in zip(floor, dep, strict=True)):
                raise Broken("I4", f"{dep} for {id_} lacks some of its initial dependencies {floor}")

    def _waiting(self, everybody: list[Facts]) -> None:
        for facts in everybody:
            for id_, k, dep in facts.waiting:
                agree = sum(dep in other.acks.get(id_, ()) for me, other in enumerate(everybody) if me != id_.lane)
                if agree < k:
                    raise Broken("I20", f"Waiting says that {k} answered {dep} for {id_}; {agree} did")

    def _order(self, decided: Decisions) -> None:
        """I13: in whatever order the decisions arrive, commands that conflict are executed in one order."""
        key = frozenset(decided.items())
        if key in self._executed:
            return
        self._executed.add(key)
        arrivals = sorted(decided)
        first = self._execute(arrivals, decided)
        orders = permutations(arrivals) if len(arrivals) <= ARRIVALS_MAX else iter([tuple(reversed(arrivals))])
        for order in orders:
            if self._execute(order, decided) != first:
                raise Broken("I13 order", f"{_orders(decided)} are executed in different orders")

    def _execute(self, order: Iterable[InstanceId], decided: Decisions) -> list[tuple[InstanceId, InstanceId]]:
        """The pairs of conflicting ids, in the order in which they ran."""
        batches = {batch.data: batch for batch in self.scope.batches}
        executor = GraphExecutor(self.scope.n)
        ran: list[InstanceId] = []
        for id_ in order:
            payload, dep = decided[id_]
            groups = executor.decide([(id_, NOP if payload is None else batches[payload], dep)])
            ran += [one for group in groups for one in group]
        return sorted((a, b) for a, b in combinations(ran, 2) if (decided[a][0], decided[b][0]) in self.scope.conflicts)


def _show(value: tuple[bytes | None, Vector]) -> str:
    return "Nop" if value[0] is None else str(value[1])


def _orders(decided: Decisions) -> str:
    return ", ".join(f"{id_} {_show(value)}" for id_, value in sorted(decided.items()))
