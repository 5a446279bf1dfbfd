"""What one rate showed: whether the promise is kept, broken, or open, on a confidence bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.sample import Sample
from busdoor.capacity.slo import Target
from busdoor.capacity.window import Window, steady_window
from busdoor.metrics import weighted_percentile
from busdoor.statistics import mean_interval

Floats = NDArray[np.float64]

_ERROR = 0.05  # chance that a bound is on the wrong side of the truth: one-sided
_BATCH_MEANS = 10  # parts of the run that stand for replications where there is only one
STABLE = "stability"
_NEVER_S = 1e18  # stands for infinity where numbers are subtracted


class Outcome(StrEnum):
    """Whether a promise is kept: for certain, certainly not, or not to be said yet."""

    MEETS = "meets"
    MISSES = "misses"
    OPEN = "open"


@dataclass(frozen=True)
class Reading:
    """One target at one rate.

    Parameters
    ----------
    key : str
        Of the target, or "stability".
    risks : array of float, shape (replications,)
        What must not exceed `allowed` in the mean: a mean latency in seconds, the share of requests beyond a limit, or
        the load as a share of what the server carries.
    allowed : float
        The most that is promised.
    value : float
        Of all replications together: the percentile or mean in seconds, the share within (goodput), or the load.
    ratio : float
        The value over its limit: above 1 is too much.
    """

    key: str
    risks: Floats
    allowed: float
    value: float
    ratio: float

    @property
    def outcome(self) -> Outcome:
        """Decide by one-sided 95 % bounds on the mean risk."""
        low, high = bounds(self.risks)
        if high <= self.allowed:
            return Outcome.MEETS
        return Outcome.MISSES if low > self.allowed else Outcome.OPEN


@dataclass(frozen=True)
class Probe:
    """A rate that was tried.

    Parameters
    ----------
    request_rate : float
        Requests per second.
    num_requests : int
        Of each replication.
    readings : tuple of Reading
        Of every target.
    window : Window, optional
        What was measured; None where nothing had to be run.
    """

    request_rate: float
    num_requests: int
    readings: tuple[Reading, ...]
    window: Window | None

    @property
    def outcome(self) -> Outcome:
        """All targets together; a run without a steady window can break a promise but not keep it.

        It begins empty and ends empty, so that its latencies are too short if anything.
        """
        outcomes = {reading.outcome for reading in self.readings}
        if Outcome.MISSES in outcomes:
            return Outcome.MISSES
        unsure = self.window is not None and not self.window.steady
        return Outcome.OPEN if Outcome.OPEN in outcomes or unsure else Outcome.MEETS

    @property
    def binding(self) -> Reading:
        """The target that is nearest to its limit, or furthest beyond it."""
        return max(self.readings, key=lambda reading: reading.ratio)

    @property
    def missed(self) -> Reading:
        """Of the targets that are missed for certain, the one furthest beyond its limit."""
        return max((r for r in self.readings if r.outcome is Outcome.MISSES), key=lambda reading: reading.ratio)

    def ratio(self, key: str) -> float:
        """Value over limit of one target; NaN where it was not measured."""
        return next((reading.ratio for reading in self.readings if reading.key == key), float("nan"))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a replication for the history."""
        window = self.window
        shared = {
            "request_rate": self.request_rate,
            "num_requests": self.num_requests,
            "outcome": str(self.outcome),
            "warmup_share": np.nan if window is None else window.begin / self.num_requests,
            "drain_share": np.nan if window is None else 1 - window.end / self.num_requests,
            "steady": window is not None and window.steady,
        }
        count = max(len(reading.risks) for reading in self.readings)
        return [
            {**shared, "replication": number}
            | {r.key: r.risks[number] if number < len(r.risks) else np.nan for r in self.readings}
            for number in range(count)
        ]


def bounds(values: Floats) -> tuple[float, float]:
    """Return the ends of an interval that the mean leaves at either side with 5 % chance; all there is, without two.

    Examples
    --------
    >>> bounds(np.array([1.0, 1.0, 1.0])), bounds(np.array([1.0]))
    ((1.0, 1.0), (-inf, inf))
    """
    if not np.isfinite(values).all():
        return (-np.inf if np.isfinite(values).any() else np.inf), np.inf
    _, low, high = mean_interval(values, 1 - 2 * _ERROR)
    return (-np.inf, np.inf) if np.isnan(low) else (low, high)


def stability(request_rate: float, saturated: Floats) -> Reading:
    """Read the load: whether the server carries the rate at all."""
    loads = request_rate / saturated
    mean = float(loads.mean()) if len(loads) else float("nan")
    return Reading(STABLE, loads, 1.0, mean, mean)


def probe(
    request_rate: float, samples: Sequence[Sample], targets: Sequence[Target], more: Sequence[Reading] = ()
) -> Probe:
    """Measure all targets in the steady window of the replications.

    Parameters
    ----------
    request_rate : float
        Requests per second.
    samples : sequence of Sample
        One a replication. A single one is cut into ten parts that stand for replications (batch means).
    targets : sequence of Target
        What is promised.
    more : sequence of Reading
        What else was read at this rate.
    """
    length = min(len(sample.arrival_s) for sample in samples)
    window = steady_window(
        np.stack([sample.latencies_s["e2e"].to_numpy()[:length] for sample in samples]), request_rate
    )
    return Probe(request_rate, length, (*readings(samples, targets, window), *more), window)


def readings(samples: Sequence[Sample], targets: Sequence[Target], window: Window) -> list[Reading]:
    """Read every target off a window of the replications."""
    number = _BATCH_MEANS if len(samples) == 1 else 1
    edges = np.linspace(window.begin, window.end, number + 1).astype(int).tolist()
    parts = [sample.part(begin, end) for sample in samples for begin, end in pairwise(edges)]
    return [_read(target, parts) for target in targets]


def _read(target: Target, parts: Sequence[Sample]) -> Reading:
    if target.key == "goodput":
        return _read_goodput(target, parts)
    values = [part.values(target.latency) for part in parts]
    pooled, counts = (np.concatenate(column) for column in zip(*values, strict=True))
    if target.share is None:
        means = np.array([np.average(v, weights=w) if len(v) else np.nan for v, w in map(_answered, values)])
        means = means[~np.isnan(means)]
        value = float(means.mean()) if len(means) else np.nan
        return Reading(target.key, means, target.limit_s, value, value / target.limit_s)
    late = np.array([np.average(v > target.limit_s, weights=w) for v, w in values if len(v)])
    value = weighted_percentile(np.minimum(pooled, _NEVER_S), counts, 100 * target.share)
    return Reading(target.key, late, 1 - target.share, value, value / target.limit_s)


def _answered(values: tuple[Floats, NDArray[np.int64]]) -> tuple[Floats, NDArray[np.int64]]:
    """Leave out what was never answered: it has no part in a mean, but counts as late for a percentile."""
    finite = np.isfinite(values[0])
    return values[0][finite], values[1][finite]


def _read_goodput(target: Target, parts: Sequence[Sample]) -> Reading:
    assert target.share is not None
    late, worst = [], []
    for part in parts:
        # A single token has no TPOT, and meets any limit on it, as in vLLM's benchmark.
        over = [part.latencies_s[name].fillna(0.0) / limit for name, limit in target.limits_s.items()]
        worst.append(np.max(over, axis=0))
        late.append(float(np.mean(worst[-1] > 1)))
    risks = np.array(late)
    ratio = float(np.percentile(np.concatenate(worst), 100 * target.share, method="lower"))
    return Reading(target.key, risks, 1 - target.share, 1 - float(risks.mean()), ratio)
