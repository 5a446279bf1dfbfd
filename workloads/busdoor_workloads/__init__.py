"""What arrives: lengths, arrival processes, traces and profiles of public traces."""

from busdoor_workloads.trace import Trace

__all__ = ["Trace"]
