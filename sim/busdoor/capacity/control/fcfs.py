"""A queue in place of servers that admit at every iteration: one first-come server's backlog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from busdoor.capacity.control.variate import Control, compared
from busdoor.core.arrays import Floats
from busdoor.metrics.slo_target import Target
from busdoor_workloads import Trace

_NEAR = 0.5  # of its limit: below it, a latency is not determined by the queue
_STEP = 1.1  # lengths are stretched by so much to see what a token costs


@dataclass(frozen=True)
class Backlog:
    """A queue with one server that works `work_s` for each request, as the real one does.

    It has no latencies: a request is late if its backlog exceeds that of the allowed share of many
    draws.
    """

    work_s: Callable[[Trace], Floats]

    def draws(self, traces: Sequence[Trace], length: int) -> tuple[Floats, Floats]:
        """Stack the gaps and the work of the first requests."""
        arrival = np.stack([trace.arrival_s[:length] for trace in traces])
        return np.diff(arrival), np.stack([self.work_s(trace)[:length] for trace in traces])

    def lateness(
        self, draws: tuple[Floats, Floats], request_rate: float
    ) -> Callable[[Target], Floats]:
        """Return the backlog that each request finds, in seconds, the same for all targets."""
        gaps, work_s = draws
        ahead_s = backlogs(gaps / request_rate, work_s)
        return lambda target: ahead_s

    def control(self, target: Target, own: Floats, others: Floats, ratio: float) -> Control:
        """Compare the late shares; for a mean, or where a share is extrapolated, the means.

        Near the limit of a latency that includes the wait, an excess of the queue is the same
        excess of the runs: there the late share is the allowed one in both, by definition and by
        the limit. Regression fails there: few draws have a late request, and where none of these
        has, all agree on being lucky.
        """
        if target.share is None:
            return compared(own, others)
        beyond = np.quantile(others, target.share)
        if ratio > _NEAR and not target.needs_tokens:
            return compared(own > beyond, others > beyond, slope=1.0)
        tail = compared(own > beyond, others > beyond)
        return tail if tail.reaches else compared(own, others)


def backlogs(gaps_s: Floats, work_s: Floats) -> Floats:
    """Return the work ahead of each request (Lindley's recursion), along the last axis.

    >>> backlogs(np.array([[1.0, 1.0, 9.0]]), np.array([[3.0, 1.0, 1.0, 1.0]]))
    array([[0., 2., 2., 0.]])
    """
    ahead = np.zeros_like(work_s)
    np.cumsum(work_s[..., :-1] - gaps_s, axis=-1, out=ahead[..., 1:])
    ahead -= np.minimum.accumulate(ahead, axis=-1)
    return ahead


@dataclass(frozen=True)
class Work:
    """The work of a request: by how much its tokens reduce a policy's throughput.

    `carried_rps`: what the policy carries of a trace's lengths, in closed form; `trace`: the
    lengths around which that is linear; `scale_rps`: measured, sets the mean.
    """

    carried_rps: Callable[[Trace], float]
    trace: Trace
    scale_rps: float

    def __call__(self, trace: Trace) -> Floats:
        """Return seconds, one per request."""
        fixed, per_input, per_output, scale = self._weights
        work: Floats = scale * (
            fixed + per_input * trace.input_tokens + per_output * trace.output_tokens
        )
        return work

    @cached_property
    def _weights(self) -> tuple[float, float, float, float]:
        """Seconds per request, prompt token and answer token; and the factor that sets the mean."""
        lengths = {name: getattr(self.trace, name) for name in ("input_tokens", "output_tokens")}
        means = np.array([tokens.mean() for tokens in lengths.values()])
        seconds = 1 / self.carried_rps(self.trace)
        longer = {
            name: np.ceil(_STEP * tokens).astype(tokens.dtype) for name, tokens in lengths.items()
        }
        more = [
            1 / self.carried_rps(replace(self.trace, **{name: tokens}))
            for name, tokens in longer.items()
        ]
        grown = np.array([tokens.mean() for tokens in longer.values()])
        slopes = np.maximum(0.0, (np.array(more) - seconds) / (grown - means))
        fixed = max(0.0, seconds - float(slopes @ means))
        scale = 1 / self.scale_rps / (fixed + float(slopes @ means))
        return fixed, float(slopes[0]), float(slopes[1]), scale
