"""One measured run and the same run simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from busdoor.calibration.host_launch import HostLaunch
from busdoor.calibration.quality import StepErrors
from busdoor.core.arrays import Floats
from busdoor.core.json import plain
from busdoor.results.result import Result
from busdoor.validation.errors import regime
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
        Measured, simulated and error, by (latency, statistic).
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
            "amplification": plain(self.amplification),
            "step_time": plain(self.steps._asdict()),
            "batches": plain(self.agreement),
            "errors": errors,
            "budget": plain(dict(self.budget)),
            "num_requests": self.num_requests,
            "num_iterations": self.num_iterations,
            "host_launch": self.host_launch.to_dict() if self.host_launch else None,
        }
