"""Gaps between tokens, pooled over all requests, from the table of iterations."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats


def token_gaps(iterations: pd.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    """Collect all gaps between tokens: their lengths in seconds, and how many tokens had each.

    A decode's gap is the iteration that made it, and whatever ran before it in which the request
    stood still (a prefill iteration of `prefill_first`, or the time that it was preempted).
    """
    gaps, weights = zip(*map(_token_gaps, by_replica(iterations)), strict=True)
    return np.concatenate(gaps), np.concatenate(weights)


def by_replica(iterations: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the iterations by server; in each part one follows the other."""
    replica = iterations["replica"].to_numpy()
    if (replica[:1] == replica).all():
        return [iterations]
    return [own for _, own in iterations.groupby("replica")]


def _token_gaps(iterations: pd.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    decodes = iterations["num_decode_tokens"].to_numpy()
    count = np.where(decodes > 0, iterations["repeat"], 0).astype(np.int64)
    gaps = _spread(iterations, count)
    weights = np.repeat(decodes, count)
    late_gaps, late_weights, early = _stalls(
        iterations, (iterations["start_s"] + iterations["duration_s"]).to_numpy()
    )
    # their first iterations are in late_gaps instead
    weights[(np.cumsum(count) - count)[early]] = 0
    resumed = (
        iterations.loc[iterations["num_resumed"] > 0, ["resumed_gap_s", "num_resumed"]].to_numpy().T
    )
    return (
        np.concatenate([gaps, late_gaps, resumed[0] / np.maximum(resumed[1], 1)]),
        np.concatenate([weights, late_weights, resumed[1].astype(np.int64)]),
    )


def _spread(iterations: pd.DataFrame, count: NDArray[np.int64]) -> Floats:
    """Durations of the first `count` iterations of each row: they lie on a line, but for the last.

    That one hides what the host does for whatever follows (see `StepTime.ahead`).
    """
    columns = ["duration_s", "repeat", "first_duration_s", "last_duration_s"]
    total, repeat, first, last = iterations[columns].to_numpy().T
    before = np.maximum(repeat - 1, 1)
    slope = 2 * ((total - last) / before - first) / np.maximum(repeat - 2, 1) * (repeat > 2)
    ends = np.cumsum(count)
    within = np.arange(count.sum()) - np.repeat(ends - count, count)
    spread: Floats = np.repeat(first, count) + np.repeat(slope, count) * within
    spread[ends[count > 0] - 1] = last[count > 0]
    return spread


def _stalls(
    iterations: pd.DataFrame, end_s: Floats
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return the gaps of decodes that paused for other iterations, and the rows that resume."""
    decodes = iterations["num_decode_tokens"].to_numpy()
    joined = iterations["num_joined"].to_numpy()
    after_pause = np.flatnonzero((decodes > 0) & (np.concatenate([[1], decodes[:-1]]) == 0))
    gaps: list[float] = []
    weights: list[int] = []
    first_end_s = (iterations["start_s"] + iterations["first_duration_s"]).to_numpy()
    for row in after_pause.tolist():
        left = int(decodes[row])
        before = row - 1
        while left > 0 and before >= 0 and decodes[before] == 0:
            new = min(left, int(joined[before]))
            gaps.append(first_end_s[row] - end_s[before])
            weights.append(new)
            left -= new
            before -= 1
        gaps.append(
            first_end_s[row] - (end_s[before] if before >= 0 else iterations["start_s"].iloc[row])
        )
        weights.append(left)
    return np.array(gaps, dtype=np.float64), np.array(weights, dtype=np.int64), after_pause


def weighted_percentile(values: Floats, weights: NDArray[np.int64], percent: float) -> float:
    """Percentile by linear interpolation, as numpy's of the values repeated `weights` times.

    >>> weighted_percentile(np.array([3.0, 1.0]), np.array([1, 3]), 75)
    1.5
    """
    order = np.argsort(values)
    counts = np.cumsum(weights[order])
    if not len(counts) or not counts[-1]:
        return float("nan")
    place = percent / 100 * (counts[-1] - 1)
    low, high = values[order][
        np.searchsorted(counts, [np.floor(place), np.ceil(place)], side="right")
    ]
    return float(low + (high - low) * (place - np.floor(place)))
