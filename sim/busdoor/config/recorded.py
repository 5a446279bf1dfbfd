"""Traces from recorded ones: at another rate, rows drawn again, or all at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor_workloads import Trace, stream

# A saturated run of fewer requests would be mostly filling and draining: the largest batches hold
# several hundred.
FULL_REQUESTS = 4000


def resampled(trace: Trace, seed: int, replication: int) -> Trace:
    """Draw a replication of a trace: same arrivals, rows with replacement; number 0 is itself.

    Raises ValueError if rows depend on each other (sessions, shared prefixes), so that they cannot
    be drawn one by one.
    """
    if replication == 0:
        return trace
    if not is_replicable(trace):
        raise ValueError(
            f"the rows of {trace.name} belong together (sessions or shared prefixes), so it can be "
            "run only once; use replications = 1"
        )
    rows = stream(seed, f"resample {replication}").integers(len(trace), size=len(trace))
    return _take(trace, rows, trace.arrival_s)


def is_replicable(trace: Trace) -> bool:
    """Whether a recorded trace's rows can be drawn anew one by one."""
    return trace.session_id is None and trace.hash_ids is None


def burst(trace: Trace, at_least: int = FULL_REQUESTS) -> Trace:
    """All requests at once, repeated to keep any server full; no think times or timeouts.

    In a closed loop, "at once" is as many as there are users.

    >>> two = Trace(arrival_s=[0.0, 9.0], input_tokens=[5, 6], output_tokens=[1, 2])
    >>> burst(two, at_least=3).input_tokens
    array([5, 6, 5, 6])
    """
    copies = 1 if trace.hash_ids is not None else -(-at_least // max(1, len(trace)))
    rows = np.tile(np.arange(len(trace)), copies)
    alone: dict[str, Any] = dict.fromkeys(("session_id", "turn", "think_time_s", "timeout_s"))
    return replace(_take(trace, rows, np.zeros(len(rows))), **alone)


def _take(trace: Trace, rows: NDArray[np.int64], arrival_s: NDArray[np.float64]) -> Trace:
    """Return rows in any order, with other arrival times."""
    # rows out of order may not have times out of order
    at_once = trace.with_arrivals(np.zeros(len(trace)))
    return at_once.select(rows).with_arrivals(arrival_s)


def at_rate(trace: Trace, request_rate: float, seed: int) -> Trace:
    """Return a trace at another rate: arrivals stretched, or Poisson if all arrive at once.

    >>> trace = Trace(arrival_s=[0.0, 1.0], input_tokens=[5, 6], output_tokens=[1, 2])
    >>> at_rate(trace, float("inf"), seed=0).arrival_s
    array([0., 0.])
    """
    if np.isinf(request_rate):
        return trace.with_arrivals(np.zeros(len(trace)))
    if np.isfinite(trace.request_rate):
        return trace.at_rate(request_rate)
    return trace.with_arrivals(
        np.cumsum(stream(seed, "arrivals").exponential(1 / request_rate, len(trace)))
    )
