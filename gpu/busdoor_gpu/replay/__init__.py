"""A trace on hardware, into the simulator's own result."""
