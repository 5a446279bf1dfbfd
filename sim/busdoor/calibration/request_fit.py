"""Fitting a step time to per-request times: simulated TTFT and TPOT are to be as measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from busdoor.calibration.teacher_forcing import check_served, policy_of
from busdoor.catalog import Engine
from busdoor.core.arrays import Floats
from busdoor.core.format import as_percent, as_share
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time.base import StepTime
from busdoor_workloads import Trace

M = TypeVar("M", bound=StepTime)

_LATENCIES = ("ttft", "tpot")
# Means over fourths of the requests by prompt length: short and long prompts separate tokens from
# query-key pairs, and a mean is smoother than a percentile as batches change with the terms.
_FOURTHS = 4
# Width of the differences, as a share of an unknown, and the loss. Wide first, as a narrow one
# would measure which batch an arrival just misses, and then narrow, as the wide one sees bends of a
# roofline that the solution is not at; squares first, as far from the solution every statistic is
# an outlier.
_PASSES: tuple[tuple[float, Literal["linear", "soft_l1"]], ...] = (
    (0.05, "linear"),
    (0.05, "soft_l1"),
    (0.01, "soft_l1"),
)
_EVALUATIONS = 30
# relative; even a perfect fit knows the latencies of a few hundred requests no better
_NOISE = 0.01
SURE = 2.0  # standard errors that a term must be away from 0, to be called identified
# of a mean TTFT or TPOT in sample: the bar of issue 4 for what a fit is to reproduce
WORST_ERROR = 0.05
# Belsley, Kuh and Welsch, Regression Diagnostics (1980), ch. 3: a scaled condition index beyond 30
# is harmful collinearity, among the terms that have more than half of their variance there.
WORST_CONDITION = 30.0
_MOST_VARIANCE = 0.5


@dataclass(frozen=True)
class Load:
    """One measured run: its requests, each arriving when it was sent, and how it was served."""

    name: str
    measured: Result
    trace: Trace
    meta: Mapping[str, Any]
    lookahead: int


@dataclass(frozen=True)
class Fitted:
    """A solution, with the Jacobian and the residuals there."""

    x: Floats
    jacobian: Floats
    residuals: Floats

    @property
    def standard_errors(self) -> Floats:
        """Of the unknowns; beyond all measure where a direction does not show at all."""
        variance, values, vectors = self._spread()
        least = np.finfo(float).eps * max(float(values.max()), np.finfo(float).tiny)
        errors: Floats = np.sqrt((vectors**2 * (variance / np.maximum(values, least))).sum(axis=1))
        return errors

    def draws(self, count: int) -> Floats:
        """Return so many draws of all unknowns together, from the normal law about the solution."""
        variance, values, vectors = self._spread()
        # a direction that does not show at all is as wide as the solution itself
        width = np.minimum(
            np.sqrt(variance / np.maximum(values, np.finfo(float).tiny)), np.linalg.norm(self.x)
        )
        normal = np.random.default_rng(0).standard_normal((count, len(self.x)))
        drawn: Floats = np.maximum(self.x + (normal * width) @ vectors.T, 0.0)
        return drawn

    def _spread(self) -> tuple[float, Floats, Floats]:
        """Return the residuals' variance, and how well they show each direction of unknowns."""
        spare = max(1, len(self.residuals) - len(self.x))
        variance = max(_NOISE**2, float((self.residuals**2).sum()) / spare)
        values, vectors = np.linalg.eigh(self.jacobian.T @ self.jacobian)
        return variance, values, vectors


@dataclass
class RequestFit(Generic[M]):
    """Residuals of the simulated latencies; the unknowns are in units in which about 1 is expected.

    `policy` has fields that replace the policy's and the memory's in the runs' meta; `model` makes
    a step time of the unknowns, which lie within `bounds` (least, largest); the requests passed the
    front end of `engine`.
    """

    loads: Sequence[Load]
    policy: Mapping[str, Any]
    model: Callable[[Floats], M]
    bounds: tuple[Floats, Floats]
    engine: Engine | None = None
    measured: Floats = field(init=False)
    weights: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.measured = np.concatenate([statistics(load.measured) for load in self.loads])
        self.weights = _queue_weights(self.measured.reshape(len(self.loads), -1))

    def residuals(self, x: Floats) -> Floats:
        """Relative errors of all statistics of all runs."""
        model, found = self.model(x), []
        for load in self.loads:
            policy = policy_of(load.meta, load.trace, self.policy)
            options: dict[str, Any] = {"lookahead": load.lookahead, "engine": self.engine}
            simulated = simulate(load.trace, policy, model, iterations=False, **options)
            check_served(simulated, f"{load.trace.name}, simulated with that policy and memory,")
            found.append(statistics(simulated))
        relative: Floats = self.weights * np.log(np.concatenate(found) / self.measured)
        return relative

    def errors(self, residuals: Floats) -> dict[str, dict[str, float]]:
        """Relative errors of the mean TTFT and TPOT of each run."""
        shape = (len(self.loads), len(_LATENCIES), _FOURTHS)
        relative = np.exp(residuals / self.weights).reshape(shape).mean(axis=2) - 1
        keys = [f"mean_{latency}" for latency in _LATENCIES]
        rows = zip((load.name for load in self.loads), relative.tolist(), strict=True)
        return {run: dict(zip(keys, row, strict=True)) for run, row in rows}

    def solve(self, start: Floats) -> Fitted:
        """Return the unknowns that fit best."""
        from scipy.optimize import least_squares

        x, low, high = start, *self.bounds
        for step, loss in _PASSES:
            found = least_squares(
                self.residuals, np.clip(x, low, high), partial(self._jacobian, width=step), bounds=self.bounds,
                loss=loss, f_scale=0.1, x_scale="jac", max_nfev=_EVALUATIONS, xtol=1e-5, ftol=1e-6, gtol=1e-9,
            )  # fmt: skip
            x = found.x
        return Fitted(x, self._jacobian(x, _PASSES[0][0]), self.residuals(x))

    def _jacobian(self, x: Floats, width: float) -> Floats:
        """Central differences, within the bounds."""
        low, high = self.bounds
        columns = []
        for i in range(len(x)):
            step = np.zeros(len(x))
            step[i] = (min(width, x[i]) or width) if low[i] == 0 else width * x[i]
            below, above = np.maximum(x - step, low), np.minimum(x + step, high)
            columns.append((self.residuals(above) - self.residuals(below)) / (above - below)[i])
        return np.column_stack(columns)


def check_timed(name: str, result: Result) -> None:
    """Raise ValueError if a run has no TTFT or no TPOT to fit to."""
    if not np.isfinite(statistics(result)).all():
        raise ValueError(
            f"{name} has no TTFT or no TPOT: it needs first_token_s and answers of 2 tokens or more"
        )


def large_errors(errors: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Name the worst statistic that the fit does not reproduce, if there is one."""
    run, key, worst = max(
        ((run, key, value) for run, row in errors.items() for key, value in row.items()),
        key=lambda own: abs(own[2]),
    )
    if abs(worst) <= WORST_ERROR:
        return []
    latency = key.removeprefix("mean_").upper()
    return [
        f"the mean {latency} of {run} is {as_percent(worst)} off in sample, more than "
        f"{as_share(WORST_ERROR)}"
    ]


def confused(jacobian: Floats, terms: Sequence[str], unsure: Sequence[str]) -> list[str]:
    """Name the terms that the latencies do not tell apart, or that all of them are unknown."""
    scaled = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    _, values, vectors = np.linalg.svd(scaled, full_matrices=False)
    values = np.maximum(values, np.finfo(float).eps * values[0])
    shares = (vectors / values[:, None]) ** 2
    high = values[0] / values > WORST_CONDITION
    shared = shares[high].sum(axis=0) / shares.sum(axis=0) > _MOST_VARIANCE
    if high.any():
        own = ", ".join(term for term, one in zip(terms, shared, strict=True) if one)
        return [f"these runs cannot tell apart {own}: measure other prompt lengths, or more rates"]
    if len(unsure) == len(terms):
        return [
            f"these runs tell none of {', '.join(terms)} from 0: measure more requests, or lower "
            f"rates"
        ]
    return []


def statistics(result: Result) -> Floats:
    """Mean TTFT of each fourth of the requests by prompt length, then mean TPOT, in seconds."""
    table = result.latencies[list(_LATENCIES)]
    place = result.requests.loc[table.index, "input_tokens"].rank(method="first").to_numpy()
    fourth = np.ceil(place * _FOURTHS / max(len(table), 1)).astype(int)
    means: Floats = (
        table.groupby(fourth).mean().reindex(range(1, _FOURTHS + 1)).to_numpy().T.ravel()
    )
    return means


def _queue_weights(measured: Floats) -> Floats:
    """Weigh a TTFT the less, the longer its queue, which multiplies errors by 1/(1 − ρ)."""
    lightest = measured.min(axis=0)
    firsts = np.arange(measured.shape[1]) < _FOURTHS
    return np.where(firsts, lightest / measured, 1.0).ravel()
