"""The results of a capacity study, with their summary, figures and folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.capacity.data import CapacityData
from busdoor.capacity.figures import plot_target, plot_targets
from busdoor.capacity.folder import to_dict, write
from busdoor.capacity.summary_text import verdict
from busdoor.capacity.table_text import rate_rows
from busdoor.core.study_folder import study_folder
from busdoor.html.notebook import notebook_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Capacity(CapacityData):
    """The rates at which each policy meets an SLO; fields as in `CapacityData`."""

    def verdict(self, request_rate: float | None = None) -> str:
        """Return the result in words, for a rate that has to be served or for one server."""
        return verdict(self, request_rate)

    def plot(self, target: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw a target (by default the first) against the rate, with limit and brackets."""
        return plot_target(self, target or self.slo.targets[0].key, ax=ax)

    def plot_all(self, *, fig: Figure | None = None) -> Figure:
        """Draw every target, one above the other."""
        return plot_targets(self, fig)

    def to_dict(self, request_rate: float | None = None) -> dict[str, Any]:
        """Return all numbers as JSON: null for what is not a number."""
        return to_dict(self, request_rate)

    def save(
        self, directory: str | Path, request_rate: float | None = None, overwrite: bool = False
    ) -> Path:
        """Write tables (CSV, JSON) and plots (PNG, SVG) into a folder of their own.

        Raises
        ------
        ValueError
            If the folder holds something; with `overwrite` an earlier study in it is replaced
            whole.
        """
        with study_folder(directory, overwrite=overwrite) as place:
            return write(self, place, request_rate)

    def _repr_html_(self) -> str:
        return notebook_html(str(self.slo), rate_rows(self), answer=self.verdict())
