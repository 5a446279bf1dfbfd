"""Whether a run shows a load, or only how a queue builds up: a transient."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor_workloads import Trace

_POINTS = 400  # instants at which the requests present are counted
_SIGMAS = 2.0  # of a Poisson count, by which the requests present must have grown


def transient(
    requests: pd.DataFrame, trace: Trace, load: float, meta: Mapping[str, Any] | None = None
) -> str:
    """Return why an open run is a transient, not a load; empty for a load, and for a burst.

    Its queue grows at ρ ≥ 1, or did: in the last quarter of the arrivals more than twice as many
    requests were present as in the second, and more than chance makes of it. Or it began empty and
    was shorter than its relaxation time, mean E2E latency / (1 - ρ): with steps of a + b n seconds
    a batch of n requests closes the distance to its steady size at that pace, as ρ = b n / step. A
    run whose meta has `num_present` began in the steady state.

    >>> times = np.arange(100.0)
    >>> trace = Trace(arrival_s=times, input_tokens=[9] * 100, output_tokens=[9] * 100)
    >>> done = pd.DataFrame({"arrival_s": times, "finish_s": times + 4.0})
    >>> [transient(done, trace, load) for load in (0.5, 0.98, 1.2)]
    ['', 'it lasted 99 s, its relaxation time is 200 s', 'at ρ = 1.20 its queue grows as long as it lasts']
    >>> transient(done, trace, 0.98, {"num_present": 4})
    ''
    >>> transient(done.assign(finish_s=1.5 * times + 4), trace, 0.5)
    'its queue grew, from 15 requests present to 32'
    """
    if not isfinite(load) or not isfinite(trace.request_rate):
        return ""
    if load >= 1:
        return f"at ρ = {load:.2f} its queue grows as long as it lasts"
    # of a request without an answer nobody knows when it left
    answered = requests.loc[requests["finish_s"].notna(), ["arrival_s", "finish_s"]]
    if not len(answered):
        return ""
    arrival_s, finish_s = answered.to_numpy(dtype=float).T
    lasted_s = float(np.ptp(arrival_s))
    relaxation_s = float(np.mean(finish_s - arrival_s)) / (1 - load)
    if lasted_s < relaxation_s and not (meta or {}).get("num_present"):
        return f"it lasted {lasted_s:.3g} s, its relaxation time is {relaxation_s:.3g} s"
    early, late = _present(arrival_s, finish_s)
    if late > 2 * early and late - early > _SIGMAS * sqrt(late):
        return f"its queue grew, from {early:.0f} requests present to {late:.0f}"
    return ""


def _present(arrival_s: Floats, finish_s: Floats) -> tuple[float, float]:
    """Return the mean number of requests present in the second and last quarter of the arrivals."""
    at = np.linspace(arrival_s.min(), arrival_s.max(), _POINTS)
    came, left = (
        np.searchsorted(np.sort(times), at, side="right") for times in (arrival_s, finish_s)
    )
    quarters = (came - left).reshape(4, -1).mean(axis=1)
    return float(quarters[1]), float(quarters[3])
