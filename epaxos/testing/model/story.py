"""A way to a violation, told as a scenario file that whole engines replay step by step.

The model is a little freer than an engine: it asks for decisions whenever it likes. Where an engine cannot follow, the
file says so and ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from epaxos.ids import InstanceId
from epaxos.testing import writing
from epaxos.testing.model.laws import Broken
from epaxos.testing.model.site import Crash, Deliver, Fire, Move, Recover, Resend, Site, Submit, Sync


def scenario(n: int, way: Sequence[Move], broken: Broken, *, slow_disk: bool = False, where: str) -> str:
    """The file. `where` says how to come by it again."""
    told = list(_told(n, way, slow_disk))
    return writing.write_scenario(n, told, story=f"{broken}\nFound by: {where}")


def _told(n: int, way: Sequence[Move], slow_disk: bool) -> Iterator[writing.Event]:
    """The events in the words of scenarios. A submission is replayed to learn which id it takes."""
    sites = [Site(i, n, slow_disk=slow_disk, mortal=True, asked=True) for i in range(n)]
    if slow_disk:
        yield from map(writing.HoldDisk, range(n))
    for me, event in way:
        with suppress(AssertionError):  # the last step may be the one that breaks a law
            sites[me].take(event)
        match event:
            case Submit(batch):
                yield writing.Submit(me, InstanceId(0, sites[me].protocol.lead.next_slot - 1, me), batch)
            case Deliver(source, message):
                yield writing.Deliver(source, me, message)
            case Fire(timer):
                yield writing.Wake(me, timer)
            case Recover(id_):
                yield writing.Act("recover", me, id_)
            case Sync():
                yield writing.Sync(me)
            case Crash(keep):
                yield writing.Crash(me, keep)
                yield writing.Restart(me)
            case Resend():
                pass  # in a scenario nothing is lost that was not dropped
