"""A reduced step time from per-request times alone, fitted to TTFT and TPOT at a few rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from busdoor.calibration.calibration import Calibration
from busdoor.calibration.quality import KEPT_DRAWS
from busdoor.calibration.request_fit import SURE, RequestFit, check_timed, confused, large_errors
from busdoor.calibration.request_load import Sent, about_requests
from busdoor.core.arrays import Floats
from busdoor.results.result import Result
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.terms import TERM

FITTED = ("base_s", "per_token_s", "per_prefill_pair_s", "per_context_s")  # of `step_time.terms`
# What no table of requests can show, whatever the rates.
HIDDEN = (
    "host time apart from the device's",
    "CUDA graphs and their padding apart from eager iterations",
    "requests apart from their tokens",
    "bends over tokens",
)


def calibrate_from_requests(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    *,
    name: str = "calibration",
    policy: Mapping[str, Any] | None = None,
    sent: Sent | None = None,
) -> Calibration:
    """Fit base, per token, prefill pair and key so that simulated TTFT and TPOT are as measured.

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
    sent : Sent, optional
        How the requests were sent, where the runs do not say.

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
    for run, result in zip(names, results, strict=True):
        check_timed(run, result)
    given, how = dict(policy or {}), sent or Sent()
    rows = zip(names, results, strict=True)
    loads = [how.load(run, result, given, number) for number, (run, result) in enumerate(rows)]
    scale = _first_guess([load.measured for load in loads])

    def step_time(x: Floats) -> CalibratedStepTime:
        base_s, token_s, pair_s, key_s = (np.maximum(x, 0.0) * scale).tolist()
        return CalibratedStepTime(
            base_s=base_s,
            per_token_s=(token_s,),
            per_prefill_pair_s=pair_s,
            per_context_s=key_s,
            calibration=name,
        )

    ones = np.ones(len(FITTED))
    fit = RequestFit(loads, given, step_time, (0 * ones, np.inf * ones))
    found = fit.solve(ones)
    sd = found.standard_errors
    unsure = [term for term, x, own in zip(FITTED, found.x, sd, strict=True) if x < SURE * own]
    ends = [np.maximum(found.x + side * 1.96 * sd, 0.0) * scale for side in (-1, 1)]
    intervals = {
        term: [float(low), float(high)] for term, low, high in zip(FITTED, *ends, strict=True)
    }
    errors = fit.errors(found.residuals)
    doubts = [*large_errors(errors), *confused(found.jacobian, FITTED, unsure)]
    return Calibration(
        step_time=step_time(found.x),
        intervals={
            term: [ends] if TERM[term].segmented else ends for term, ends in intervals.items()
        },
        errors={f"{run}_{key}": value for run, row in errors.items() for key, value in row.items()},
        held_out={},
        draws=[
            {
                term: [value] if TERM[term].segmented else value
                for term, value in zip(FITTED, own, strict=True)
            }
            for own in (found.draws(KEPT_DRAWS) * scale).tolist()
        ],
        about={
            **about_requests(
                results, names, name=name, policy=policy, lookahead=loads[0].lookahead
            ),
            "not_identified": unsure,
            "hidden": list(HIDDEN),
            **({"doubts": doubts} if doubts else {}),
        },
    )


def _first_guess(results: Sequence[Result]) -> Floats:
    """Where to start, and the units: a light load's TPOT is mostly base, its TTFT mostly tokens."""
    light = min(results, key=lambda result: float(result.latencies["tpot"].median()))
    tpot_s, ttft_s = (float(light.latencies[name].median()) for name in ("tpot", "ttft"))
    prompt = float(light.requests["input_tokens"].median())
    base_s = 0.7 * tpot_s
    token_s = max(ttft_s - base_s, 0.1 * base_s) / prompt
    pair_s = 0.1 * tpot_s / prompt
    return np.array([base_s, token_s, pair_s, pair_s])
