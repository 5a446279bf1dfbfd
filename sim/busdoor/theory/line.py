"""A step time linear in the batch's requests: what most closed forms need of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from busdoor.step_time.linear import LinearStepTime


@dataclass(frozen=True)
class StepLine:
    """It takes base + per_request·n + per_prefill_token·(prompt tokens beyond one a request).

    A request's first iteration computes its prompt and yields its first token, so it counts like a
    decode, and the prompt costs by its other tokens: a request with `p` prompt tokens has `p - 1`
    **prefill tokens** in this module.

    Parameters
    ----------
    base_s : float
        Seconds of any iteration.
    per_request_s : float
        Seconds more for each request.
    per_prefill_token_s : float
        Seconds more for each prompt token beyond the one that yields the first token.

    Examples
    --------
    >>> line = StepLine(base_s=0.25, per_request_s=0.5)
    >>> line.step_s(3)
    1.75
    """

    base_s: float
    per_request_s: float = 0.0
    per_prefill_token_s: float = 0.0

    @classmethod
    def of(cls, step_time: LinearStepTime) -> StepLine:
        """Read the line off a linear step time.

        Raises
        ------
        ValueError
            If it depends on the context, which a line in n does not have; use
            `continuous_capacity_rps`.

        Examples
        --------
        >>> StepLine.of(LinearStepTime(base_s=0.02, per_token_s=1e-4, per_request_s=4e-4))
        StepLine(base_s=0.02, per_request_s=0.0005, per_prefill_token_s=0.0001)
        """
        if step_time.per_context_s:
            raise ValueError(
                f"per_context_s is {step_time.per_context_s}; a closed form in n needs it to be 0"
            )
        per_request_s = step_time.per_request_s + step_time.per_token_s
        return cls(step_time.base_s, per_request_s, step_time.per_token_s)

    def step_s(self, num_requests: float) -> float:
        """Seconds of an iteration without prefill."""
        return self.base_s + self.per_request_s * num_requests
