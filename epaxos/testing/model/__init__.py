"""Tier 0: the protocol objects that ship, in a small world in which everything that can happen does.

There is no clock here and no chance. A message that was sent stays under way for ever, so that loss, delay, repetition
and reordering are all just orders of delivery; a timer may fire whenever it is set; a recovery may begin whenever some
timing would begin it; the disk is as slow as it likes; a replica may lose its power between any two events.

- `scope`: what a small world holds, by name.
- `site`: one replica with its disk, in frozen time. It calls `EPaxos.step` and carries out the effects.
- `table`: every local step is made once, however often it recurs.
- `laws`: what must hold (protocol.md 1.7), of each step and of what everybody has sent so far.
- `explore`: every state of a scope, breadth first.
- `walks`: random ways through scopes too large for that, biased towards recoveries.
- `story`: a way to a violation, told as a scenario.
"""
