"""What is known of every answer of a study, and the measurement that would narrow it most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pandas as pd

from busdoor.capacity.confidence.rates import DRAWS, Belief, belief
from busdoor.capacity.runs import Runs, Sample
from busdoor.capacity.several import Studies
from busdoor.capacity.study import Study
from busdoor.comparison.sources import step_time_draws
from busdoor.config import PolicyTable
from busdoor.core.arrays import Floats
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import regime

LOADS = (0.25, 0.5, 0.75, 0.95)  # of what is carried: one of each regime of a validation
SECONDS = (60.0, 300.0, 900.0)
_REQUESTS = 300  # of each simulated measurement
_DRIFT = 0.013  # of a machine between minutes: `drift` of h100-llama-3.1-8b's calibration
_ENOUGH = 1.1  # times the narrowest: a shorter measurement that comes so near is preferred
LENGTHS = {"as they are": 1.0, "prompts four times as long": 4.0}


def believe(study: Study | Studies, validation: ValidationData | None = None) -> dict[str, Belief]:
    """Return by row what is known of its highest rate; rows without a rate are left out."""
    studies = study.studies if isinstance(study, Studies) else [study]
    rows = [(one, answer) for one in studies for answer in one.answers]
    labels = [answer.policy for answer in study.answers]
    return {
        label: belief(one.runs, one.slo, answer.table, answer, one.num_requests, validation)
        for label, (one, answer) in zip(labels, rows, strict=True)
        if answer.low > 0 and answer.table is not None
    }


def what_next(
    study: Study, known: Belief, policy: PolicyTable, saturated_rps: float
) -> pd.DataFrame:
    """Return by measurement how wide the answer's 95 % interval would be after it.

    The same draws predict what the measurement would show: the mean TPOT (E2E of a batch released
    whole). What that tells of the answer is their covariance over the draws. The model's error shows
    only in the load regime of the answer, where it was read.

    Returns
    -------
    DataFrame
        Sorted, the one to do first: `load`, `request_rate`, `lengths`, `seconds`, `half_width`
        (relative, after it) and `before`.
    """
    own = np.log(known.rates)
    before = float(np.std(own))
    scales = min(known.scales.items(), key=lambda pair: np.var(pair[1]) if len(pair[1]) else 0)[1]
    middle = float(np.median(known.rates)) / saturated_rps
    models, _ = step_time_draws(study.runs.config, DRAWS)
    rows = []
    for load in LOADS:
        for lengths, factor in LENGTHS.items():
            seen = _predicted(study.runs, models, policy, load * saturated_rps, factor)
            told = known.model.sd**2 * (regime(load) == regime(min(middle, 0.999)))
            for seconds in SECONDS:
                noise = seen[0] ** 2 / max(1.0, load * saturated_rps * seconds) + _DRIFT**2
                effects = seen[1][: len(scales)]
                shared = float(np.mean(effects * (scales - scales.mean()))) if len(effects) else 0.0
                spread = float(np.var(effects)) if len(effects) else 0.0
                gone = (shared + told) ** 2 / (spread + known.model.sd**2 + noise)
                share = gone / max(float(np.var(scales)) + known.model.sd**2, 1e-12)
                inner = _inner(known) ** 2
                after = sqrt(max(before**2 - min(1.0, share) * inner, 0.0))
                rows.append([load, load * saturated_rps, lengths, seconds, 1.96 * after])
    table = pd.DataFrame(rows, columns=["load", "request_rate", "lengths", "seconds", "half_width"])
    table["before"] = 1.96 * before
    return _sorted(table)


def _inner(known: Belief) -> float:
    """Return the standard deviation of the answer that a measurement could take away."""
    return sqrt(sum(float(np.var(np.log(known.alone[key]))) for key in ("calibration", "model")))


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the shortest of the measurements that are about as good as the best first."""
    good = table["half_width"] <= _ENOUGH * table["half_width"].min()
    order = table.assign(good=~good).sort_values(["good", "seconds", "half_width"], kind="stable")
    return order.drop(columns="good").reset_index(drop=True)


def _predicted(
    runs: Runs, models: Sequence[object], policy: PolicyTable, rate: float, factor: float
) -> tuple[float, Floats]:
    """Return the relative spread of a measured value, and each draw's effect on the mean."""
    trace = runs.traces[0].select(np.arange(min(_REQUESTS, len(runs.traces[0]))))
    most = runs.limits.kv.max_model_len - trace.output_tokens - 1
    prompts = np.clip(np.rint(factor * trace.input_tokens), 1, np.maximum(most, 1)).astype(np.int64)
    longer = replace(trace, input_tokens=prompts, hash_ids=None, block_size=None)
    one = replace(runs, traces=[longer], pool=None)

    def values(own: Runs) -> Floats:
        [sample] = own.at_rate(policy, rate, len(longer), 1)
        return _latency(sample)

    base = values(one)
    means = [
        float(values(replace(one, config=replace(one.config, step_time=model))).mean())  # type: ignore[arg-type]
        for model in models
    ]
    effects = np.log(np.array(means)) - np.log(base.mean()) if means else np.empty(0)
    return float(base.std() / base.mean()), effects - effects.mean() if means else effects


def _latency(sample: Sample) -> Floats:
    for name in ("tpot", "e2e"):
        if name in sample.latencies_s:
            found: Floats = sample.latencies_s[name].to_numpy(float)
            found = found[np.isfinite(found)]
            if len(found):
                return found
    return np.ones(1)
