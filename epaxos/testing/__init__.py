"""The public test kit: whole clusters in virtual time under faults, invariants, histories and their checkers.

`epaxos.testing.seeds` runs them, `epaxos.testing.linearizability` judges a history, `epaxos.testing.conformance` holds
what every store must do, `epaxos.testing.byhand` is a cluster in which every event is the caller's, and
`epaxos.testing.mutants` puts bugs in to see whether all of this finds them.
"""
