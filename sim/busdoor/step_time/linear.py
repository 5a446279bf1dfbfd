"""The step time of the golden cases: linear in requests, tokens and query-key pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from busdoor.core.batch import Batch
from busdoor.core.registry import in_one_sentence
from busdoor.step_time.base import Line, LineStepTime, TermSeconds
from busdoor.step_time.linear_cost import LinearCost


@in_one_sentence
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LinearStepTime(LineStepTime):
    """It takes base + per_request·B + per_token·Σn + per_context·Σ n·(c + (n + 1)/2) seconds.

    The sums are over the requests of the iteration: n tokens of a request, after c that are in the
    KV cache. Whatever the policy computes counts: prompt padding, and finished rows of a static
    batch that still run.

    Parameters
    ----------
    base_s : float
        Seconds of any iteration (reading the weights, launching the kernels).
    per_token_s : float
        Seconds more for each position computed.
    per_context_s : float
        Seconds more for each query-key pair.
    per_request_s : float
        Seconds more for each request in the batch.

    Examples
    --------
    Three decodes with 30 tokens in the cache compute 3 positions and 33 pairs; the next iteration
    has 3 pairs more.

    >>> step_time = LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-6)
    >>> batch = Batch(num_decode_tokens=3, decode_context_tokens=30)
    >>> step_time.line(batch)
    (0.005183, 3e-06)
    >>> step_time.durations_s(batch, repeat=2)
    array([0.005183, 0.005186])
    """

    base_s: TermSeconds
    per_token_s: TermSeconds = 0.0
    per_context_s: TermSeconds = 0.0
    per_request_s: TermSeconds = 0.0

    def __post_init__(self) -> None:
        if not any((self.base_s, self.per_token_s, self.per_context_s, self.per_request_s)):
            raise ValueError(
                "an iteration would take no time; give base_s, or another term above 0"
            )

    @cached_property
    def _cost(self) -> LinearCost:
        return LinearCost(self.base_s, self.per_token_s, self.per_context_s, self.per_request_s)

    def line(self, batch: Batch) -> Line:
        """Seconds of the first iteration, and how many more each repetition takes."""
        return self._cost.line(batch)

    def line_function(self) -> Callable[[Batch], Line | None]:
        """Return what computes `line`, without a call in between."""
        return self._cost.line if type(self).line is LinearStepTime.line else self.line

    def describe(self) -> dict[str, Any]:
        """Name and parameters, as a result's meta.json keeps them."""
        return {
            "name": "linear",
            "base_s": self.base_s,
            "per_token_s": self.per_token_s,
            "per_context_s": self.per_context_s,
            "per_request_s": self.per_request_s,
        }
