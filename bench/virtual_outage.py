"""The script of `bench.outage` with whole engines in virtual time: the protocol alone, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bench.cell import HOT_KEY, CellError
from bench.outage import WARMUP_S, Progress, Record, Script
from bench.timeline import OTHER, SHARED, Answer, Outage
from bench.virtual import LINKS_UP_US, SECOND_US, Lab
from topology import Matrix

DETECT_US: Final = 1_000
"""What a kill costs until the connections of the dead one break: its machine still answers for it."""
STEP_US: Final = 250_000
DRAIN_US: Final = 5 * SECOND_US


def run(matrix: Matrix, protocol: str, leader: str | None, script: Script, progress: Progress) -> Record:
    """As `outage.run`. Raises CellError when nobody leads who should, and Violation when safety is lost."""
    return _Run(matrix, protocol, leader, script).record(progress)


class _Run:
    def __init__(self, matrix: Matrix, protocol: str, leader: str | None, script: Script) -> None:
        self.matrix, self.script, self.leader = matrix, script, leader
        self.lab = Lab(
            matrix,
            protocol=protocol,
            detect_us=DETECT_US,
            seed=script.seed,
            leader=None if leader is None else matrix.index(leader),
        )
        self.zero_us = LINKS_UP_US + round(WARMUP_S * 1e6)
        self.outages: list[Outage] = []

    def record(self, progress: Progress) -> Record:
        """Load, kill, wait, and tell."""
        lab, script = self.lab, self.script
        record = Record(leader=self.leader)
        for site, name in enumerate(self.matrix.sites):
            plan = script.plan(name)
            record.add_due(name, plan)
            for arrival in (each for client in plan for each in client):
                lab.at(LINKS_UP_US + arrival.at_us, lab.ask, site, arrival.key, b"v" * 16)
        for name, killed_us, restarted_us, until_us in script.kills():
            outage = Outage(
                site=name, killed_us=killed_us, restarted_us=restarted_us, serving_us=until_us, until_us=until_us
            )
            lab.at(self.zero_us + killed_us, self._kill, outage)
        for at_us in range(0, self.zero_us + script.until_us + DRAIN_US, STEP_US):
            lab.run_until(at_us)
            if at_us == self.zero_us:
                self._check_leader()
            progress(f"{at_us / SECOND_US:.0f} s of virtual time, {len(lab.asked)} commands asked")
        self._enter(record)
        return record

    def _check_leader(self) -> None:
        if self.leader is not None:
            led = {node.engine.protocol.status()["leader"] for node in self.lab.nodes}
            if led != {self.matrix.index(self.leader)}:
                raise CellError(f"{self.leader} did not lead when the measurement began")

    def _kill(self, outage: Outage) -> None:
        self.lab.cut_power(self.matrix.index(outage.site))
        self.lab.at(self.zero_us + outage.restarted_us, self._restart, outage)

    def _restart(self, outage: Outage) -> None:
        self.lab.restart(self.lab.nodes[self.matrix.index(outage.site)])
        self.outages.append(replace(outage, serving_us=self.lab.now_us - self.zero_us))

    def _enter(self, record: Record) -> None:
        record.outages = self.outages
        for each in self.lab.asked:
            if each.took_us is not None:
                kind = SHARED if each.key == HOT_KEY.encode() else OTHER
                answers = record.answers.setdefault((self.matrix.sites[each.site], kind), [])
                answers.append(Answer(each.asked_us - self.zero_us, each.took_us))
