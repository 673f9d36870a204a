"""The state of an EPaxos replica in the words of protocol.md 1.3: one row an instance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from epaxos.command import Batch
from epaxos.ids import InstanceId
from epaxos.messages import CommitQuery, Message, Recover
from epaxos.protocols.epaxos.protocol import EPaxos
from epaxos.protocols.epaxos.recover import Recovery, Stage
from epaxos.protocols.epaxos.state import EPOCH, Instance, Phase, decode_record, record_id
from epaxos.protocols.interface import LogView, Protocol
from epaxos.protocols.view import Action, Cell, Row, Words


def _epaxos(protocol: Protocol) -> EPaxos:
    assert isinstance(protocol, EPaxos)
    return protocol


def _recover(protocol: Protocol, id_: InstanceId) -> None:
    epaxos = _epaxos(protocol)
    if id_ in epaxos.state.decided:
        raise ValueError("it is decided there, and nobody recovers what he knows the decision of")
    epaxos.recovery.start([epaxos.state.touch(id_)])


def _out_of_patience(protocol: Protocol, id_: InstanceId) -> None:
    epaxos = _epaxos(protocol)
    instance = epaxos.state.live.get(id_)
    if instance is not None and instance.recovery is not None:
        epaxos.recovery.out_of_patience(id_, instance.recovery.ballot)


_PHASES: Final = ("unknown", "init", "pre", "acc", "com", "executed")
"""`executed` has left memory; `com` is decided, and waits for others or for the disk."""
_NAMES: Final = {phase: phase.name.lower() for phase in Phase}
_MESSAGES: Final = (
    *("PreAccept", "PreAcceptOK", "Accept", "AcceptOK", "Commit", "Recover", "RecoverOK"),
    *("Validate", "ValidateOK", "Waiting", "Nack", "CommitQuery"),
)


_IMPOSSIBLE: Final = frozenset(
    {
        Cell("init", "PreAcceptOK"),
        *(Cell("unknown", answer) for answer in ("PreAcceptOK", "RecoverOK", "Validate", "ValidateOK", "Nack")),
    }
)
"""Nobody gets an answer to something of which it has no record: the record is durable before the question leaves. And
only those who have answered a Recover are asked to Validate."""


def _about(message: Any) -> InstanceId:
    if isinstance(message, Recover):
        return InstanceId(message.epoch, message.first, message.lane)
    if isinstance(message, CommitQuery):
        return InstanceId(message.epoch, message.ranges[0].first, message.ranges[0].lane)
    id_: InstanceId = message.id
    return id_


class EPaxosView:
    """`epaxos.protocols.view.View` for EPaxos."""

    lanes: Final = True
    kinds: Final[Mapping[bytes, str]] = {b"i": "instances", b"c": "batches"}
    actions: Final[Mapping[str, Action]] = {"recover": Action(begin=_recover, hurry=_out_of_patience)}

    def rows(self, protocol: Protocol, words: Words) -> list[Row]:
        """The instances, the Waiting facts, and who is suspected."""
        state = _epaxos(protocol).state
        rows = [Row(words.id(instance.id), _text(instance, words)) for instance in _known(protocol)]
        for id_, (k, dep) in sorted(state.facts.items()):
            rows.append(Row(f"Waiting({words.id(id_)})", f"k={k} dep={words.vector(dep)}"))
        if state.suspected:
            rows.append(Row("suspects", " ".join(map(words.replica, sorted(state.suspected)))))
        return rows

    def place(self, key: bytes) -> InstanceId | None:
        """Instances and batches are records of their ids."""
        return record_id(key) if key[:1] in self.kinds else None

    def stored(self, log: LogView, n: int, words: Words) -> list[Row]:
        """The instance records."""
        instances = [decode_record(key, value, n) for key, value in log.scan(b"i", b"j")]
        return [Row(words.id(each.id), _text(each, words)) for each in sorted(instances, key=lambda each: each.id)]

    cells: Final = frozenset(Cell(phase, message) for phase in _PHASES for message in _MESSAGES) - _IMPOSSIBLE

    def phase(self, protocol: Protocol, message: Message) -> str:
        """What is known of the id that the message is about, the first one if it is about several."""
        state = _epaxos(protocol).state
        id_ = _about(message)
        instance = state.live.get(id_)
        if instance is not None:
            return _NAMES[instance.phase]
        return "executed" if id_ in state.executed else "unknown"

    def carried(self, protocol: Protocol) -> Iterator[tuple[InstanceId, Batch]]:
        """Every instance whose payload is known."""
        return ((each.id, each.batch) for each in _known(protocol) if each.batch is not None)


def _known(protocol: Protocol) -> Iterator[Instance]:
    """In the order of ids, without those of which nothing but the name is known."""
    state = _epaxos(protocol).state
    ids = (InstanceId(EPOCH, slot, lane) for lane in range(state.n) for slot in range(1, state.highest[lane] + 1))
    for id_ in sorted(ids):
        instance = state.get(id_)
        if instance is not None and (instance.phase or instance.bal or instance.batch is not None):
            yield instance


def _text(instance: Instance, words: Words) -> str:
    """Everything in one line; what a phase makes meaningless is left out."""
    parts = [instance.phase.name]
    if instance.nop:
        parts.append("NOP")
    if instance.phase is not Phase.COM:
        parts += [f"bal={instance.bal}", f"abal={instance.abal}"]
    if instance.phase is not Phase.INIT:
        parts.append(f"dep={words.vector(instance.dep)}")
    parts.append("unregistered" if instance.init_dep is None else f"init_dep={words.vector(instance.init_dep)}")
    if instance.ack_dep not in (None, instance.dep):
        parts.append(f"ack_dep={words.vector(instance.ack_dep or ())}")
    if instance.lead is not None and instance.lead.lead0 and instance.phase is not Phase.COM:
        parts.append("lead0")
    if instance.recovery is not None:
        parts.append(_recovery(instance.recovery, words))
    return " ".join(parts)


def _recovery(recovery: Recovery, words: Words) -> str:
    """The ballot, the stage, and whose answers it has come by."""
    answered = recovery.validated if recovery.stage is Stage.VALIDATION else recovery.replies
    text = f"leads {recovery.ballot}: {recovery.stage.name} {''.join(map(words.replica, sorted(answered)))}"
    if recovery.stage is Stage.COMPETITORS:
        against = " ".join(words.id(id_) for id_ in sorted(recovery.against))
        text += f" k={recovery.k} against {against}"
    return f"({text})"
