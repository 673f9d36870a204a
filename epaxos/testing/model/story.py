"""A way to a violation, told as a scenario file that whole engines replay step by step.

The model is a little freer than an engine: it asks for decisions whenever it likes. Where an engine cannot follow, the
file says so and ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epaxos.testing import events
from epaxos.testing.model.laws import Broken
from epaxos.testing.model.site import Crash, Deliver, Fire, Move, Recover, Resend, Submit, Sync
from epaxos.testing.writing import write_scenario


def scenario(n: int, way: Sequence[Move], broken: Broken, *, slow_disk: bool = False, where: str) -> str:
    """The file. `where` says how to come by it again."""
    told = list(_told(n, way, slow_disk))
    return write_scenario(n, told, story=f"{broken}\nFound by: {where}")


def _told(n: int, way: Sequence[Move], slow_disk: bool) -> Iterator[events.Event]:
    """The moves, as events."""
    if slow_disk:
        yield from map(events.HoldDisk, range(n))
    for number, (me, move) in enumerate(way):
        match move:
            case Submit(batch):
                yield events.Submit(me, number, batch.run)
            case Deliver(source, message):
                yield events.Deliver(source, me, message)
            case Fire(timer):
                yield events.Wake(me, timer)
            case Recover(id_):
                yield events.Act("recover", me, id_)
            case Sync():
                yield events.Sync(me)
            case Crash(keep):
                yield events.Crash(me, keep)
                yield events.Restart(me)
            case Resend():
                pass  # in a scenario nothing is lost that was not dropped
