"""Measured runs beside their simulation, as data: each run's errors and the totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from busdoor.step_time.base import StepTime
from busdoor.validation.gain import e2e_ratio_table, gain_table
from busdoor.validation.knee import knee
from busdoor.validation.run import RunValidation
from busdoor.validation.spread import Spread, machine_spread


@dataclass(frozen=True)
class ValidationData:
    """Several measured runs, each beside its simulation by `step_time`, the model that is judged.

    `about` is where its calibration is from (`Calibration.about`): thresholds are for runs that are
    not among its `runs`.
    """

    runs: Sequence[RunValidation]
    step_time: StepTime
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def knee(self) -> dict[str, float]:
        """Rate at which mean E2E latency has doubled, measured, simulated, and the error.

        Over the runs that were scheduled as the first one; NaN with fewer than three rates.
        """
        return knee(self.runs)

    @cached_property
    def gain(self) -> pd.DataFrame:
        """The gain: saturated output tokens/s of continuous over static batching, all else equal.

        A row for each pair of bursts with the same lengths, gpu, model and dtype, one of which was
        scheduled in whole batches, three or more: `continuous` and `static`, their names; `load`,
        the higher of both; `measured` and `simulated`, the gains; `error`, the relative one. Empty
        without such a pair. See `saturated_rates`.
        """
        return gain_table(self.runs)

    @cached_property
    def e2e_ratio(self) -> pd.DataFrame:
        """How many times as long static answers took, on average; no gain, as load decides too.

        A row for each pair of runs with the same arrivals and lengths, gpu, model and dtype that
        has no gain: columns as in `gain`, of the mean E2E latencies, static over continuous.
        """
        return e2e_ratio_table(self.runs)

    @cached_property
    def spread(self) -> Spread:
        """How much the measured machine differs from itself, and how busy it was."""
        return machine_spread(self.runs)

    @property
    def fitted_to(self) -> list[str]:
        """Names of the runs that the calibration has seen, so that their errors prove little."""
        return [run.name for run in self.runs if run.name in self.about.get("runs", ())]

    @property
    def by_regime(self) -> pd.DataFrame:
        """Mean absolute errors of each load regime's runs: step time, latencies, throughput."""
        rows = [
            {
                "regime": run.regime,
                "step_time": run.steps.mean_absolute,
                "step_total": run.steps.total,
                **{" ".join(key): error for key, error in run.table["error"].items()},  # type: ignore[arg-type]
            }
            for run in self.runs
        ]
        return pd.DataFrame(rows).set_index("regime").abs().groupby(level=0, sort=False).mean()
