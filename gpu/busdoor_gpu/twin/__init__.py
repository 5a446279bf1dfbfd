"""A machine profiled, fitted, and compared with held-out replays."""
