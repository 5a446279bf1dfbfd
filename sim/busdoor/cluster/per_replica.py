"""What each server of a cluster did, beside the total."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from busdoor.results.result import Result

# Of each server's own summary, beside what is counted here.
_METRICS = {
    "mean_batch_size": "mean_batch_size_time",
    "kv_used_share": "kv_used_share",
    "p99_ttft_ms": "p99_ttft_ms",
    "p99_e2el_ms": "p99_e2el_ms",
    "num_preemptions": "num_preemptions",
}


def replica_table(result: Result) -> pd.DataFrame:
    """Return a row per server of a cluster, or of one server.

    `role`, `policy` and `gpu` where they are known, `weight`, `requests` that were sent there,
    `tokens` (prompts and answers that it had to compute), `busy_share` of the run's time,
    `mean_batch_size` while busy (by time), `kv_used_share` while busy, latencies of its requests in
    ms, preemptions, and `imbalance`: its tokens for its weight over the mean of the servers of its
    role.

    >>> replica_table(Result.example())[["requests", "tokens", "busy_share", "imbalance"]].values.tolist()
    [[4.0, 212.0, 1.0, 1.0]]
    """
    parts = _parts(result)
    table = pd.DataFrame([_about(own) | _did(own, _span_s(result)) for own in parts])
    return table.assign(imbalance=_imbalances(table)).rename_axis("replica")


def imbalance(result: Result) -> float:
    """Return the tokens of the busiest server (for its weight) over the mean: 1 is even."""
    return float(_imbalances(pd.DataFrame([_about(own) for own in _parts(result)])).max())


def result_of(result: Result, number: int) -> Result:
    """Return what one server of a cluster did, as a result of its own requests."""
    if "replicas" not in result.meta:
        return result
    shared = {
        key: value
        for key, value in result.meta.items()
        if key not in ("replicas", "offered_load", "mfu", "mbu")
    }
    requests = result.requests
    own = requests["replica"] == number
    if "prefill_replica" in requests:
        own |= requests["prefill_replica"] == number
    tables = {name: getattr(result, name) for name in ("iterations", "stays")}
    return Result(
        requests=requests[own].reset_index(drop=True),
        **{
            name: table[table["replica"] == number].reset_index(drop=True)
            for name, table in tables.items()
        },
        meta=shared | result.meta["replicas"][number],
    )


def _parts(result: Result) -> list[Result]:
    return [result_of(result, number) for number in range(len(result.meta.get("replicas", [None])))]


def _about(own: Result) -> dict[str, Any]:
    """Return what a server is, and what was sent to it."""
    known = {key: own.meta[key] for key in ("role", "policy", "gpu") if key in own.meta}
    sent = {"requests": len(own.requests), "tokens": _tokens(own)}
    return {**known, "weight": own.meta.get("weight", 1.0), **sent}


def _did(own: Result, span_s: float) -> dict[str, Any]:
    """Return how busy a server was in a run of so many seconds."""
    summary = own.summary if len(own.requests) else pd.Series(dtype=object)
    busy_s = own.iterations["duration_s"].sum()
    return {
        "busy_share": busy_s / span_s,
        **{name: summary.get(key, np.nan) for name, key in _METRICS.items()},
    }


def _imbalances(table: pd.DataFrame) -> pd.Series[float]:
    load = table["tokens"] / table["weight"]
    return load / (
        load.groupby(table["role"]).transform("mean") if "role" in table else load.mean()
    )


def _tokens(own: Result) -> int:
    columns = {"prefill": ["input_tokens"], "decode": ["output_tokens"]}
    wanted = columns.get(own.meta.get("role", ""), ["input_tokens", "output_tokens"])
    return int(own.requests[wanted].to_numpy().sum())


def _span_s(result: Result) -> float:
    """Seconds from first arrival to the last iteration's end; NaN if iterations not kept."""
    end_s = (result.iterations["start_s"] + result.iterations["duration_s"]).max()
    return float(end_s - result.requests["arrival_s"].min())
