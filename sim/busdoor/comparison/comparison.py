"""Policies side by side on the same draws, with their summary, figures and folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor import plots
from busdoor.comparison.data import ComparisonData
from busdoor.comparison.experiment import Experiment
from busdoor.comparison.folder import load, write
from busdoor.comparison.page import comparison_page
from busdoor.comparison.summary_text import gain_text, verdict
from busdoor.comparison.table_text import LADDER_HEADS, comparison_rows, heading, ladder_rows
from busdoor.core.progress import Report
from busdoor.core.study_folder import study_folder
from busdoor.html.notebook import notebook_html
from busdoor.plots.latency import Metric
from busdoor_workloads import given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Comparison(ComparisonData):
    """Results of policies on the same draws; fields and tables are those of `ComparisonData`."""

    @classmethod
    def of(cls, experiment: Experiment) -> Comparison:
        """Return the results of an experiment so far; see `Experiment.data`."""
        return cls(**experiment.data())

    @property
    def verdict(self) -> str:
        """The result in words."""
        return verdict(self)

    def plot(self, *, fig: Figure | None = None) -> Figure:
        """Draw everything on one page."""
        return plots.plot_compare(self.results, fig, gain_text(self))

    def plot_timeline(self, *, fig: Figure | None = None) -> Figure:
        """Draw which request held which slot: `bus_and_door`, one above the other."""
        runs = list(self.bus_and_door.values())
        return plots.plot_bus_and_door(runs[0], runs[-1], fig)

    def plot_latency_cdf(self, metric: Metric = "e2e", *, ax: Axes | None = None) -> Axes:
        """Draw the distribution of a latency: ttft, tpot, e2e or normalized."""
        return plots.plot_latency_cdf(self.results, metric, ax=ax)

    def plot_waste(self, *, ax: Axes | None = None) -> Axes:
        """Draw the use of the slot-iterations."""
        return plots.plot_waste(self.results, ax=ax)

    def plot_gain(self, *, ax: Axes | None = None) -> Axes:
        """Draw the gain of each policy over static batching, with its interval."""
        return plots.plot_gain_bars(self.gain, self.static, ax=ax)

    def plot_ladder(self, *, ax: Axes | None = None) -> Axes:
        """Draw the gain of each step from static batching to vllm.

        Raises
        ------
        ValueError
            If there is no ladder, since it needs both policies.
        """
        if self.ladder.empty:
            raise ValueError("the comparison has no ladder; it needs the policies static and vllm")
        return plots.plot_ladder(self.ladder, ax=ax)

    def save(
        self, directory: str | Path, report: Report | None = None, overwrite: bool = False
    ) -> Path:
        """Write tables (CSV, JSON), the first replication's results, and plots into a folder.

        Raises
        ------
        ValueError
            If the folder holds something; with `overwrite` an earlier study in it is replaced
            whole.
        """
        with study_folder(given.path_of("directory", directory), overwrite=overwrite) as place:
            return write(self, place, report)

    def to_html(self, file: str | Path) -> Path:
        """Write one self-contained page: verdict, tables, figures, and timelines that play."""
        return comparison_page(self).write(file)

    @classmethod
    def load(cls, directory: str | Path) -> Comparison:
        """Read a saved comparison back; ValueError if the folder holds none."""
        saved = load(given.path_of("directory", directory))
        tables = saved.summaries, saved.capacities, saved.rungs, saved.forms, saved.chances
        return cls(saved.config, saved.results, *tables)

    def _repr_html_(self) -> str:
        tables: list[tuple[Sequence[str], Any]] = [(self.policies, comparison_rows(self))]
        if len(self.ladder):
            tables.append((LADDER_HEADS, ladder_rows(self)))
        return notebook_html(heading(self), *tables, answer=self.verdict)
