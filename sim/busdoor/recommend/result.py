"""A recommendation, with its summary, figure and folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from busdoor.recommend.command_line import command_line
from busdoor.recommend.data import RecommendationData
from busdoor.recommend.figures import plot_front
from busdoor.recommend.folder import to_dict
from busdoor.recommend.summary_text import verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Recommendation(RecommendationData):
    """The servers that meet an SLO at the least cost; fields as in `RecommendationData`."""

    @property
    def command(self) -> str:
        """Command line of one of the recommended servers; empty without any."""
        return "" if self.winner is None else command_line(self.best(self.winner).candidate)

    def verdict(self) -> str:
        """Return the result in words."""
        return verdict(self)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw cost against the latency of the SLO's first target."""
        return plot_front(self.table, self.slo.targets[0].name, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON: null for what is not a number."""
        return to_dict(self)

    def _repr_html_(self) -> str:
        return f"{self.table.round(3).to_html()}<p>{self.verdict()}</p>"
