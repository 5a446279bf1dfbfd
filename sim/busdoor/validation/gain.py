"""Continuous against static batching, measured and simulated: burst gain or E2E ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf, isfinite

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.results.result import Result
from busdoor.validation.intervals import Interval, aligned, ratio_interval
from busdoor.validation.run import RunValidation
from busdoor_workloads import Trace

COLUMNS = ("continuous", "static", "load", "measured", "simulated", "error")
_SAME_DEVICE = ("gpu", "model", "dtype", "kv_dtype")
# A client's clock is late by milliseconds, so a trace that is sent twice does not arrive twice at
# the same instants.
_LATE_SHARE = 0.01  # of the trace's duration


def gain_table(runs: Sequence[RunValidation]) -> pd.DataFrame:
    """Return the gain of every pair of bursts of a trace, one scheduled in whole batches.

    A row per pair, as `Validation.gain` describes it.
    """
    return _table([_row(*pair, gain_of) for pair in _pairs(runs) if _has_gain(*pair)])


def e2e_ratio_table(runs: Sequence[RunValidation]) -> pd.DataFrame:
    """Return every other pair's ratio of mean E2E latencies: see `Validation.e2e_ratio`."""
    return _table([_row(*pair, e2e_ratio_of) for pair in _pairs(runs) if not _has_gain(*pair)])


def gain_of(continuous: Result, static: Result) -> float:
    """Return the ratio of saturated tokens/s; NaN unless both are bursts whose queue lasts."""
    key = "saturated_output_throughput"
    return float(continuous.summary[key] / static.summary[key])


def e2e_ratio_of(continuous: Result, static: Result) -> float:
    """Return how many times as long answers took under static batching, on average."""
    return float(static.summary["mean_e2el_ms"] / continuous.summary["mean_e2el_ms"])


def e2e_ratio_interval(continuous: RunValidation, static: RunValidation) -> tuple[Interval, int]:
    """Return the 95 % interval of the error of a pair's E2E ratio, and the requests it is over."""

    def error(*own: Floats) -> Floats:
        simulated, measured, simulated_static, measured_static = (values.mean(-1) for values in own)
        off: Floats = simulated_static / simulated / (measured_static / measured) - 1
        return off

    runs = [continuous.simulated, continuous.measured, static.simulated, static.measured]
    series = aligned(runs, "e2e")
    return ratio_interval(error, *series), len(series[0])


def _pairs(runs: Sequence[RunValidation]) -> Iterator[tuple[RunValidation, RunValidation]]:
    for continuous in runs:
        for static in runs:
            if (
                not continuous.whole_batches
                and static.whole_batches
                and _comparable(continuous, static)
            ):
                yield continuous, static


def _comparable(one: RunValidation, other: RunValidation) -> bool:
    devices = [[run.measured.meta.get(key) for key in _SAME_DEVICE] for run in (one, other)]
    return devices[0] == devices[1] and same_trace(one.trace, other.trace)


def same_trace(one: Trace, other: Trace) -> bool:
    """Return whether two traces are the same but for names: equal lengths, like arrivals.

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


def _has_gain(continuous: RunValidation, static: RunValidation) -> bool:
    """Whether the measured and the simulated runs are pairs of bursts that have a gain."""
    pairs = ((continuous.measured, static.measured), (continuous.simulated, static.simulated))
    return all(isfinite(gain_of(*pair)) for pair in pairs)


def _row(
    continuous: RunValidation, static: RunValidation, of: Callable[[Result, Result], float]
) -> dict[str, str | float]:
    measured = of(continuous.measured, static.measured)
    simulated = of(continuous.simulated, static.simulated)
    load = max(run.load if isfinite(run.load) else inf for run in (continuous, static))
    cells = (continuous.name, static.name, load, measured, simulated, simulated / measured - 1)
    return dict(zip(COLUMNS, cells, strict=True))


def _table(rows: list[dict[str, str | float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))
