"""What continuous batching is worth against static batching: as it was measured, and as it is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.result import Result

if TYPE_CHECKING:
    from busdoor.calibration.validation import RunValidation
    from busdoor_workloads import Trace

COLUMNS = ("continuous", "static", "quantity", "load", "measured", "simulated", "error")
THROUGHPUT, LATENCY = "saturated tokens/s", "E2E mean"
_SAME_DEVICE = ("gpu", "model", "dtype")
# A client's clock is late by milliseconds, so a trace that is sent twice does not arrive twice at the same instants.
_LATE_SHARE = 0.01  # of the trace's duration
# Rates up to the last admission leave out the drain; where most requests finish in the drain, they are of a few only.
_LEAST_SHARE = 0.5


def gain_table(runs: Sequence[RunValidation]) -> pd.DataFrame:
    """Compare every pair of runs of one trace of which one was scheduled in whole batches.

    Parameters
    ----------
    runs : sequence of RunValidation
        Of any traces, policies and devices.

    Returns
    -------
    DataFrame
        One row a pair, as `Validation.gain` describes it.
    """
    rows = [_row(continuous, static) for continuous, static in _pairs(runs)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _pairs(runs: Sequence[RunValidation]) -> Iterator[tuple[RunValidation, RunValidation]]:
    for continuous in runs:
        for static in runs:
            if not continuous.whole_batches and static.whole_batches and _comparable(continuous, static):
                yield continuous, static


def _comparable(one: RunValidation, other: RunValidation) -> bool:
    devices = [[run.measured.meta.get(key) for key in _SAME_DEVICE] for run in (one, other)]
    return devices[0] == devices[1] and same_trace(one.trace, other.trace)


def same_trace(one: Trace, other: Trace) -> bool:
    """Say whether two traces are the same, whatever they are called: equal lengths, arrivals at about the same times.

    Examples
    --------
    >>> from busdoor_workloads import Trace
    >>> lengths = {"input_tokens": [8, 8, 8], "output_tokens": [10, 20, 50]}
    >>> trace = Trace(arrival_s=[0.0, 1.0, 2.0], **lengths)
    >>> same_trace(trace, Trace(arrival_s=[0.0, 1.001, 2.002], **lengths))      # a client's clock
    True
    >>> same_trace(trace, Trace(arrival_s=[0.0, 0.5, 1.0], **lengths))          # twice the rate
    False
    """
    lengths = (np.array([trace.input_tokens, trace.output_tokens]) for trace in (one, other))
    if not np.array_equal(next(lengths), next(lengths)):
        return False
    late_s = np.abs(one.arrival_s - other.arrival_s).max(initial=0.0)
    return bool(one.concurrency == other.concurrency and late_s <= _LATE_SHARE * one.duration_s)


def _row(continuous: RunValidation, static: RunValidation) -> dict[str, str | float]:
    saturated = all(_lasting_queue(run.measured) for run in (continuous, static))
    measured = _gain(continuous.measured, static.measured, saturated)
    simulated = _gain(continuous.simulated, static.simulated, saturated)
    loads = [run.load if isfinite(run.load) else inf for run in (continuous, static)]
    cells = (continuous.name, static.name, THROUGHPUT if saturated else LATENCY, max(loads), measured, simulated)
    return dict(zip(COLUMNS, (*cells, simulated / measured - 1), strict=True))


def _lasting_queue(result: Result) -> bool:
    """Whether its saturated throughput is of enough requests to mean something."""
    done = result.requests[result.requests["status"] == "finished"]
    before_drain = (done["finish_s"] <= done["first_scheduled_s"].max()).sum()
    return bool(result.summary["saturated"]) and bool(before_drain >= _LEAST_SHARE * len(done))


def _gain(continuous: Result, static: Result, saturated: bool) -> float:
    """Times the tokens per second if both were saturated, else times as soon; more than 1 is for continuous."""
    if saturated:
        key = "saturated_output_throughput"
        return float(continuous.summary[key] / static.summary[key])
    return float(static.summary["mean_e2el_ms"] / continuous.summary["mean_e2el_ms"])
