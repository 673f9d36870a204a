"""Regions on one machine: a network namespace for each site of a matrix, and links between them as long as it says.

`back ends`: *netem* is the kernel's own emulation (`tc netem`) on a full mesh of veth pairs; *tun* does the same with a
router in user space, for kernels without netem. Any program can run inside: `python -m topology exec REGION -- CMD`.
"""

from topology.lab.lab import Lab, bring_up, find, tear_down
from topology.lab.namespaces import LabError

__all__ = ["Lab", "LabError", "bring_up", "find", "tear_down"]
