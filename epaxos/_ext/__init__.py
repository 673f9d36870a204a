"""Compiled twins of pure modules; see `epaxos/accel.py`."""
