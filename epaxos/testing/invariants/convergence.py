"""Once every fault is healed, all replicas execute everything and come to the same state, in a bounded time."""

from __future__ import annotations

from epaxos.testing.invariants.base import Final, Invariant


class Convergence(Invariant):
    """Liveness, as far as a finite run can show it."""

    name = "convergence"
    reason = "With everybody up and links that work, nothing may wait for ever, and equal logs give equal states."
    at_rest = True

    def finished(self, final: Final) -> None:
        if not final.settled:
            where = "; ".join(
                f"replica {replica} executed {frontier.watermark} and {sorted(map(str, frontier.beyond))}, "
                f"{final.waiting[replica]} decided ids wait"
                for replica, frontier in sorted(final.frontiers.items())
            )
            raise self.no(f"not at rest in the time there was: {where}")
        first, *others = sorted(final.states)
        for other in others:
            if final.states[other] != final.states[first]:
                raise self.no(f"the states of replicas {first} and {other} differ")
