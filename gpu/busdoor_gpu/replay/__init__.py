"""Replay of a trace on hardware, with the simulator's own result."""
