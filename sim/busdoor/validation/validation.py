"""Measured runs beside their simulation: the errors of each, and what they come to together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.core.json import plains, records
from busdoor.step_time.base import StepTime
from busdoor.validation.gain import e2e_ratio_table, gain_table
from busdoor.validation.knee import knee
from busdoor.validation.run import RunValidation
from busdoor.validation.spread import Spread, machine_spread
from busdoor.validation.thresholds import bar_table, missed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Validation:
    """Several measured runs, each beside its simulation.

    Attributes
    ----------
    runs : sequence of RunValidation
        In the order given.
    step_time : StepTime
        The model that is judged.
    about : mapping
        What its calibration says of itself (`Calibration.about`): bars are for runs that are not among its `runs`.
    """

    runs: Sequence[RunValidation]
    step_time: StepTime
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def knee(self) -> dict[str, float]:
        """Rate at which the mean E2E latency has doubled, measured and simulated, and its relative error.

        Over the runs that were scheduled as the first one; NaN with fewer than three rates.
        """
        return knee(self.runs)

    @cached_property
    def gain(self) -> pd.DataFrame:
        """The gain: saturated output tokens per second of continuous over static batching, all else being equal.

        A row for each pair of bursts with the same lengths, gpu, model and dtype, one of which was scheduled in whole
        batches, three or more: `continuous` and `static`, their names; `load`, the higher of both; `measured` and
        `simulated`, the gains; `error`, the relative one. Empty without such a pair. See `saturated_rates`.
        """
        return gain_table(self.runs)

    @cached_property
    def e2e_ratio(self) -> pd.DataFrame:
        """How many times as long answers took under static batching, on average; no gain, as load decides it too.

        A row for each pair of runs with the same arrivals and lengths, gpu, model and dtype that has no gain: columns
        as in `gain`, of the mean E2E latencies, static over continuous.

        Examples
        --------
        >>> from busdoor.validation.validate import validate
        >>> from busdoor.comparison.demo import introductory_scenario
        >>> from busdoor.step_time.linear import LinearStepTime
        >>> slower = LinearStepTime(base_s=1.0, per_request_s=0.1)
        >>> validate(introductory_scenario(), slower, ["bus", "door"]).e2e_ratio.round(3).T
                        0
        continuous   door
        static        bus
        load          inf
        measured    2.409
        simulated    2.59
        error       0.075
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

    @cached_property
    def bars(self) -> pd.DataFrame:
        """Which bars are met, by quantity and load regime: `busdoor.validation.thresholds.bar_table`."""
        return bar_table(self)

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
            "regimes": {str(name): plains(row) for name, row in self.by_regime.iterrows()},
            "knee": plains(self.knee),
            "gain": records(self.gain),
            "e2e_ratio": records(self.e2e_ratio),
            "bars": records(self.bars),
            "missed": missed(self),
            "spread": plains(self.spread._asdict()),
            "fitted_to": self.fitted_to,
            "step_time": self.step_time.describe(),
            "about": dict(self.about),
        }

    def to_json(self) -> str:
        """Return the numbers as one line of strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        from busdoor.validation.summary_text import verdict

        return verdict(self)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write numbers, tables, figures and both sides of every run into a folder, for `load` and `busdoor report`.

        Raises
        ------
        ValueError
            If the folder holds something; with `overwrite` an earlier study in it is replaced whole.
        """
        from busdoor.core.study_folder import study_folder
        from busdoor.validation.folder import write

        with study_folder(folder, overwrite=overwrite) as place:
            return write(self, place)

    @classmethod
    def load(cls, folder: str | Path) -> Validation:
        """Read a saved validation back.

        Raises
        ------
        ValueError
            If the folder holds none.
        """
        from busdoor.validation.folder import load

        return load(Path(folder))

    def plot(self, run: RunValidation) -> Figure:
        """Draw a run beside its simulation."""
        from busdoor.validation.figures import plot_validation

        return plot_validation(run)

    def plot_gain(self) -> Figure:
        """Draw the measured gain of each pair beside the simulated one."""
        from busdoor.validation.figures import plot_ratios

        return plot_ratios(self.gain, "gain: saturated output tokens/s, continuous over static")

    def plot_e2e_ratio(self) -> Figure:
        """Draw the measured E2E ratio of each pair beside the simulated one."""
        from busdoor.validation.figures import plot_ratios

        return plot_ratios(self.e2e_ratio, "E2E ratio: mean latency, static over continuous")
