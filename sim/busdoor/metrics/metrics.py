"""Metrics as vLLM's benchmark defines them, and the use of slots and memory.

For a request with n output tokens: TTFT is its first token's time less its arrival, E2E its last
token's less its arrival, TPOT (E2E - TTFT) / (n - 1) (requests of one token are left out),
normalised latency E2E / n (Orca's and vLLM's papers). ITL pools every gap between two tokens over
all requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats
from busdoor.metrics.itl import gap_statistics, token_gaps, weighted_percentile
from busdoor.metrics.saturation import burst_rates
from busdoor.metrics.throughput import accepted, finished, throughput_keys
from busdoor.metrics.usage import memory_keys, slot_keys

__all__ = [
    "SLO_METRICS",
    "is_saturated",
    "latencies",
    "meets_slo",
    "summarize",
    "token_gaps",
    "weighted_percentile",
]

# The metrics that an SLO may limit, and the latency column of each.
SLO_METRICS = ("ttft", "tpot", "e2e", "normalized")


def latencies(requests: pd.DataFrame, streams: bool = True) -> pd.DataFrame:
    """Compute the latencies of the finished requests.

    Columns ttft, tpot, e2e, normalized, queue (seconds), indexed as `requests`. If tokens do not
    leave the server as they are made (`streams` False), there is no time per token.

    >>> done = pd.DataFrame({"arrival_s": [1.0], "first_scheduled_s": [1.5], "first_token_s": [2.0],
    ...                      "finish_s": [4.0], "output_tokens": [5], "status": ["finished"]})
    >>> latencies(done).to_dict("records")
    [{'ttft': 1.0, 'tpot': 0.5, 'e2e': 3.0, 'normalized': 0.6, 'queue': 0.5}]
    """
    done = finished(requests)
    ttft = done["first_token_s"] - done["arrival_s"]
    e2e = done["finish_s"] - done["arrival_s"]
    gaps = (done["output_tokens"] - 1).where(done["output_tokens"] > 1)
    return pd.DataFrame(
        {
            "ttft": ttft,
            "tpot": (e2e - ttft) / gaps if streams else np.nan,
            "e2e": e2e,
            "normalized": e2e / done["output_tokens"],
            "queue": done["first_scheduled_s"] - done["arrival_s"],
        }
    )


def meets_slo(
    requests: pd.DataFrame, limits_s: Mapping[str, float], streams: bool = True
) -> pd.Series[bool]:
    """Return which finished requests meet every limit (at or under it).

    A request of one token meets any limit on TPOT (as in vLLM's benchmark); an answer that was
    released whole meets none, since it has no time per token. Raises ValueError for a limit on
    anything else than a metric.
    """
    for name in limits_s:
        if name not in SLO_METRICS:
            raise ValueError(
                f"slo {name!r} is no latency; it must be one of {', '.join(SLO_METRICS)}"
            )
    times = latencies(requests, streams)
    if streams:
        times["tpot"] = times["tpot"].fillna(0.0)
    good: NDArray[np.bool_] = np.ones(len(times), dtype=bool)
    for name, limit in limits_s.items():
        good &= (times[name] <= limit).to_numpy()
    return pd.Series(good, index=times.index, dtype=bool)


def summarize(
    requests: pd.DataFrame, iterations: pd.DataFrame, stays: pd.DataFrame, meta: Mapping[str, Any]
) -> pd.Series[Any]:
    """Return every metric of a run; keys and milliseconds as in `vllm bench serve`."""
    # refused requests are counted, but are no load
    streams, slo = bool(meta.get("streams", True)), meta.get("slo")
    taken = accepted(requests)
    good = meets_slo(taken, slo, streams).sum() if slo else np.nan
    summary = {
        **throughput_keys(taken, iterations, good),
        "failed": len(requests) - len(finished(requests)),
        **_latency_keys(taken, iterations, meta),
        **burst_rates(requests, meta).add_prefix("saturated_"),
        **slot_keys(iterations, stays, meta, taken),
        **memory_keys(iterations, meta),
        "num_preemptions": int(requests["num_preemptions"].sum()),
        "cached_tokens": int(requests["cached_tokens"].sum()),
        "num_refused": len(requests) - len(taken),
        "num_abandoned": int((requests["status"] == "abandoned").sum()),
        "saturated": is_saturated(taken, meta),
        "offered_load": _noted(meta, "offered_load"),
        "mfu": _noted(meta, "mfu"),
        "mbu": _noted(meta, "mbu"),
    }
    return pd.Series(summary, dtype=object, name=meta.get("policy"))


def _latency_keys(
    requests: pd.DataFrame, iterations: pd.DataFrame, meta: Mapping[str, Any]
) -> dict[str, float]:
    streams = bool(meta.get("streams", True))
    times = latencies(requests, streams) * 1e3
    keys: dict[str, float] = {}
    for name, column in (
        ("ttft", "ttft"),
        ("tpot", "tpot"),
        ("e2el", "e2e"),
        ("normalized", "normalized"),
    ):
        keys |= _statistics(name, times[column].dropna().to_numpy())
    if streams and len(iterations):
        keys |= _itl_keys(iterations)
    else:  # a client's own gaps between chunks, where it noted them
        gaps_s = np.array(meta.get("itls_s") or () if streams else (), dtype=float)
        keys |= _statistics("itl", 1e3 * gaps_s)
    queue = times["queue"].to_numpy()
    keys["mean_queue_ms"] = float(queue.mean()) if len(queue) else np.nan
    keys["p99_queue_ms"] = float(np.percentile(queue, 99)) if len(queue) else np.nan
    return keys


def _statistics(name: str, values: Floats) -> dict[str, float]:
    if not len(values):
        return {f"{kind}_{name}_ms": np.nan for kind in ("mean", "median", "std", "p90", "p99")}
    median, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(median),
        f"std_{name}_ms": float(values.std()),
        f"p90_{name}_ms": float(p90),
        f"p99_{name}_ms": float(p99),
    }


def _itl_keys(iterations: pd.DataFrame) -> dict[str, float]:
    found = gap_statistics(iterations, (50, 90, 99), scale=1e3)
    if found is None:
        return _statistics("itl", np.array([]))
    mean, std, (median, p90, p99) = found
    return {
        "mean_itl_ms": mean,
        "median_itl_ms": median,
        "std_itl_ms": std,
        "p90_itl_ms": p90,
        "p99_itl_ms": p99,
    }


def _noted(meta: Mapping[str, Any], key: str) -> float:
    """Return a number of a run; NaN where there is none, or null as a saved run has it."""
    value = meta.get(key)
    return np.nan if value is None else float(value)


def is_saturated(requests: pd.DataFrame, meta: Mapping[str, Any]) -> bool:
    """Return whether a server cannot keep up: load of 1 or more, or a queue that only grows.

    The offered load ignores a prefix cache, and does not count where that had hits. The queue grows
    if requests of the last quarter of the arrivals wait longer than those of the second quarter by
    more than a twentieth of the time between them, as with arrivals at 1.05 times the capacity.
    """
    if _noted(meta, "offered_load") >= 1 and not requests["cached_tokens"].any():
        return True
    arrival = requests["arrival_s"]
    span = float(arrival.max() - arrival.min())
    if not span > 0 or len(requests) < 40:
        return len(requests) > meta.get("num_slots", np.inf) and not span > 0
    wait = (requests["first_scheduled_s"] - arrival).fillna(0.0)
    early = wait[arrival.between(arrival.min() + span / 4, arrival.min() + span / 2)]
    late = wait[arrival > arrival.min() + span * 3 / 4]
    return bool(late.mean() - early.mean() > span / 2 / 20)
