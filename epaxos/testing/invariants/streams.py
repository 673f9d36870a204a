"""Conflicting commands of one stream take effect in the order of their submission."""

from __future__ import annotations

from collections import defaultdict

from epaxos.command import Command
from epaxos.testing.invariants.base import Final, Invariant
from epaxos.testing.record import EVERYTHING, Call, touches


class StreamOrder(Invariant):
    """Also when the first of them became a Nop and had to be proposed again (protocol.md 4.6, S43)."""

    name = "stream_order"
    reason = "A Redis client that pipelines SET k 1, SET k 2 must find 2."

    def finished(self, final: Final) -> None:
        streams: dict[int, list[Call]] = defaultdict(list)
        for call in self.record.calls:
            streams[call.stream].append(call)
        for replica, log in self.record.newest().items():
            places: dict[Command, int] = {}
            for applied in log:
                for command in applied.commands:
                    places[command] = len(places)
            for stream, calls in streams.items():
                executed = [call for call in calls if call.form.command in places]
                for position, later in enumerate(executed):
                    for earlier in executed[:position]:
                        if places[earlier.form.command] > places[later.form.command] and _conflict(earlier, later):
                            raise self.no(f"replica {replica}, stream {stream}: {later} executed before {earlier}")


def _conflict(a: Call, b: Call) -> bool:
    mine, theirs = touches(a.form.command), touches(b.form.command)
    return any(
        (x.writes or y.writes) and (x.key == y.key or EVERYTHING in (x.key, y.key)) for x in mine for y in theirs
    )
