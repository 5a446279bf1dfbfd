"""Whether the runs of a rate meet a target, miss it or leave it open, by a confidence bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.control.variate import Control, controlled_interval
from busdoor.capacity.runs import Sample
from busdoor.capacity.steady_state import Window
from busdoor.core.arrays import Floats
from busdoor.metrics.metrics import weighted_percentile
from busdoor.metrics.slo_target import STABLE, Target

_ERROR = 0.05  # chance that a bound is on the wrong side of the truth: one-sided
_BATCH_MEANS = 10  # parts of the run in place of replications where there is only one
_ABOVE = 1e-9  # else rounding could make it a rate that is carried
_NEVER_S = 1e18  # stands for infinity where numbers are subtracted


class Outcome(StrEnum):
    """Whether an SLO is met: certainly, certainly not, or undecided."""

    MEETS = "meets"
    MISSES = "misses"
    OPEN = "open"


@dataclass(frozen=True)
class Reading:
    """One target (a key of the SLO, or "stability") at one rate.

    `risks`, by replication: the quantity whose mean must not exceed `allowed`: a mean latency in
    seconds, the share of requests beyond a limit, or the load as a share of the maximum throughput.
    `value`, of all replications together: the percentile or mean in seconds, the share within
    (goodput), or the load; `ratio`: the value over its limit, above 1 is too much. `control`: the
    replications' luck, as a simple queue shows it; what it explains is subtracted from all of
    these.
    """

    key: str
    risks: Floats
    allowed: float
    value: float
    ratio: float
    control: Control | None = None

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """One-sided 95 % bounds on the mean risk."""
        return bounds(self.risks, self.control)

    @property
    def outcome(self) -> Outcome:
        """Decide by the bounds."""
        low, high = self.bounds
        if high <= self.allowed:
            return Outcome.MEETS
        return Outcome.MISSES if low > self.allowed else Outcome.OPEN

    @property
    def blur(self) -> float:
        """Width of the bounds over twice their distance from the limit: 1 or less is decided."""
        low, high = self.bounds
        off = abs(high + low - 2 * self.allowed)
        return (high - low) / off if off > 0 else np.inf


def bounds(values: Floats, control: Control | None = None) -> tuple[float, float]:
    """Return one-sided 95 % bounds on the mean at either side; infinite with fewer than two values.

    >>> bounds(np.array([1.0, 1.0, 1.0])), bounds(np.array([1.0]))
    ((1.0, 1.0), (-inf, inf))
    """
    if not np.isfinite(values).all():
        return (-np.inf if np.isfinite(values).any() else np.inf), np.inf
    _, low, high = controlled_interval(values, control, 1 - 2 * _ERROR)
    return (-np.inf, np.inf) if np.isnan(low) else (low, high)


def stability(request_rate: float, saturated: Floats) -> Reading:
    """Return the reading of the load: whether the server carries the rate at all."""
    loads = request_rate / saturated
    mean = float(loads.mean()) if len(loads) else float("nan")
    return Reading(STABLE, loads, 1.0, mean, mean)


def overload_rps(saturated: Floats, carried_rps: float) -> float:
    """Return the lowest rate that the server certainly does not carry; if unknown, `carried_rps`.

    >>> stability(overload_rps(rates := np.array([9.9, 10.1, 10.0]), 10.0), rates).outcome
    <Outcome.MISSES: 'misses'>
    """
    # a request's share of the server
    lightest = bounds(1 / saturated)[0] if len(saturated) else 0.0
    return (1 + _ABOVE) / lightest if lightest > 0 else carried_rps


def readings(
    samples: Sequence[Sample],
    targets: Sequence[Target],
    window: Window,
    controls: Sequence[Control] = (),
) -> list[Reading]:
    """Return the reading of every target in a window of the replications."""
    number = _BATCH_MEANS if len(samples) == 1 else 1
    edges = np.linspace(window.begin, window.end, number + 1).astype(int).tolist()
    parts = [sample.part(begin, end) for sample in samples for begin, end in pairwise(edges)]
    matched: Sequence[Control | None] = controls or [None] * len(targets)
    return [_read(target, parts, control) for target, control in zip(targets, matched, strict=True)]


def _read(target: Target, parts: Sequence[Sample], control: Control | None) -> Reading:
    if target.is_goodput:
        return _read_goodput(target, parts, control)
    parts = [part.of_class(target.group) for part in parts]
    values = [part.values(target.latency) for part in parts]
    if target.share is None:
        means = np.array(
            [np.average(v, weights=w) if len(v) else np.nan for v, w in map(_answered, values)]
        )
        means, control = _complete(means, control)
        value = float(means.mean()) - _luck(means, control) if len(means) else np.nan
        return Reading(target.key, means, target.limit_s, value, value / target.limit_s, control)
    late = np.array(
        [np.average(v > target.limit_s, weights=w) if len(v) else np.nan for v, w in values]
    )
    late, control = _complete(late, control)
    if not len(late):
        return _unseen(target)
    pooled, counts = (np.concatenate(column) for column in zip(*values, strict=True))
    value = weighted_percentile(
        np.minimum(pooled, _NEVER_S), counts, _percentile(target, late, control)
    )
    value = value if value < _NEVER_S else np.inf
    return Reading(target.key, late, 1 - target.share, value, value / target.limit_s, control)


def _unseen(target: Target) -> Reading:
    """Return the reading of a class without a request in any window: it stays open."""
    return Reading(target.key, np.empty(0), 0.0, np.nan, 0.0)


def _complete(risks: Floats, control: Control | None) -> tuple[Floats, Control | None]:
    """Leave out replications without any value, and then the control too."""
    known = ~np.isnan(risks)
    return risks[known], control if known.all() else None


def _luck(risks: Floats, control: Control | None) -> float:
    """Return by how much the mean risk is too high, as far as the control explains it."""
    if not np.isfinite(risks).all():
        return 0.0
    return float(risks.mean()) - controlled_interval(risks, control, 1 - 2 * _ERROR).mean


def _percentile(target: Target, late: Floats, control: Control | None) -> float:
    """Return the percentile of these runs that corresponds to the SLO's over all draws."""
    assert target.share is not None
    return float(np.clip(100 * (target.share - _luck(late, control)), 0, 100))


def _answered(values: tuple[Floats, NDArray[np.int64]]) -> tuple[Floats, NDArray[np.int64]]:
    """Leave out unanswered requests, which a mean ignores and a percentile counts as late."""
    finite = np.isfinite(values[0])
    return values[0][finite], values[1][finite]


def _read_goodput(target: Target, parts: Sequence[Sample], control: Control | None) -> Reading:
    assert target.share is not None
    late, worst = [], []
    for part in (part.of_class(target.group) for part in parts):
        if not len(part.arrival_s):
            continue
        # A single token has no TPOT, and meets any limit on it, as in vLLM's benchmark.
        over = [
            part.latencies_s[name].fillna(0.0) / limit for name, limit in target.limits_s.items()
        ]
        worst.append(np.max(over, axis=0))
        late.append(float(np.mean(worst[-1] > 1)))
    if not late:
        return _unseen(target)
    risks, control = np.array(late), control if len(late) == len(parts) else None
    ratio = float(
        np.percentile(np.concatenate(worst), _percentile(target, risks, control), method="lower")
    )
    within = float(np.clip(1 - risks.mean() + _luck(risks, control), 0, 1))
    return Reading(target.key, risks, 1 - target.share, within, ratio, control)
