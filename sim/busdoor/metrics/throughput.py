"""Throughput of a run: counts and rates of requests and tokens, and their peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.metrics.itl import by_replica


def throughput_keys(
    requests: pd.DataFrame, iterations: pd.DataFrame, num_good: float
) -> dict[str, Any]:
    """Return counts and rates of a run's requests and tokens, without refused requests.

    `num_good` requests met the SLO; NaN without one.
    """
    done = finished(requests)
    duration = float(done["finish_s"].max() - requests["arrival_s"].min()) if len(done) else 0.0
    tokens_in, tokens_out = int(done["input_tokens"].sum()), int(done["output_tokens"].sum())
    per_s = 1 / duration if duration > 0 else np.nan
    arrival_s, finish_s = done["arrival_s"].to_numpy(), done["finish_s"].to_numpy()
    return {
        "completed": len(done),
        "duration": duration,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": len(done) * per_s,
        "request_goodput": num_good * per_s,
        "output_throughput": tokens_out * per_s,
        "total_token_throughput": (tokens_in + tokens_out) * per_s,
        "max_output_tokens_per_s": _peak_tokens_per_s(iterations),
        "max_concurrent_requests": _most_at_once(arrival_s, finish_s),
    }


def finished(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the requests that were answered: the same table where all were, not a copy of it."""
    own = requests["status"].to_numpy() == "finished"
    return requests if own.all() else requests[own]


def accepted(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the requests that were not refused; likewise."""
    if len(finished(requests)) == len(requests):
        return requests
    return requests[~requests["status"].str.startswith("refused").to_numpy(dtype=bool)]


def _peak_tokens_per_s(iterations: pd.DataFrame) -> float:
    """Return the most tokens in a second 0-1, 1-2, ...; stretches spread theirs evenly."""
    if not len(iterations):
        return float("nan")
    # Nothing changes between a beginning or end of a stretch and the next: their seconds and those
    # after them suffice, so that a clock may span years.
    starts_s = iterations["start_s"].to_numpy()
    ends_s = starts_s + iterations["duration_s"].to_numpy()
    changes = np.unique(np.concatenate([_seconds(starts_s), _seconds(ends_s)]))
    seconds = np.unique(np.concatenate([changes, changes + 1]))
    return float(
        np.sum([_tokens_by_second(own, seconds) for own in by_replica(iterations)], axis=0).max()
    )


def _seconds(times_s: Floats) -> Floats:
    """Return the seconds that times fall in, each once where the times are in order."""
    seconds = np.floor(times_s)
    changes: Floats = seconds[np.diff(seconds, prepend=np.nan) != 0]
    return changes


def _tokens_by_second(iterations: pd.DataFrame, seconds: Floats) -> Floats:
    of_prefills = iterations["num_first_tokens"] + iterations["num_resumed"]
    made = iterations["num_decode_tokens"] * iterations["repeat"] + of_prefills
    start = iterations["start_s"].to_numpy()
    end = start + iterations["duration_s"].to_numpy()
    times = np.column_stack([start, end]).ravel()
    total = np.cumsum(made.to_numpy())
    totals = np.column_stack([np.concatenate([[0], total[:-1]]), total]).ravel()
    return np.asarray(
        np.interp(seconds + 1, times, totals) - np.interp(seconds, times, totals), dtype=np.float64
    )


def _most_at_once(begin: Floats, end: Floats) -> int:
    if not len(begin):
        return 0
    begun, ended = np.sort(begin), np.sort(end)
    # after each beginning, less those that have ended until then
    return int((np.arange(1, len(begun) + 1) - np.searchsorted(ended, begun, "right")).max())
