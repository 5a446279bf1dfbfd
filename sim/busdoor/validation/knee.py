"""Where latency bends upwards: over the rates of several runs, measured and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.validation.errors import knee_rate
from busdoor.validation.run import RunValidation

SIDES = ["measured", "simulated"]
# Mean lengths that differ by no more are taken for draws of one law: those of some hundred requests
# scatter by a tenth.
_SAME_LENGTHS = 1.3


def mean_e2e(runs: Sequence[RunValidation]) -> tuple[Floats, pd.DataFrame]:
    """Rates of a server's runs of one kind, increasing, and mean E2E latency on both sides.

    Requests per second, and seconds in columns `measured` and `simulated`. Bursts are left out,
    since they have no rate, and so are all runs but those of the scheduler and the lengths with the
    most rates.
    """
    alike = runs_alike(runs)
    rows = [run.table.loc[("e2e", "mean"), SIDES] for run in alike]
    return np.array([run.request_rate for run in alike]), pd.DataFrame(rows, columns=SIDES)


def runs_alike(runs: Sequence[RunValidation]) -> list[RunValidation]:
    """Return the open runs that a knee is seen in, by increasing rate."""
    open_runs = sorted(
        (run for run in runs if isfinite(run.request_rate)), key=lambda run: run.request_rate
    )
    groups = [[other for other in open_runs if _alike(run, other)] for run in open_runs]
    return max(groups, key=len, default=[])


def knee(runs: Sequence[RunValidation]) -> dict[str, float]:
    """Rate at which mean E2E latency has doubled: `measured`, `simulated`, and `error`.

    NaN with fewer than three rates, or where it never doubles.
    """
    rates, latency = mean_e2e(runs)
    if len(set(rates.tolist())) < 3:
        return {"measured": nan, "simulated": nan, "error": nan}
    rate = {side: knee_rate(rates, latency[side].to_numpy(dtype=float)) for side in SIDES}
    return {**rate, "error": rate["simulated"] / rate["measured"] - 1}


def _alike(one: RunValidation, other: RunValidation) -> bool:
    """Whether both were scheduled alike and served requests of about the same lengths."""
    means = np.array(
        [[own.trace.input_tokens.mean(), own.trace.output_tokens.mean()] for own in (one, other)]
    )
    return _scheduled(one) == _scheduled(other) and bool(
        (np.ptp(np.log(means), axis=0) < np.log(_SAME_LENGTHS)).all()
    )


def _scheduled(run: RunValidation) -> tuple[Any, ...]:
    return tuple(
        run.measured.meta.get(key)
        for key in ("policy_config", "lookahead", "num_blocks", "max_model_len")
    )
