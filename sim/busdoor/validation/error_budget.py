"""Which part is to blame for the error of a simulated run."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd

from busdoor.calibration.teacher_forcing import batches_of, predicted_s
from busdoor.core.arrays import Floats
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.validation.errors import statistics


def error_budget(
    measured: Result, simulated: Result, replayed: Result | None, step_time: StepTime
) -> pd.Series[float]:
    """Split the error of the mean E2E latency.

    scheduling: our scheduler, given the measured durations. step_model, host: the errors of the
    device's and the host's time in the measured iterations between a request's arrival and its
    answer. feedback: the rest, what queueing makes of these as they change the batches.
    """
    true = _mean_e2e(measured)
    total = _mean_e2e(simulated) / true - 1
    if not len(measured.iterations):
        return pd.Series(
            {"scheduling": nan, "step_model": nan, "host": nan, "feedback": nan, "total": total}
        )
    scheduling = nan if replayed is None else _mean_e2e(replayed) / true - 1
    device, host = (_late_s(measured, own) / true for own in _lateness(measured, step_time))
    parts = {"scheduling": scheduling, "step_model": device, "host": host}
    return pd.Series({**parts, "feedback": total - np.nansum(list(parts.values())), "total": total})


def _lateness(measured: Result, step_time: StepTime) -> tuple[Floats, Floats]:
    """Seconds by which the model errs in each measured iteration: of device, of host."""
    table = measured.iterations
    predicted, seconds = predicted_s(measured, step_time), table["duration_s"].to_numpy(dtype=float)
    if (
        "device_s" not in table
        or not isinstance(step_time, CalibratedStepTime)
        or step_time.overlap
    ):
        return predicted - seconds, np.zeros(len(seconds))
    host = (
        np.array([step_time.host_of(batch) for batch in batches_of(measured)])
        * table["repeat"].to_numpy()
    )
    exposed = np.maximum(seconds - table["device_s"].to_numpy(dtype=float), 0.0)
    return predicted - host - (seconds - exposed), host - exposed


def _late_s(measured: Result, late: Floats) -> float:
    """Mean over requests of what the iterations between arrival and answer are late."""
    start = measured.iterations["start_s"].to_numpy(dtype=float)
    times = np.column_stack(
        [start, start + measured.iterations["duration_s"].to_numpy(dtype=float)]
    ).ravel()
    total = np.cumsum(late)
    totals = np.column_stack([total - late, total]).ravel()
    done = measured.requests[measured.requests["status"] == "finished"]
    sums = (
        np.interp(done[column].to_numpy(dtype=float), times, totals)
        for column in ("finish_s", "arrival_s")
    )
    return float(np.mean(next(sums) - next(sums)))


def _mean_e2e(result: Result) -> float:
    return float(statistics(result)["e2e", "mean"])
