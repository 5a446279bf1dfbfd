"""How sure an error is: a bootstrap over blocks of consecutive requests, or of iterations.

Neighbours in a queue wait for the same batches, so that requests are not independent: blocks of √n
of them are drawn, in the order of arrival, with replacement. A request brings its measured and its
simulated latency along: both saw the same trace. Of correlated series of 300 and more values, 85 to
95 % of these intervals hold the truth; of 100, three in four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, isqrt, nan

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.results.result import Result

Interval = tuple[float, float]
UNKNOWN: Interval = (nan, nan)
# Of 400 resamples 10 lie beyond each end of a 95 % interval, which is then good to a tenth of its
# width.
_RESAMPLES = 400
_FEWEST = 16  # values: four blocks of four
_AT_ONCE = 2**21  # drawn indices in memory: 16 MiB
_STATISTICS, _PERCENTS = ("mean", "p50", "p90", "p99"), (50, 90, 99)


def add_intervals(table: pd.DataFrame, measured: Result, simulated: Result) -> pd.DataFrame:
    """Return a table of errors with the 95 % interval, `low` to `high`, and `n`, the values.

    NaN where no request has both sides (ITL and the output rate are not of requests), or there are
    fewer than 16 of them.
    """
    found: dict[tuple[str, str], tuple[float, float, int]] = {}
    for name in ("ttft", "tpot", "e2e"):
        ours, theirs = aligned([measured, simulated], name)
        ends = np.full((2, len(_STATISTICS)), nan)
        if len(ours) >= _FEWEST:
            ends = _ends(_errors, ours, theirs)
        for statistic, low, high in zip(_STATISTICS, *ends.tolist(), strict=True):
            found[name, statistic] = low, high, len(ours)
    rows = [found.get(key, (nan, nan, 0)) for key in table.index]
    return table.assign(**dict(zip(("low", "high", "n"), zip(*rows, strict=True), strict=True)))


def ratio_interval(of: Callable[..., Floats], *series: Floats) -> Interval:
    """Return the 95 % interval of a statistic along the last axis of aligned series.

    >>> x = np.random.default_rng(0).normal(1.0, 0.1, 400)
    >>> low, high = ratio_interval(lambda a, b: a.mean(-1) / b.mean(-1) - 1, 1.05 * x, x)
    >>> round(low, 6), round(high, 6)
    (0.05, 0.05)
    """
    if len(series[0]) < _FEWEST:
        return UNKNOWN
    low, high = _ends(of, *series)
    return float(low), float(high)


def aligned(results: Sequence[Result], name: str) -> list[Floats]:
    """Return a latency of the requests that all runs of a trace answered, in order of arrival."""
    if len({len(result.requests) for result in results}) > 1:
        return [np.zeros(0)] * len(results)
    columns = []
    for result in results:
        order = np.argsort(result.requests["arrival_s"].to_numpy(), kind="stable")
        whole = result.latencies[name].reindex(result.requests.index)
        columns.append(whole.to_numpy(dtype=float)[order])
    there = np.isfinite(columns).all(axis=0)
    return [column[there] for column in columns]


def _ends(of: Callable[..., Floats], *series: Floats) -> Floats:
    """Return where the 95 % interval of each statistic begins and ends, [2, ...]."""
    drawn = [of(*(own[rows] for own in series)) for rows in _draws(len(series[0]))]
    ends: Floats = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
    return ends


def _draws(count: int) -> Iterator[np.ndarray]:
    """Yield rows of indices: each row is a resample, by blocks that may wrap around the end."""
    rng, length = np.random.default_rng(0), max(1, isqrt(count))
    blocks, each = ceil(count / length), max(1, _AT_ONCE // count)
    for begun in range(0, _RESAMPLES, each):
        size = min(each, _RESAMPLES - begun)
        first = rng.integers(count, size=(size, blocks, 1))
        yield ((first + np.arange(length)) % count).reshape(size, -1)[:, :count]


def _errors(ours: Floats, theirs: Floats) -> Floats:
    """Return the relative errors of mean and percentiles, [resamples, 4]."""
    sides = [
        np.vstack([own.mean(axis=1), np.percentile(own, _PERCENTS, axis=1)])
        for own in (theirs, ours)
    ]
    errors: Floats = (sides[0] / sides[1] - 1).T
    return errors
