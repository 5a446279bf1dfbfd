"""A reduced step time from per-request times: fitted to TTFT and TPOT at a few rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from busdoor.calibration.calibration import Calibration, about_runs
from busdoor.calibration.teacher_forcing import check_served, policy_of, trace_of
from busdoor.core.arrays import Floats
from busdoor.core.format import as_percent, as_share
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.terms import TERM

FITTED = (
    "base_s",
    "per_token_s",
    "per_context_s",
)  # of `step_time.terms`; prefill pairs cost what keys do
# What no table of requests can show, whatever the rates.
HIDDEN = (
    "host time apart from the device's",
    "CUDA graphs and their padding apart from eager iterations",
    "requests apart from their tokens",
    "prefill attention apart from that of decodes",
    "bends over tokens",
)
_LATENCIES = ("ttft", "tpot")
# Means over fourths of the requests by prompt length: short and long prompts separate tokens from
# query-key pairs, and a mean is smoother than a percentile as batches change with the terms.
_FOURTHS = 4
_STEP = (
    0.05  # of a term's first guess: a smaller one would measure which batch an arrival just misses
)
_EVALUATIONS = 15
_NOISE = (
    0.01  # relative; even a perfect fit knows the latencies of a few hundred requests no better
)
SURE = 2.0  # standard errors that a term has to be away from 0, to be called identified
WORST_ERROR = (
    0.05  # of a mean TTFT or TPOT in sample: the bar of issue 4 for what a fit is to reproduce
)
# Belsley, Kuh and Welsch, Regression Diagnostics (1980), ch. 3: a scaled condition index beyond 30
# is harmful collinearity, among the terms that have more than half of their variance there.
WORST_CONDITION = 30.0
_MOST_VARIANCE = 0.5


def calibrate_from_requests(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    *,
    name: str = "calibration",
    policy: Mapping[str, Any] | None = None,
) -> Calibration:
    """Fit base, per token and per context so that simulated TTFT and TPOT are as measured.

    Parameters
    ----------
    results : sequence of Result
        Per-request times of runs at one or more rates, each with a policy in its meta.
    names : sequence of str, optional
        What to call the runs.
    name : str
        What to call the calibration.
    policy : mapping, optional
        Fields that replace the policy's and the memory's in the meta.

    Returns
    -------
    Calibration
        `about["not_identified"]` names the terms that these rates do not tell from 0,
        `about["hidden"]` what requests never show, `about["doubts"]` why the fit should not be
        used, a sentence each (absent for a sound fit); `errors` are relative ones of each statistic
        fitted.

    Raises
    ------
    ValueError
        If a run has no TTFT or TPOT, or its meta has no policy.
    """
    names = list(names or (f"run {i + 1}" for i in range(len(results))))
    for result, run in zip(results, names, strict=True):
        if not np.isfinite(_statistics(result)).all():
            raise ValueError(
                f"{run} has no TTFT or no TPOT: it needs first_token_s and answers of 2 tokens or "
                f"more"
            )
    problem = _Problem(results, policy or {})
    solution, jacobian, residuals = problem.solve()
    errors = _standard_errors(jacobian, residuals)
    unsure = [term for term, x, sd in zip(FITTED, solution, errors, strict=True) if x < SURE * sd]
    ends = [np.maximum(solution + side * 1.96 * errors, 0.0) * problem.scale for side in (-1, 1)]
    intervals = {
        term: [float(low), float(high)] for term, low, high in zip(FITTED, *ends, strict=True)
    }
    found = problem.errors(residuals, names)
    doubts = [*_large_errors(found), *_confused(jacobian, unsure)]
    return Calibration(
        step_time=problem.step_time(solution, name),
        intervals={
            term: [ends] if TERM[term].segmented else ends for term, ends in intervals.items()
        },
        errors={f"{run}_{key}": value for run, row in found.items() for key, value in row.items()},
        held_out={},
        about={
            "name": name,
            **about_runs(results, names, policy),
            "from": "requests",
            "num_requests": sum(len(result.requests) for result in results),
            "not_identified": unsure,
            "hidden": list(HIDDEN),
            **({"doubts": doubts} if doubts else {}),
        },
    )


def _large_errors(errors: Mapping[str, Mapping[str, float]]) -> list[str]:
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


def _confused(jacobian: Floats, unsure: Sequence[str]) -> list[str]:
    """Name the terms that the latencies do not separate, or state that all are unknown."""
    scaled = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    _, values, vectors = np.linalg.svd(scaled, full_matrices=False)
    values = np.maximum(values, np.finfo(float).eps * values[0])
    shares = (vectors / values[:, None]) ** 2
    high = values[0] / values > WORST_CONDITION
    shared = shares[high].sum(axis=0) / shares.sum(axis=0) > _MOST_VARIANCE
    if high.any():
        terms = [term for term, own in zip(FITTED, shared, strict=True) if own]
        return [
            f"these runs cannot tell apart {', '.join(terms)}: measure other prompt lengths, or "
            f"more rates"
        ]
    if len(unsure) == len(FITTED):
        return [
            f"these runs tell none of {', '.join(FITTED)} from 0: measure more requests, or lower "
            f"rates"
        ]
    return []


@dataclass
class _Problem:
    """Residuals of the simulated latencies; the unknowns are terms in units of a first guess."""

    results: Sequence[Result]
    policy: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.traces = [trace_of(result) for result in self.results]
        self.measured = np.concatenate([_statistics(result) for result in self.results])
        self.weights = _queue_weights(self.measured.reshape(len(self.results), -1))
        self.scale = _first_guess(self.results)

    def step_time(self, x: Floats, name: str = "") -> CalibratedStepTime:
        """Make the reduced model."""
        base_s, token_s, pair_s = (np.maximum(x, 0.0) * self.scale).tolist()
        return CalibratedStepTime(
            base_s=base_s,
            per_token_s=(token_s,),
            per_prefill_pair_s=pair_s,
            per_context_s=pair_s,
            calibration=name,
        )

    def residuals(self, x: Floats) -> Floats:
        """Relative errors of all statistics of all runs."""
        model, found = self.step_time(x), []
        for result, trace in zip(self.results, self.traces, strict=True):
            policy = policy_of(result.meta, trace, self.policy)
            lookahead = int(result.meta.get("lookahead", 0))
            simulated = simulate(trace, policy, model, lookahead=lookahead, iterations=False)
            check_served(simulated, f"{trace.name}, simulated with that policy and memory,")
            found.append(_statistics(simulated))
        relative: Floats = self.weights * np.log(np.concatenate(found) / self.measured)
        return relative

    def errors(self, residuals: Floats, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Relative errors of the mean TTFT and TPOT of each run."""
        relative = (
            np.exp(residuals / self.weights)
            .reshape(len(names), len(_LATENCIES), _FOURTHS)
            .mean(axis=2)
            - 1
        )
        keys = [f"mean_{latency}" for latency in _LATENCIES]
        return {
            run: dict(zip(keys, row, strict=True))
            for run, row in zip(names, relative.tolist(), strict=True)
        }

    def jacobian(self, x: Floats) -> Floats:
        """Central differences, wide enough to look over single batches."""
        columns = []
        for i in range(len(x)):
            step = np.zeros(len(x))
            step[i] = min(_STEP, x[i]) or _STEP
            low = np.maximum(x - step, 0.0)
            columns.append((self.residuals(x + step) - self.residuals(low)) / (x + step - low)[i])
        return np.column_stack(columns)

    def solve(self) -> tuple[Floats, Floats, Floats]:
        """Return the unknowns, and the Jacobian and residuals there."""
        from scipy.optimize import least_squares

        found = least_squares(
            self.residuals,
            np.ones(len(FITTED)),
            self.jacobian,
            bounds=(0, np.inf),
            loss="soft_l1",
            f_scale=0.1,
            max_nfev=_EVALUATIONS,
            xtol=1e-3,
            ftol=1e-4,
        )
        return found.x, self.jacobian(found.x), self.residuals(found.x)


def _statistics(result: Result) -> Floats:
    """Mean TTFT of each fourth by prompt length, then each fourth's mean TPOT, in seconds."""
    table = result.latencies[list(_LATENCIES)]
    place = result.requests.loc[table.index, "input_tokens"].rank(method="first").to_numpy()
    fourth = np.ceil(place * _FOURTHS / max(len(table), 1)).astype(int)
    means: Floats = (
        table.groupby(fourth).mean().reindex(range(1, _FOURTHS + 1)).to_numpy().T.ravel()
    )
    return means


def _queue_weights(measured: Floats) -> Floats:
    """Weigh a TTFT less the longer its queue: that multiplies step errors by 1/(1 − ρ)."""
    lightest = measured.min(axis=0)
    firsts = np.arange(measured.shape[1]) < _FOURTHS
    return np.where(firsts, lightest / measured, 1.0).ravel()


def _first_guess(results: Sequence[Result]) -> Floats:
    """Where to start, and units: at light load a TPOT is mostly base, a TTFT mostly tokens."""
    light = min(results, key=lambda result: float(result.latencies["tpot"].median()))
    tpot_s, ttft_s = (float(light.latencies[name].median()) for name in ("tpot", "ttft"))
    prompt = float(light.requests["input_tokens"].median())
    base_s = 0.7 * tpot_s
    token_s = max(ttft_s - base_s, 0.1 * base_s) / prompt
    return np.array([base_s, token_s, 0.1 * tpot_s / prompt])


def _standard_errors(jacobian: Floats, residuals: Floats) -> Floats:
    """Of the unknowns; infinite where a direction does not show at all."""
    spare = max(1, len(residuals) - len(FITTED))
    variance = max(_NOISE**2, float((residuals**2).sum()) / spare)
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    with np.errstate(divide="ignore"):
        errors: Floats = np.sqrt((vectors**2 * (variance / np.maximum(values, 0.0))).sum(axis=1))
    return errors
