"""Start times for results that have none: from the client's rate and its cap on requests in flight."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np

from busdoor_workloads.columns import FloatArray
from busdoor_workloads.streams import stream

_SEED = 0


def assumed_starts(
    result: Mapping[str, Any], whole_s: FloatArray, name: str
) -> tuple[FloatArray, str]:
    """Return start times as the client's settings give them, and what is assumed in one sentence.

    `whole_s` are the seconds from each request's start to its last token. Arrivals are drawn at
    `request_rate` (Gamma gaps of shape `burstiness`, 1 if absent: exponential) or, at an infinite
    rate, are all at 0; with `max_concurrency`, a request then waits for the first of so many users
    that is free, as both clients' semaphores let it (vllm/benchmarks/serve.py,
    sglang/bench_serving.py). Raises ValueError if the rate is not a number ("trace": arrivals of a
    trace that the file does not have).

    >>> import numpy as np
    >>> result = {"request_rate": float("inf"), "max_concurrency": 2}
    >>> assumed_starts(result, np.array([3.0, 1.0, 1.0, 5.0]), "run.jsonl")[0].tolist()
    [0.0, 0.0, 1.0, 2.0]
    """
    rate = _number(result.get("request_rate", "inf"))
    if rate is None:
        raise ValueError(
            f"{name} has no start times, and its request_rate is {result.get('request_rate')!r}, "
            "from which they cannot be derived; use a run at a rate or with max_concurrency"
        )
    burstiness = _number(result.get("burstiness")) or 1.0
    arrivals, how = np.zeros(len(whole_s)), "all requests at 0, as its request_rate is infinite"
    if np.isfinite(rate):
        gaps_s = stream(_SEED, "start_times").gamma(
            burstiness, 1 / (rate * burstiness), len(whole_s)
        )
        arrivals, how = np.cumsum(gaps_s), f"starts drawn at its request_rate of {rate:g}/s"
    users = result.get("max_concurrency")
    if type(users) is int and 0 < users < len(whole_s):  # more are never in flight
        arrivals = _with_users(arrivals, whole_s, users)
        how = f"{how}, with {users} in flight at most"
    return arrivals, f"{name} has no start times: assumed are {how}"


def _with_users(arrivals: FloatArray, whole_s: FloatArray, users: int) -> FloatArray:
    free_s = [0.0] * users
    starts = np.empty(len(arrivals))
    for place, (arrival, seconds) in enumerate(
        zip(arrivals.tolist(), whole_s.tolist(), strict=True)
    ):
        starts[place] = max(arrival, heapq.heappop(free_s))
        heapq.heappush(free_s, starts[place] + seconds)
    return starts


def _number(value: Any) -> float | None:
    if value == "inf":  # vLLM's spelling of infinity
        return float(np.inf)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if is_number else None
