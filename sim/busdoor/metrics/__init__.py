"""What a run came to: vLLM's metrics, intervals, and whether an SLO is met."""
