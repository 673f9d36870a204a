"""The command of the simulator that appends to some lists and reads them and others."""

from __future__ import annotations

import pytest

from epaxos.command import READ, Batch, Command, Entry
from epaxos.ids import BatchNumber
from epaxos.machines.kv import Kv, Op
from epaxos.packing import encode_run
from epaxos.testing.transactions import TransactKv, transact


def batch(*commands: Command) -> Batch:
    return Batch.of(BatchNumber(0, 1, 1), encode_run(bytes(16), commands))


SET: Command = (Entry(Op.SET, 0, b"r", b"1"),)
BOTH = transact([(b"x", b"<1>"), (b"y", None), (b"z", b"<2>")], b"t1")
AGAIN = transact([(b"y", b"<3>"), (b"x", None)], b"t2")


@pytest.mark.parametrize("spans", [(4,), (1, 2, 1), (2, 2)])
def test_appends_and_reads_among_other_commands(spans: tuple[int, ...]) -> None:
    machine = TransactKv()
    buffers = machine.apply_batch(batch(SET, BOTH, AGAIN, (Entry(Op.GET, READ, b"z", b""),)), spans)
    assert len(buffers) == len(spans)
    assert b"".join(buffers) == (
        b"+OK\r\n"
        b"*3\r\n$3\r\n<1>\r\n$-1\r\n$3\r\n<2>\r\n"
        b"*2\r\n$3\r\n<3>\r\n$3\r\n<1>\r\n"
        b"$3\r\n<2>\r\n"
    )  # fmt: skip


def test_leaves_the_state_of_plain_commands_whether_anybody_waits_or_not() -> None:
    machine, copy, plain = TransactKv(), TransactKv(), Kv()
    assert machine.apply_batch(batch(BOTH, AGAIN), ()) == []
    copy.load(machine.save())
    plain.apply_batch(
        batch(*((Entry(Op.APPEND, 0, *pair),) for pair in ((b"x", b"<1>"), (b"z", b"<2>"), (b"y", b"<3>")))), ()
    )
    assert list(machine.save()) == list(copy.save()) == list(plain.save())
