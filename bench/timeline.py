"""What clients saw over time while replicas died and came back: buckets for plots, and the longest gaps.

Everything here is a function of what became of each command; it does not matter whether that was measured in real or in
virtual time. Times are integer microseconds from the moment the measurement begins; what lies before is warm-up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.tally import percentile
from epaxos.quorums import quorums
from topology import Matrix

OTHER: Final = "other"
"""Keys that nobody but one client writes."""
SHARED: Final = "shared"
"""The key that all sites write, the dead one among them until it died."""
KINDS: Final = (OTHER, SHARED)


class Answer(NamedTuple):
    """A command that was answered: when it should have left, and how long after that the reply came."""

    due_us: int
    took_us: int

    @property
    def at_us(self) -> int:
        """When the reply came."""
        return self.due_us + self.took_us


Answers = Mapping[tuple[str, str], Sequence[Answer]]
"""(site, kind of key) -> its commands that were answered."""


@dataclass(frozen=True, kw_only=True)
class Outage:
    """One replica dead for a while: killed, started again, serving again."""

    site: str
    killed_us: int
    restarted_us: int
    serving_us: int
    until_us: int
    """As long as its return is watched."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What one surviving site's clients noticed of one outage, on one kind of key. Times in microseconds."""

    site: str
    kind: str
    rtt_us: int
    """Computed: one round trip to the nearest majority of those alive, without which nothing is decided there."""
    spacing_us: int
    """The longest time in which no command was due; a gap cannot be told from one that is as long."""
    before_us: int
    """The longest time without an answer before anybody was killed."""
    down_us: int
    """The longest time without an answer from the kill to the restart; to the end if there was no more answer."""
    back_us: int
    """The same from the restart on."""
    wait_before_us: int | None
    """What the slowest command took that was due before anybody was killed."""
    wait_us: int | None
    """Of the commands due while it was down, what the slowest took; None when none was answered."""
    unanswered: int
    """Of those, how many were refused or ended with an unknown outcome."""

    @property
    def within_rtt(self) -> bool:
        """Did answers keep coming, at intervals of one round trip at most, while a site died and while it returned?"""
        return max(self.down_us, self.back_us) <= self.rtt_us


def survivors_rtt_us(matrix: Matrix, site: str, dead: str) -> int:
    """The round trip from `site` to the farthest member of its nearest majority without `dead`."""
    alive = [rtt_us for rtt_us, peer in matrix.nearest(site) if peer != dead]
    return alive[quorums(len(matrix.sites)).majority - 2]


def gaps(
    matrix: Matrix, outage: Outage, answers: Answers, due: Mapping[tuple[str, str], Sequence[int]], *, quiet_us: int
) -> list[Gap]:
    """For every site but the dead one and every kind of key. `due`: when all commands should have left; `quiet_us`:
    until when nobody had been killed."""
    found = []
    for site, kind in itertools.product(matrix.sites, KINDS):
        if site == outage.site:
            continue
        these = answers.get((site, kind), ())
        at_us = sorted(each.at_us for each in these)
        waited = _took(these, outage.killed_us, outage.restarted_us)
        due_us = sorted(due.get((site, kind), ()))
        planned = sum(outage.killed_us <= each < outage.restarted_us for each in due_us)
        found.append(
            Gap(
                site=site,
                kind=kind,
                rtt_us=survivors_rtt_us(matrix, site, outage.site),
                spacing_us=longest_gap_us(due_us, outage.killed_us, outage.until_us),
                before_us=longest_gap_us(at_us, 0, quiet_us),
                down_us=longest_gap_us(at_us, outage.killed_us, outage.restarted_us),
                back_us=longest_gap_us(at_us, outage.restarted_us, outage.until_us),
                wait_before_us=max(_took(these, 0, quiet_us), default=None),
                wait_us=max(waited, default=None),
                unanswered=planned - len(waited),
            )
        )
    return found


def _took(answers: Iterable[Answer], from_us: int, until_us: int) -> list[int]:
    return [each.took_us for each in answers if from_us <= each.due_us < until_us]


def longest_gap_us(ascending_us: Iterable[int], from_us: int, until_us: int) -> int:
    """The longest time without an event of which some lies between two moments. It counts from the last event before
    them on, if there was one, and to `until_us` at most."""
    last_us, longest_us = None, 0
    for at_us in ascending_us:
        if at_us >= until_us:
            break
        if at_us > from_us:
            longest_us = max(longest_us, at_us - (from_us if last_us is None else last_us))
        last_us = at_us
    return max(longest_us, until_us - (from_us if last_us is None else last_us))


class Bucket(NamedTuple):
    """So long of a timeline."""

    answered: int
    """Replies that came in it."""
    p50_us: int | None
    """Of the commands that were due in it and were answered; None where there are too few."""
    max_us: int | None


def buckets(answers: Iterable[Answer], *, bucket_us: int, until_us: int) -> Iterator[Bucket]:
    """From 0 to `until_us`, one after the other."""
    count = -(-until_us // bucket_us)
    replies, took = [0] * count, [list[int]() for _ in range(count)]
    for each in answers:
        if 0 <= each.at_us < until_us:
            replies[each.at_us // bucket_us] += 1
        if 0 <= each.due_us < until_us:
            took[each.due_us // bucket_us].append(each.took_us)
    for answered, took_us in zip(replies, took, strict=True):
        took_us.sort()
        yield Bucket(answered, percentile(took_us, 0.5), took_us[-1] if took_us else None)
