"""Percentiles of more values than memory holds: exact for the first million, then a sketch."""

from __future__ import annotations

from math import ceil, log

import numpy as np

from busdoor.core.arrays import Floats, Integers
from busdoor.metrics.itl import weighted_percentile

EXACT = 1_000_000  # values that are kept as they are
RELATIVE_ERROR = 0.005  # of a percentile beyond them: a bin's middle is so near to its edges
# Seconds that bins cover: from a microsecond, less than which no latency matters, to four months.
_LOWEST_S, _HIGHEST_S = 1e-6, 1e7
_LOG_GAMMA = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_BINS = ceil(log(_HIGHEST_S / _LOWEST_S) / _LOG_GAMMA) + 1  # number 0: up to the lowest
_MIDDLES = _LOWEST_S * np.exp(np.arange(_BINS) * _LOG_GAMMA) * (1 - RELATIVE_ERROR)


class QuantileSketch:
    """Values by count, mean, spread and percentiles; sketches of parts add up to that of the whole.

    Up to `exact` values (with their weights) percentiles are exact. Then the values are counted in
    bins whose width grows with the value (DDSketch: Masson, Rim and Lee, VLDB 2019), so that a
    percentile is off by at most 0.5 % of itself; those under a microsecond count as that. The
    published Python packages add value by value, a microsecond each; here an array at a time.

    >>> rng = np.random.default_rng(0)
    >>> parts = [QuantileSketch(exact=0), QuantileSketch(exact=0)]
    >>> values = rng.exponential(size=(2, 5000))
    >>> for part, own in zip(parts, values):
    ...     part.add(own)
    >>> parts[0].merge(parts[1])
    >>> parts[0].count, abs(parts[0].percentile(99) / np.percentile(values, 99) - 1) <= parts[0].error
    (10000, np.True_)
    """

    def __init__(self, exact: int = EXACT) -> None:
        self._exact = exact
        self._kept: list[tuple[Floats, Integers | None]] | None = [] if exact else None
        self._num_kept = 0
        self._bins = np.zeros(0 if exact else _BINS, dtype=np.int64)
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0  # of the distances from the mean
        self.lowest, self.highest = np.inf, -np.inf

    @property
    def error(self) -> float:
        """How far a percentile may be off, relative to itself; 0 while they are exact."""
        return 0.0 if self._kept is not None else RELATIVE_ERROR

    @property
    def std(self) -> float:
        """Standard deviation of the values; NaN without any."""
        return float((self._squares / self.count) ** 0.5) if self.count else float("nan")

    def add(self, values: Floats, weights: Integers | None = None) -> None:
        """Add values, in seconds, each so many times as its weight says; once by default."""
        count = len(values) if weights is None else int(weights.sum())
        if not count:
            return
        mean = float(np.average(values, weights=weights))
        squares = float(np.average((values - mean) ** 2, weights=weights)) * count
        self._add_moments(count, mean, squares)
        there = values if weights is None else values[weights > 0]
        self.lowest = min(self.lowest, float(there.min()))
        self.highest = max(self.highest, float(there.max()))
        if self._kept is None:
            self._count(values, weights)
            return
        self._kept.append((values, weights))
        self._num_kept += len(values)
        self._limit()

    def merge(self, other: QuantileSketch) -> None:
        """Add what another sketch was given."""
        if not other.count:
            return
        self._add_moments(other.count, other.mean, other._squares)
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        if other._kept is None:
            self._to_bins()
            self._bins += other._bins
        elif self._kept is None:
            for values, weights in other._kept:
                self._count(values, weights)
        else:
            self._kept += other._kept
            self._num_kept += other._num_kept
            self._limit()

    def percentile(self, percent: float) -> float:
        """Return a percentile by linear interpolation, as numpy's; NaN without any value."""
        if not self.count:
            return float("nan")
        if self._kept is None:
            value = weighted_percentile(_MIDDLES, self._bins, percent)
            return min(max(value, self.lowest), self.highest)
        values = np.concatenate([values for values, _ in self._kept])
        if all(weights is None for _, weights in self._kept):
            return float(np.percentile(values, percent))
        weights = [np.ones(len(v), np.int64) if w is None else w for v, w in self._kept]
        return weighted_percentile(values, np.concatenate(weights), percent)

    def _limit(self) -> None:
        if self._num_kept > self._exact:
            self._to_bins()

    def _to_bins(self) -> None:
        """Go over from the values to counts."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._bins = np.zeros(_BINS, dtype=np.int64)
            for values, weights in kept:
                self._count(values, weights)

    def _count(self, values: Floats, weights: Integers | None) -> None:
        places = np.ceil(np.log(np.maximum(values, _LOWEST_S) / _LOWEST_S) / _LOG_GAMMA)
        bins = np.minimum(places, _BINS - 1).astype(np.int64)
        counts = np.bincount(bins, weights, minlength=_BINS)  # whole numbers below 2**53
        self._bins += counts.astype(np.int64)

    def _add_moments(self, count: int, mean: float, squares: float) -> None:
        """Add a part's mean and spread (Chan, Golub and LeVeque 1979)."""
        total, step = self.count + count, mean - self.mean
        self._squares += squares + step**2 * self.count * count / total
        self.mean += step * count / total
        self.count = total
