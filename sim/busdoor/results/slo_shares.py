"""The share of a result within each limit of an SLO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.metrics.metrics import latencies, token_gaps, weighted_percentile
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_class import is_of_class
from busdoor.metrics.slo_target import Target
from busdoor.metrics.throughput import accepted
from busdoor.results.result import Result

_NEVER = 1e18  # stands for infinity where numbers are subtracted


def slo_shares(result: Result, slo: SLO) -> pd.Series[Any]:
    """Return the share within each limit, and whether all targets are met; NaN without any.

    A share of the requests that were not refused; for ITL of all gaps between tokens. Means are
    those of the finished requests. Of several plain limits each has its share too, beside that of
    the requests within all of them.
    """
    shares = {f"slo_{key}": result.slo(**{key: limit}) for key, limit in slo.plain_s.items()}
    shares |= {f"slo_{target.key}": _reached(result, target) for target in slo.targets}
    met = all(
        shares[f"slo_{target.key}"] >= (1.0 if target.share is None else target.share)
        for target in slo.targets
    )
    return pd.Series({**shares, "slo_met": met if slo else np.nan}, dtype=object)


def slo_ratios(result: Result, slo: SLO) -> dict[str, float]:
    """Return by target its value over its limit: 1 or less is met.

    Infinite where answers are not streamed and so have no such times; 0 without any request or gap.
    """
    return {target.key: _used(result, target) for target in slo.targets}


def _used(result: Result, target: Target) -> float:
    if target.needs_tokens and not result.meta.get("streams", True):
        return np.inf
    if target.latency == "itl":
        values, counts = token_gaps(result.iterations)
    else:
        values = _worst(result, target)
        counts = np.ones(len(values), dtype=np.int64)
    if not len(values):
        return 0.0
    over = values / target.limit_s if target.latency == "itl" else values
    if target.share is not None:
        return float(weighted_percentile(np.minimum(over, _NEVER), counts, 100 * target.share))
    known = np.isfinite(over)
    return float(np.average(over[known], weights=counts[known])) if known.any() else np.inf


def _worst(result: Result, target: Target) -> Floats:
    """Return for each request that is not refused its latency over the limit, the worst of several."""
    requests = accepted(result.requests)
    if target.group:
        requests = requests[is_of_class(requests, target.group)]
    times = latencies(requests).reindex(requests.index)
    over = pd.concat([times[name] / limit for name, limit in target.limits_s.items()], axis=1)
    answered = (requests["status"] == "finished").to_numpy()
    worst = over.fillna(0.0).max(axis=1) if target.is_goodput else over.max(axis=1)
    values: Floats = worst.where(answered, np.inf).dropna().to_numpy(float)
    return values


def _reached(result: Result, target: Target) -> float:
    """Return the share within a target's limits; for a mean 1.0 if it is met, else 0.0."""
    if target.latency == "itl":
        return _gaps_within(result, target)
    if target.group:
        own = is_of_class(result.requests, target.group)
        if not own.any():
            return 1.0  # there is none that could be late
        result = replace(result, requests=result.requests[own])
    if target.share is None:
        return float(result.latencies[target.latency].mean() <= target.limit_s)
    return result.slo(**target.limits_s)


def _gaps_within(result: Result, target: Target) -> float:
    if not result.meta.get("streams", True):
        return 0.0  # an answer released whole has no gaps
    gaps_s, counts = token_gaps(result.iterations)
    if not counts.sum():
        return 1.0  # answers of one token have no gaps, so that none is too long
    if target.share is None:
        return float(np.average(gaps_s, weights=counts) <= target.limit_s)
    return float(np.average(gaps_s <= target.limit_s, weights=counts))
