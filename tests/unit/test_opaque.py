"""An embedder's machine behind the interface of the engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from epaxos.command import READ, WHOLE, Batch, Entry
from epaxos.errors import MachineError
from epaxos.ids import BatchNumber
from epaxos.machines.interface import StateMachine
from epaxos.machines.opaque import OPAQUE_OP, OpaqueMachine, opaque_command, opaque_query
from epaxos.packing import encode_run, footprint, key_hash

SECRET = bytes(16)


class Journal(StateMachine):
    """Remembers every command and answers with its number."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, command: bytes) -> bytes:
        if command == b"boom":
            raise ValueError("no such thing")
        self.commands.append(command)
        return b"<%d>" % len(self.commands)

    def save(self) -> Iterable[bytes]:
        return list(self.commands)

    def load(self, chunks: Iterable[bytes]) -> None:
        self.commands = list(chunks)


def batch(*commands: bytes) -> Batch:
    run = encode_run(SECRET, [opaque_command(command, reads=[b"r"], writes=[b"w"]) for command in commands])
    return Batch.of(BatchNumber(0, 1, 1), run)


def test_the_operation_code_never_changes() -> None:
    assert OPAQUE_OP == 1


def test_a_command_has_one_entry_for_every_key_and_its_bytes_stand_in_the_first() -> None:
    assert opaque_command(b"do", reads=[b"a", b"b", b"a", b"w"], writes=[b"w", b"w", b"x"]) == (
        Entry(OPAQUE_OP, 0, b"w", b"do"),
        Entry(OPAQUE_OP, 0, b"x", b""),
        Entry(OPAQUE_OP, READ, b"a", b""),
        Entry(OPAQUE_OP, READ, b"b", b""),
    )


def test_a_command_without_keys_touches_the_whole_state() -> None:
    assert opaque_command(b"do") == (Entry(OPAQUE_OP, WHOLE, b"", b"do"),)
    touched = footprint(encode_run(SECRET, [opaque_command(b"do")]))
    assert touched.whole_write and touched.conflicts(footprint(encode_run(SECRET, [opaque_command(b"", reads=[b"k"])])))


def test_the_footprint_is_what_the_command_names() -> None:
    touched = footprint(encode_run(SECRET, [opaque_command(b"do", reads=[b"a"], writes=[b"b"])]))
    assert touched.reads == {key_hash(SECRET, b"a")}
    assert touched.writes == {key_hash(SECRET, b"b")}


@pytest.mark.parametrize("keys", [b"alice", "alice"])
def test_keys_are_a_list(keys: Any) -> None:
    for name in ("reads", "writes"):
        with pytest.raises(TypeError, match=rf"^{name} is a list of keys, such as \[b'alice'\]$"):
            opaque_command(b"do", **{name: keys})
    with pytest.raises(TypeError, match=r"^reads is a list of keys"):
        opaque_query(b"ask", reads=keys)


def test_commands_and_keys_are_bytes() -> None:
    text: Any = "alice"
    with pytest.raises(TypeError, match=r"^a key in writes is bytes, not str: 'alice'$"):
        opaque_command(b"do", writes=[b"bob", text])
    with pytest.raises(TypeError, match=r"^a command is bytes, not str$"):
        opaque_command(text, writes=[b"bob"])


def test_a_query_reads_its_keys_or_everything() -> None:
    assert opaque_query(b"ask", reads=iter([b"k"])) == (Entry(OPAQUE_OP, READ, b"k", b"ask"),)
    assert opaque_query(b"ask") == (Entry(OPAQUE_OP, WHOLE | READ, b"", b"ask"),)


def test_replies_are_joined_by_span() -> None:
    machine = OpaqueMachine(Journal())
    assert machine.apply_batch(batch(b"a", b"b", b"c"), [1, 2]) == [b"<1>", b"<2><3>"]


def test_commands_run_also_when_nobody_waits() -> None:
    journal = Journal()
    assert OpaqueMachine(journal).apply_batch(batch(b"a", b"b"), []) == []
    assert journal.commands == [b"a", b"b"]


def test_spans_must_add_up() -> None:
    with pytest.raises(ValueError, match="1 commands are waited for"):
        OpaqueMachine(Journal()).apply_batch(batch(b"a", b"b"), [1])


def test_an_exception_of_the_machine_comes_out_as_machine_error() -> None:
    with pytest.raises(MachineError, match=r"Journal\.apply raised ValueError: no such thing"):
        OpaqueMachine(Journal()).apply_batch(batch(b"boom"), [])


def test_a_reply_that_is_not_bytes_is_the_machines_fault() -> None:
    class Wrong(Journal):
        def apply(self, command: bytes) -> bytes:
            return bytearray(b"x")  # type: ignore[return-value]  # what a careless machine does

    with pytest.raises(MachineError, match=r"Wrong\.apply returned bytearray, not bytes"):
        OpaqueMachine(Wrong()).apply_batch(batch(b"a"), [1])


def test_save_and_load_are_the_machines_own() -> None:
    one, two = OpaqueMachine(Journal()), Journal()
    one.apply_batch(batch(b"a", b"b"), [])
    OpaqueMachine(two).load(one.save())
    assert two.commands == [b"a", b"b"]
