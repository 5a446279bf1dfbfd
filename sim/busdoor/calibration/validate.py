"""Replaying measured runs in the simulator, and saying how far off it is and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busdoor.calibration.budget import error_budget
from busdoor.calibration.errors import (
    StepErrors,
    batch_agreement,
    compare_statistics,
    knee_rate,
    regime,
    step_errors,
)
from busdoor.calibration.playback import Floats, Played, policy_of, predicted_s, serve, trace_of
from busdoor.result import Result
from busdoor.step_time.base import StepTime
from busdoor.theory.load import offered_load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    load : float
        ρ: the rate over what the policy can carry; NaN for a burst.
    steps : StepErrors
        Of the step time on the measured batches.
    agreement : dict
        `played`: share of batches that our scheduler decides alike when it is given the measured durations; `same`,
        `overlap` and `mean_batch` in closed loop.
    table : DataFrame
        Measured, simulated and error, by (latency, statistic).
    budget : Series
        What each part adds to the relative error of the mean E2E latency: scheduling, step_model, host, feedback; and
        their sum, total.
    predicted_s : array
        Seconds that the step time gives each measured iteration.
    """

    name: str
    measured: Result
    simulated: Result
    load: float
    steps: StepErrors
    agreement: Mapping[str, float]
    table: pd.DataFrame
    budget: pd.Series[float]
    predicted_s: Floats

    @property
    def regime(self) -> str:
        """Load regime."""
        return regime(self.load)

    @property
    def amplification(self) -> float:
        """Factor by which queueing multiplies an error of the step time, 1/(1 − ρ); NaN from ρ = 1 on."""
        return 1 / (1 - self.load) if self.load < 1 else nan

    @property
    def request_rate(self) -> float:
        """Requests per second that arrived; infinite for a burst."""
        return float(trace_of(self.measured).request_rate)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them: what is not a number is null."""
        errors: dict[str, dict[str, float | None]] = {}
        for row in self.table["error"].rename_axis(["latency", "statistic"]).reset_index().to_dict("records"):
            errors.setdefault(row["latency"], {})[row["statistic"]] = _plain(row["error"])
        return {
            "load": _plain(self.load),
            "regime": self.regime,
            "amplification": _plain(self.amplification),
            "step_time": {key: _plain(value) for key, value in self.steps._asdict().items()},
            "batches": {key: _plain(value) for key, value in self.agreement.items()},
            "errors": errors,
            "budget": {str(key): _plain(value) for key, value in self.budget.items()},
        }


@dataclass(frozen=True)
class Validation:
    """Several measured runs, each beside its simulation."""

    runs: Sequence[RunValidation]
    step_time: StepTime

    @cached_property
    def knee(self) -> dict[str, float]:
        """Rate at which the mean E2E latency has doubled, measured and simulated, and its relative error.

        Over the runs that were scheduled as the first one; NaN with fewer than three rates.
        """
        first = _scheduled(self.runs[0])
        runs = [run for run in self.runs if isfinite(run.request_rate) and _scheduled(run) == first]
        rates = np.array([run.request_rate for run in runs])
        if len(set(rates.tolist())) < 3:
            return {"measured": nan, "simulated": nan, "error": nan}
        e2e = pd.DataFrame([run.table.loc[("e2e", "mean")] for run in runs])
        knees = {side: knee_rate(rates, e2e[side].to_numpy()) for side in ("measured", "simulated")}
        return {**knees, "error": knees["simulated"] / knees["measured"] - 1}

    @property
    def by_regime(self) -> pd.DataFrame:
        """Mean absolute errors of the runs of each load regime: step time, latencies, throughput."""
        rows = [
            {"regime": run.regime, "step_time": run.steps.mean_absolute, "step_total": run.steps.total,
             **{" ".join(key): error for key, error in run.table["error"].items()}}  # type: ignore[arg-type]
            for run in self.runs
        ]  # fmt: skip
        return pd.DataFrame(rows).set_index("regime").abs().groupby(level=0, sort=False).mean()

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return {
            "runs": {run.name: run.to_dict() for run in self.runs},
            "regimes": {
                str(name): {str(key): _plain(value) for key, value in row.items()}
                for name, row in self.by_regime.iterrows()
            },
            "knee": {key: _plain(value) for key, value in self.knee.items()},
            "step_time": self.step_time.describe(),
        }

    def plot(self, run: RunValidation) -> Figure:
        """Draw a run beside its simulation."""
        from busdoor.calibration.plots import plot_validation

        return plot_validation(run)


def validate(
    measured: Sequence[Result],
    step_time: StepTime,
    names: Sequence[str] | None = None,
    *,
    policy: Mapping[str, Any] | None = None,
    traces: Sequence[Trace] | None = None,
) -> Validation:
    """Replay measured runs in the simulator.

    Parameters
    ----------
    measured : sequence of Result
        Runs on hardware.
    step_time : StepTime
        The model to be judged.
    names : sequence of str, optional
        What to call the runs.
    policy : mapping, optional
        Fields that replace the policy, num_blocks, block_size or max_model_len that the runs' meta says.
    traces : sequence of Trace, optional
        What was served, where requests and their arrivals do not say all (shared prefixes, closed loops).

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        If a run does not say how it was scheduled.
    """
    names = list(names or (f"run {i + 1}" for i in range(len(measured))))
    served = list(traces or map(trace_of, measured))
    triples = zip(measured, names, served, strict=True)
    return Validation([_validate(result, name, trace, step_time, policy) for result, name, trace in triples], step_time)


def _validate(
    measured: Result, name: str, trace: Trace, step_time: StepTime, given: Mapping[str, Any] | None
) -> RunValidation:
    try:
        policy = policy_of(measured.meta, trace, given)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    lookahead = int(measured.meta.get("lookahead", 0))
    load = offered_load(trace, policy, step_time)

    def run(model: StepTime) -> Result:
        return serve(trace, policy_of(measured.meta, trace, given), model, lookahead)

    simulated = run(step_time)
    played = (
        run(Played(measured.iterations["duration_s"].to_numpy(dtype=float), step_time)) if _single(measured) else None
    )
    return RunValidation(
        name=name,
        measured=measured,
        simulated=simulated,
        load=load,
        steps=step_errors(measured, step_time),
        agreement={
            "played": nan if played is None else batch_agreement(measured, played)["same"],
            **batch_agreement(measured, simulated),
        },
        table=compare_statistics(measured, simulated),
        budget=error_budget(measured, simulated, played, step_time),
        predicted_s=predicted_s(measured, step_time) if len(measured.iterations) else np.array([]),
    )


def _single(measured: Result) -> bool:
    """Whether each iteration has a row of its own, so that durations can be played back."""
    return bool(len(measured.iterations)) and bool((measured.iterations["repeat"] == 1).all())


def _scheduled(run: RunValidation) -> tuple[Any, ...]:
    return tuple(run.measured.meta.get(key) for key in ("policy_config", "lookahead", "num_blocks", "max_model_len"))


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if isfinite(number) else None
