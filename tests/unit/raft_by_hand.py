"""Raft clusters by hand: an election that somebody wins, and logs that are on the disks before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epaxos.command import Batch
from epaxos.ids import BatchNumber, ReplicaId
from epaxos.packing import encode_run
from epaxos.protocols.raft.elect import ELECTION
from epaxos.protocols.raft.log import Entry, encode_entry, entry_key
from epaxos.protocols.raft.protocol import Raft
from epaxos.protocols.raft.state import RECORD_VERSION, TERM_KEY, TERM_RECORD, Role
from epaxos.storage.interface import WriteGroup
from epaxos.testing.byhand import SECRET, ByHand, append


def raft(cluster: ByHand, i: ReplicaId) -> Raft:
    """The protocol of site `i`."""
    protocol = cluster.sites[i].protocol
    assert isinstance(protocol, Raft)
    return protocol


def role(cluster: ByHand, i: ReplicaId) -> Role:
    """What site `i` is."""
    return raft(cluster, i).state.role


def terms(cluster: ByHand, i: ReplicaId) -> list[int]:
    """The terms of the entries of site `i`, from the first."""
    log = raft(cluster, i).state.log
    return [log.term(index) for index in range(1, log.last + 1)]


def elected(cluster: ByHand, i: ReplicaId) -> None:
    """Site `i` wins an election that everybody hears of."""
    cluster.wake(i, ELECTION)
    cluster.settle()
    assert role(cluster, i) is Role.LEADER


def silence(cluster: ByHand) -> None:
    """So much time without a message that nobody knows of a living leader; what left meanwhile is lost."""
    for i, site in enumerate(cluster.sites):
        if site.up:
            cluster.ahead_us[i] += 2 * raft(cluster, i).state.election_us()
            cluster.turn(i)
    cluster.drop()


def led(n: int = 3, **settings: int) -> ByHand:
    """A cluster that site 0 leads."""
    cluster = ByHand(n, protocol="raft", **settings)
    elected(cluster, 0)
    return cluster


def entry(term: int, index: int) -> Entry:
    """An entry that nobody else's client submitted: the same for the same term and index."""
    run = encode_run(SECRET, [append("k", f"<{index}.{term}>")])
    return Entry(term, Batch.of(BatchNumber(0, 1, term * 100 + index), run))


def with_logs(logs: Mapping[ReplicaId, Sequence[int]], n: int, term: int) -> ByHand:
    """A cluster whose sites start on these logs, given as the terms of their entries; nobody voted in `term`."""
    cluster = ByHand(n, protocol="raft")
    for i in range(n):
        cluster.crash(i)
    cluster.drop()
    for i in range(n):
        puts = [(TERM_KEY, TERM_RECORD.pack(RECORD_VERSION, term, -1))]
        puts += [
            (entry_key(index), encode_entry(entry(each, index))) for index, each in enumerate(logs.get(i, ()), start=1)
        ]
        disk = cluster.sites[i].disk
        disk.write(WriteGroup(tuple(puts), (), 1))
        disk.sync()
        cluster.sites[i].disk = disk.crash()
    for i in range(n):
        cluster.restart(i)
    cluster.drop()
    return cluster
