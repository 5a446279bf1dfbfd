"""Metrics of a run: vLLM's, intervals, and whether an SLO is met."""
