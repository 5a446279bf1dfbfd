"""The line of the linear step time, apart from its settings so that it can be compiled."""

from __future__ import annotations

from busdoor.core.batch import Batch


class LinearCost:
    """The terms of `LinearStepTime`, in seconds."""

    __slots__ = ("base_s", "per_context_s", "per_request_s", "per_token_s")

    def __init__(
        self, base_s: float, per_token_s: float, per_context_s: float, per_request_s: float
    ) -> None:
        self.base_s = base_s
        self.per_token_s = per_token_s
        self.per_context_s = per_context_s
        self.per_request_s = per_request_s

    def line(self, batch: Batch) -> tuple[float, float]:
        """Seconds of a batch's first iteration, and how many more each repetition takes."""
        rows = batch.num_decode_tokens + batch.num_idle_rows
        tokens = batch.num_prefill_tokens + batch.num_decode_tokens + batch.num_padded_tokens
        pairs = batch.prefill_attention + (batch.decode_context_tokens + rows)
        requests = len(batch.chunks) + rows
        fixed_s = self.base_s + self.per_request_s * requests
        return (
            fixed_s + self.per_token_s * tokens + self.per_context_s * pairs,
            self.per_context_s * rows,
        )
