"""From the totals of a long run to its table of hours and its summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from busdoor.metrics.hourly import BY_HOUR, HOUR_S, LATENCIES, HourlyTotals
from busdoor.metrics.sketch import QuantileSketch
from busdoor.metrics.usage import ratio, slot_shares

_COUNTS = ("arrivals", "finished", "refused", "abandoned", "num_preemptions")
_TOKENS = ("input_tokens", "output_tokens")
PERCENTS = (50, 90, 99)
HOUR_COLUMNS = (
    "hour",
    *_COUNTS,
    *_TOKENS,
    "request_rate",
    "mean_waiting",
    "max_waiting",
    "mean_batch_size",
    "busy_share",
    "kv_reserved_share",
    "slo_share",
    *(f"{name}_p{percent}_s" for name in BY_HOUR for percent in PERCENTS),
)


def hours_table(totals: HourlyTotals, num_replicas: int = 1) -> pd.DataFrame:
    """Return a row per hour of the trace, in columns `HOUR_COLUMNS`.

    Requests and their latencies are those that arrived in the hour. Waiting requests are the mean
    over the hour, all servers together, and the most at one server; batch size and memory are means
    of the time in which iterations ran. The SLO's share is of the requests that were not refused.

    >>> hours_table(HourlyTotals()).columns[:3].tolist()
    ['hour', 'arrivals', 'finished']
    """
    hours = np.arange(int(totals.sums.index.max()) + 1 if len(totals.sums) else 0)
    sums = totals.sums.reindex(hours).fillna(0.0)  # of an hour without arrivals or iterations
    column = {name: _column(sums, name) for name in ("busy_s", "waiting_s", "batch_s")}
    # the last hour is as long as the run
    length_s = np.minimum(HOUR_S, np.maximum(totals.last_s - hours * HOUR_S, 1e-9))
    taken = _column(sums, "arrivals") - _column(sums, "refused")
    most = totals.most_waiting.reindex(hours, fill_value=0.0).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        table = {
            "hour": hours,
            **{name: _column(sums, name).astype(np.int64) for name in (*_COUNTS, *_TOKENS)},
            "request_rate": _column(sums, "arrivals") / length_s,
            "mean_waiting": column["waiting_s"] / length_s,
            "max_waiting": most.astype(np.int64),
            "mean_batch_size": column["batch_s"] / column["busy_s"],
            # a stretch that runs into the next hour is all of its own
            "busy_share": np.minimum(column["busy_s"] / (length_s * num_replicas), 1.0),
            "kv_reserved_share": _column(sums, "kv_reserved_s") / _column(sums, "kv_capacity_s"),
            "slo_share": _column(sums, "slo_met") / taken if totals.slo_s else np.nan,
        }
    for name in BY_HOUR:
        sketches = [totals.hours[name].get(int(hour)) for hour in hours]
        for percent in PERCENTS:
            table[f"{name}_p{percent}_s"] = [
                np.nan if sketch is None else sketch.percentile(percent) for sketch in sketches
            ]
    return pd.DataFrame(table, columns=list(HOUR_COLUMNS))


def joined_totals(parts: Sequence[HourlyTotals], exact: int) -> HourlyTotals:
    """Return the totals of several servers together, in their order."""
    whole = HourlyTotals(exact=exact, slo_s=parts[0].slo_s)
    for part in parts:
        whole.merge(part)
    return whole


def summarize_totals(totals: HourlyTotals, meta: Mapping[str, Any]) -> pd.Series[Any]:
    """Return the metrics of a run, under the keys of `busdoor.metrics.metrics.summarize`.

    What needs all requests side by side is left out: peaks within a second, concurrency, saturated
    rates. `percentile_error` says how far percentiles of requests may be off, relative to
    themselves, `itl_percentile_error` those of the gaps between tokens.
    """
    # of a run without requests or iterations there is nothing to sum
    total = defaultdict[str, float](float, {str(k): v for k, v in totals.sums.sum().items()})
    duration = max(0.0, totals.last_finish_s - totals.first_s) if total["finished"] else 0.0
    good = total["slo_met"] if totals.slo_s else np.nan
    tokens_in, tokens_out = int(total["input_tokens"]), int(total["output_tokens"])
    span_s = totals.last_s - totals.first_s
    waste = total["kv_reserved_s"] + total["kv_hole_s"]
    summary: dict[str, Any] = {
        "completed": int(total["finished"]),
        "duration": duration,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": ratio(total["finished"], duration),
        "request_goodput": ratio(good, duration),
        "output_throughput": ratio(tokens_out, duration),
        "total_token_throughput": ratio(tokens_in + tokens_out, duration),
        "failed": int(total["arrivals"] - total["finished"]),
        **_latency_keys(totals.sketches),
        **slot_shares(total, totals.scalars["held_s"], span_s * meta["num_slots"]),
        "kv_used_share": ratio(total["kv_used_s"], total["kv_capacity_s"]),
        "kv_reserved_share": ratio(total["kv_reserved_s"], total["kv_capacity_s"]),
        "kv_wasted_share": 1 - ratio(total["kv_used_s"], waste),
        "num_preemptions": int(total["num_preemptions"]),
        "cached_tokens": int(total["cached_tokens"]),
        "num_refused": int(total["refused"]),
        "num_abandoned": int(total["abandoned"]),
        "slo_share": ratio(good, total["arrivals"] - total["refused"]),
        "offered_load": meta.get("offered_load", np.nan),
        "mfu": ratio(totals.scalars["mfu_s"], total["busy_s"]) or np.nan,
        "mbu": ratio(totals.scalars["mbu_s"], total["busy_s"]) or np.nan,
        "percentile_error": max(totals.sketches[name].error for name in LATENCIES),
        "itl_percentile_error": totals.sketches["itl"].error,
    }
    return pd.Series(summary, dtype=object, name=meta.get("policy"))


def _latency_keys(sketches: Mapping[str, QuantileSketch]) -> dict[str, float]:
    keys: dict[str, float] = {}
    for name in ("ttft", "tpot", "e2e", "normalized", "itl"):
        keys |= _statistics("e2el" if name == "e2e" else name, sketches[name])
    queue = sketches["queue"]
    keys["mean_queue_ms"] = 1e3 * queue.mean if queue.count else np.nan
    keys["p99_queue_ms"] = 1e3 * queue.percentile(99)
    return keys


def _statistics(name: str, sketch: QuantileSketch) -> dict[str, float]:
    return {
        f"mean_{name}_ms": 1e3 * sketch.mean if sketch.count else np.nan,
        f"median_{name}_ms": 1e3 * sketch.percentile(50),
        f"std_{name}_ms": 1e3 * sketch.std,
        f"p90_{name}_ms": 1e3 * sketch.percentile(90),
        f"p99_{name}_ms": 1e3 * sketch.percentile(99),
    }


def _column(sums: pd.DataFrame, name: str) -> np.ndarray:
    return sums[name].to_numpy(float) if name in sums else np.zeros(len(sums))
