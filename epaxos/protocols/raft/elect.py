"""Elections: when to hold one, who may win it, and what stops a replica that was away from disturbing the others.

Dissertation 3.4 (leader election), 3.6.1 (who is up to date), 9.6 (PreVote), 6.2 and 6.4 (CheckQuorum and leader
stickiness), 3.10 (transfer). Term and vote are saved before anything that rests on them leaves: `Send` waits for them
by default, and the own vote counts when the disk answers.
"""

from __future__ import annotations

from typing import Final

from epaxos.ids import ReplicaId
from epaxos.messages import AppendEntries, RequestVote, TimeoutNow, Vote
from epaxos.protocols.interface import SetTimer
from epaxos.protocols.raft.state import Role, State

ELECTION: Final = "election"
DOUBLINGS_MAX: Final = 3
"""A candidate that fails waits for twice as long each time, so often. Small: where round trips are longer than anybody
measured, nobody waits long enough to win. Large: after a long partition nobody is in a hurry."""


class Elect:
    """The part of every replica in the elections of its terms."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.held = 0
        """Elections begun here, without those that PreVote stopped."""
        self._since_us = 0
        """When the election timeout began to run."""
        self._timeout_us = 0
        self._heard_us: int | None = None
        """When the leader of this term was last heard; None when it is not known to be alive."""
        self._failures = 0
        self._votes: set[ReplicaId] = set()
        """Who granted, in the current campaign: a set, since links duplicate."""
        self._vote_mark = 0
        self._asked_us = 0

    # -- when

    def start(self) -> None:
        """A replica that is a majority by itself needs to hear nobody."""
        if self.state.majority == 1:
            self._campaign(pre=False)
        else:
            self._rest()

    def _rest(self) -> None:
        """Let a new timeout run from now."""
        base_us = self.state.election_us() << min(self._failures, DOUBLINGS_MAX)
        self._since_us = self.state.now.mono_us
        self._timeout_us = base_us + self.state.rng.randrange(0, base_us)
        self._set_timer()

    def _set_timer(self) -> None:
        self.state.effects.append(SetTimer(timer=ELECTION, at_us=self._since_us + self._timeout_us))

    def heard(self) -> None:
        """The leader is alive. The timer is left where it is: when it fires, it looks at this."""
        self._since_us = self._heard_us = self.state.now.mono_us
        self._failures = 0

    def due(self) -> None:
        """The timer fired: unless the leader was heard meanwhile, it is time for a new one."""
        if self.state.role is Role.LEADER or self.state.majority == 1:
            return
        if self.state.now.mono_us < self._since_us + self._timeout_us:
            self._set_timer()
            return
        if self.state.role is not Role.FOLLOWER:
            self._failures += 1
        self._campaign(pre=True)

    def peer_down(self, peer: ReplicaId) -> None:
        """The link to the leader broke, a hint that it is dead. A replica that has more than the hint does not vote."""
        state = self.state
        if peer == state.leader and state.role is Role.FOLLOWER:
            self._heard_us = None
            self._hurry(state.rng.randrange(0, state.round_trip_us()))

    def peer_up(self) -> None:
        """A link came up. If it was missing for an election, there is no need to wait out the failures so far."""
        if self.state.leader is None and self._failures:
            self._failures = 0
            base_us = self.state.election_us()
            self._hurry(base_us + self.state.rng.randrange(0, base_us))

    def _hurry(self, us: int) -> None:
        """Let the timeout end after `us` at the latest."""
        left_us = self._since_us + self._timeout_us - self.state.now.mono_us
        if us < left_us:
            self._timeout_us -= left_us - us
            self._set_timer()

    def _leader_lives(self) -> bool:
        """Stickiness: a leader that was heard within an election timeout is not voted out by somebody who misses it."""
        state = self.state
        if state.role is Role.LEADER:
            return True
        return self._heard_us is not None and state.now.mono_us < self._heard_us + state.election_us()

    # -- terms

    def follow(self, term: int, leader: ReplicaId | None = None) -> None:
        """Be a follower in `term`, which is this one or a later one."""
        state = self.state
        deposed = state.role is Role.LEADER
        if term > state.term:
            state.term, state.vote = term, None
            state.save_term()
            self._heard_us = None
        if leader is not None and leader != state.leader:
            state.note("term", f"{term}, led by {leader}")
        state.role, state.leader = Role.FOLLOWER, leader
        if deposed:
            self._heard_us = None
            state.note("deposed", f"term {term}")
            self._rest()

    # -- the candidate

    def _campaign(self, *, pre: bool, transfer: bool = False) -> None:
        """Ask for votes; `pre` only asks whether it is worth asking, and leaves term and vote as they are."""
        state = self.state
        state.leader = None
        self._heard_us = None
        if pre:
            state.role = Role.PRECANDIDATE
            term = state.term + 1
            self._votes = {state.me}
        else:
            state.role = Role.CANDIDATE
            term = state.term = state.term + 1
            state.vote = state.me
            self._votes = set()
            self._vote_mark = state.save_term()
            self.held += 1
            state.note("election", f"term {term}")
        self._asked_us = state.now.mono_us
        last, last_term = state.log.last, state.log.last_term
        ask = RequestVote(term=term, last_index=last, last_term=last_term, pre=pre, transfer=transfer)
        state.send(state.others, ask)
        self._rest()

    def on_timeout_now(self, peer: ReplicaId, message: TimeoutNow) -> None:
        """The leader hands over: no need to ask first, and stickiness does not count."""
        if message.term == self.state.term and peer == self.state.leader:
            self._campaign(pre=False, transfer=True)

    def own_vote_durable(self) -> bool:
        """The disk answered: does the own vote win the election?"""
        if self.state.role is not Role.CANDIDATE or self._vote_mark > self.state.durable:
            return False
        return self._count(self.state.me)

    def on_vote(self, peer: ReplicaId, message: Vote) -> bool:
        """An answer: does it win the election?"""
        state = self.state
        if peer not in state.measured and state.role in (Role.PRECANDIDATE, Role.CANDIDATE):
            # Nobody has measured this round trip: what an answer takes, syncs included, is the best there is.
            state.rtt_us[peer] = max(state.rtt_us[peer], state.now.mono_us - self._asked_us)
        if not message.granted:
            if message.term > state.term:
                self.follow(message.term)
        elif message.pre:
            if state.role is Role.PRECANDIDATE and message.term == state.term + 1:
                self._votes.add(peer)
                if len(self._votes) >= state.majority:
                    self._campaign(pre=False)
        elif state.role is Role.CANDIDATE and message.term == state.term:
            return self._count(peer)
        return False

    def _count(self, voter: ReplicaId) -> bool:
        self._votes.add(voter)
        return len(self._votes) >= self.state.majority

    # -- the voter

    def on_request_vote(self, peer: ReplicaId, message: RequestVote) -> None:
        """One vote a term, for a candidate whose log lacks nothing that may be committed (3.6.1)."""
        state = self.state
        if message.term > state.term and not message.transfer and self._leader_lives():
            return
        log = state.log
        up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last)
        if message.pre:
            granted = message.term > state.term and up_to_date
        else:
            if message.term > state.term:
                self.follow(message.term)
            granted = message.term == state.term and state.vote in (None, peer) and up_to_date
            if granted and state.vote is None:
                state.vote = peer
                state.save_term()
                self._rest()
        term = message.term if granted else state.term
        state.send((peer,), Vote(term=term, granted=granted, pre=message.pre))

    # -- the leader, seen from a replica of its own

    def on_leader(self, peer: ReplicaId, message: AppendEntries) -> bool:
        """Somebody leads `message.term`: follow, unless that term is over. Returns whether it is not."""
        state = self.state
        if message.term < state.term:
            return False
        if message.term == state.term and state.role is Role.LEADER:
            raise AssertionError(f"two leaders of term {state.term}: {state.me} and {peer}")
        self.follow(message.term, peer)
        self.heard()
        return True

    def digest(self) -> tuple[object, ...]:
        """For digests."""
        times = (self._since_us, self._timeout_us, self._heard_us, self._asked_us)
        return (times, self._failures, sorted(self._votes), self._vote_mark)
