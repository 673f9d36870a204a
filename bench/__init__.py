"""Measuring: load that hides no queueing, clusters of real processes on this machine, and tables."""
