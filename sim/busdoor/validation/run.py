"""One measured run and the same run simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration.host_launch import HostLaunch
from busdoor.calibration.quality import StepErrors
from busdoor.core.arrays import Floats
from busdoor.core.json import plain
from busdoor.results.result import Result
from busdoor.validation.errors import regime
from busdoor.validation.intervals import Interval, ratio_interval
from busdoor.validation.transient import transient
from busdoor_workloads import Trace


@dataclass(frozen=True)
class RunValidation:
    """One measured run beside its simulation.

    Attributes
    ----------
    name : str
        Of the run.
    measured, simulated : Result
        Both runs; the simulated one iteration by iteration.
    trace : Trace
        What was served.
    whole_batches : bool
        Whether it was scheduled as a bus (static, dynamic, multi_bin) rather than at every
        iteration.
    load : float
        ρ: the rate over what the policy can carry; NaN for a burst.
    steps : StepErrors
        Of the step time on the measured batches.
    agreement : dict
        `played`: share of batches that our scheduler decides alike when it is given the measured
        durations; `same`, `overlap` and `mean_batch` in closed loop.
    table : DataFrame
        Measured, simulated and error, by (latency, statistic); `low` and `high`, the error's 95 %
        interval, and `n`, the requests that it is over, see `busdoor.validation.intervals`.
    budget : Series
        What each part adds to the relative error of the mean E2E latency: scheduling, step_model,
        host, feedback; and their sum, total.
    predicted_s : array
        Seconds that the step time gives each measured iteration.
    host_launch : HostLaunch, optional
        The run's host, with which it was simulated; None where the step time has no host of its
        own.
    """

    name: str
    measured: Result
    simulated: Result
    trace: Trace
    whole_batches: bool
    load: float
    steps: StepErrors
    agreement: Mapping[str, float]
    table: pd.DataFrame
    budget: pd.Series[float]
    predicted_s: Floats
    host_launch: HostLaunch | None = None

    @property
    def regime(self) -> str:
        """Load regime."""
        return regime(self.load)

    @cached_property
    def transient(self) -> str:
        """Why this run is a transient and no load; empty where it is one, or a burst."""
        return transient(self.measured.requests, self.trace, self.load, self.measured.meta)

    @property
    def amplification(self) -> float:
        """Factor by which queueing multiplies a step-time error, 1/(1 − ρ); NaN from ρ = 1 on."""
        return 1 / (1 - self.load) if self.load < 1 else nan

    @property
    def request_rate(self) -> float:
        """Requests per second that arrived; infinite for a burst."""
        return float(self.trace.request_rate)

    @property
    def num_requests(self) -> int:
        """Requests of the trace, over which the errors of latencies are taken."""
        return len(self.measured.requests)

    @property
    def num_iterations(self) -> int:
        """Measured iterations, over which the errors of the step time are taken."""
        return int(self.measured.iterations["repeat"].sum())

    @property
    def errors(self) -> dict[str, float]:
        """Relative errors of step_mean_absolute, step_total, e2e_mean ... output_rate, or NaN."""
        steps = {"step_mean_absolute": self.steps.mean_absolute, "step_total": self.steps.total}
        return steps | {"_".join(key): float(error) for key, error in self.table["error"].items()}  # type: ignore[arg-type]

    def interval(self, quantity: str) -> Interval:
        """Return the 95 % interval of an error, by its key in `errors`; NaN where unknown."""
        latency, _, statistic = quantity.partition("_")
        if latency == "step":
            return self._step_intervals[quantity]
        row = self._row(latency, statistic)
        return row.get("low", nan), row.get("high", nan)

    def difference_s(self, quantity: str) -> float:
        """Return an error in seconds, of a step or a latency; NaN for a rate."""
        latency, _, statistic = quantity.partition("_")
        if latency == "output":
            return nan
        if latency != "step":
            row = self._row(latency, statistic)
            return row["measured"] * row["error"]
        measured_s, predicted_s = self._steps_s
        off = predicted_s - measured_s
        total = np.abs(off).sum() if quantity == "step_mean_absolute" else off.sum()
        return float(total / self.num_iterations) if self.num_iterations else nan

    def _row(self, latency: str, statistic: str) -> dict[str, float]:
        """Return a row of the table."""
        columns = self.table.columns
        return {name: float(self.table[name][latency, statistic]) for name in columns}

    @property
    def batch(self) -> tuple[float, int]:
        """Requests in a measured batch: the mean over time, and the most; NaN and 0 if unknown."""
        table = self.measured.iterations
        if not len(table):
            return nan, 0
        mean = np.average(table["num_requests"], weights=table["duration_s"])
        return float(mean), int(table["num_requests"].max())

    @cached_property
    def _steps_s(self) -> tuple[Floats, Floats]:
        """Seconds of each measured row of iterations, measured and predicted."""
        measured_s = self.measured.iterations["duration_s"].to_numpy(dtype=float)
        return measured_s[measured_s > 0], self.predicted_s[measured_s > 0]

    @cached_property
    def _step_intervals(self) -> dict[str, Interval]:
        of: dict[str, Callable[[Floats, Floats], Floats]] = {
            "step_mean_absolute": lambda ours, theirs: np.abs(theirs / ours - 1).mean(-1),
            "step_total": lambda ours, theirs: theirs.sum(-1) / ours.sum(-1) - 1,
        }
        return {name: ratio_interval(own, *self._steps_s) for name, own in of.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them: what is not a number is null."""
        errors: dict[str, dict[str, float | None]] = {}
        for row in (
            self.table["error"]
            .rename_axis(["latency", "statistic"])
            .reset_index()
            .to_dict("records")
        ):
            errors.setdefault(row["latency"], {})[row["statistic"]] = plain(row["error"])
        return {
            "load": plain(self.load),
            "whole_batches": self.whole_batches,
            "regime": self.regime,
            "transient": self.transient or None,
            "amplification": plain(self.amplification),
            "step_time": plain(self.steps._asdict()),
            "batches": plain(self.agreement),
            "errors": errors,
            "intervals": {key: plain(list(self.interval(key))) for key in self.errors},
            "differences_ms": {key: plain(1e3 * self.difference_s(key)) for key in self.errors},
            "budget": plain(dict(self.budget)),
            "num_requests": self.num_requests,
            "num_iterations": self.num_iterations,
            "host_launch": self.host_launch.to_dict() if self.host_launch else None,
        }
