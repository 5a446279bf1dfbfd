"""Confidence intervals over replications, paired where policies ran on the same draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and its confidence interval, whose ends are NaN with one replication."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of a mean of independent replications; NaN values are left out.

    The confidence is the probability that it covers the true mean, if the values are normal.
    Source: Law, Simulation Modeling and Analysis, 5th ed., section 4.5. Raises ValueError if the
    confidence is not between 0 and 1.

    >>> mean_interval([1.20, 1.50, 1.68, 1.89, 0.95, 1.49, 1.58, 1.55, 0.50, 1.09], confidence=0.9)
    Interval(mean=1.343, low=1.105..., high=1.580...)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1, as in 0.95")
    sample = np.asarray(values, dtype=float)
    sample = sample[~np.isnan(sample)]
    n = len(sample)
    if not n:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan)
    half = student_t(confidence, n - 1) * float(sample.std(ddof=1)) / np.sqrt(n)
    return Interval(mean, float(mean - half), float(mean + half))


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of the mean difference of two policies that ran on the same draws, by replication.

    What differs between draws cancels: here the second is always 1 above the first.

    >>> paired_difference([11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    return mean_interval(_paired(values, baseline, np.subtract), confidence)


def paired_ratio(
    values: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of the ratio of two policies that ran on the same draws, by replication.

    It is the geometric mean over the replications, with the t interval of its logarithm. The
    reciprocal has the reciprocal interval, so that it does not matter which policy is called the
    baseline. A pair with a value that is not positive is left out.

    >>> ratio = paired_ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    >>> back = paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 9.0])
    >>> round(ratio.mean, 3), round(1 / back.mean, 3), round(ratio.low, 3), round(1 / back.high, 3)
    (2.289, 2.289, 1.28, 1.28)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(_paired(values, baseline, np.divide))
    return Interval(
        *(float(np.exp(end)) for end in mean_interval(logs[np.isfinite(logs)], confidence))
    )


def is_undecided(value: float, low: float, high: float) -> bool:
    """Return whether an interval is wider than its value, so that the value means little.

    >>> is_undecided(2.0, 1.5, 2.5), is_undecided(2.0, 0.5, 8.0)
    (False, True)
    >>> is_undecided(2.0, float("nan"), float("nan"))
    False
    """
    return high - low > abs(value)


def student_t(confidence: float, degrees_of_freedom: int) -> float:
    """Two-sided quantile of Student's t.

    >>> round(student_t(0.95, 4), 3)
    2.776
    """
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def _paired(values: ArrayLike, baseline: ArrayLike, combine: np.ufunc) -> np.ndarray:
    ours, theirs = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"{len(ours)} values cannot be paired with {len(theirs)}; both need one per replication"
        )
    combined: np.ndarray = combine(ours, theirs)
    return combined
