"""Every command has exactly one outcome, and what was acknowledged is in every log at the end."""

from __future__ import annotations

from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import Outcome


class Answers(Invariant):
    """Nobody waits for ever, and nothing that a client was told is lost: crashes of everybody included."""

    name = "answers"
    reason = "A reply is a promise that the effect survives any minority for ever, and everybody after a restart."
    at_rest = True

    def finished(self, final: Final) -> None:
        for call in self.record.calls:
            if call.outcome is Outcome.OPEN:
                raise self.no(f"{call} was never answered")
        executed = {
            replica: {command for applied in log for command in applied.commands}
            for replica, log in self.record.newest().items()
        }
        for call in self.record.calls:
            if call.outcome is Outcome.DONE and not call.form.pure:
                for replica, commands in executed.items():
                    if call.form.command not in commands:
                        raise self.no(f"{call} was acknowledged and is missing at replica {replica}")
