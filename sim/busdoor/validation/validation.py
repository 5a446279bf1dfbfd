"""Measured runs beside their simulation, and what can be done with them: summarise, draw, save."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.core.study_folder import study_folder
from busdoor.html.notebook import notebook_html
from busdoor.validation import figures
from busdoor.validation.data import ValidationData
from busdoor.validation.folder import load, to_dict, write
from busdoor.validation.run import RunValidation
from busdoor.validation.summary_text import summary_text
from busdoor.validation.table_text import BRIEFLY, brief_rows
from busdoor.validation.thresholds import threshold_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Validation(ValidationData):
    """Several measured runs, each beside its simulation; the numbers are those of `ValidationData`.

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

    @cached_property
    def bars(self) -> pd.DataFrame:
        """Bars met by quantity and load: `busdoor.validation.thresholds.threshold_table`."""
        return threshold_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return to_dict(self)

    def to_json(self) -> str:
        """Return the numbers as one line of strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        return summary_text(self)

    def _repr_html_(self) -> str:
        columns, rows = [heading for heading, _ in BRIEFLY], brief_rows(self.runs)
        title = "Errors, simulated against measured, in per cent"
        return notebook_html(title, (columns, rows), answer=self.verdict)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write numbers, tables, figures, both sides of each run, for `load` and `busdoor report`.

        Raises
        ------
        ValueError
            If the folder holds something; with `overwrite` an earlier study in it is replaced
            whole.
        """
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
        saved = load(Path(folder))
        return cls(saved.runs, saved.step_time, saved.about)

    def plot(self, run: RunValidation, *, fig: Figure | None = None) -> Figure:
        """Draw a run beside its simulation."""
        return figures.plot_validation(run, fig)

    def plot_gain(self) -> Figure:
        """Draw the measured gain of each pair beside the simulated one."""
        return figures.plot_gain(self)

    def plot_e2e_ratio(self) -> Figure:
        """Draw the measured E2E ratio of each pair beside the simulated one."""
        return figures.plot_e2e_ratio(self)
