"""The picture of a check: closed forms as lines, simulated points, and the errors below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from busdoor.plots.style import INK, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# one for each of the four laws
_COLORS = ("#0b3c78", "#c4501b", "#3f92c4", "#f2b25a")


@styled
def plot_check(table: pd.DataFrame, xlabel: str, ylabel: str, *, doubling: bool = False) -> Figure:
    """Draw a check: closed forms as lines, simulated points with intervals; below, errors (%).

    Parameters
    ----------
    table : DataFrame
        Of one of the checks.
    xlabel, ylabel : str
        What is drawn.
    doubling : bool
        Whether x are sizes that double.
    """
    figure = new_figure(7.0, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.1))
    for (name, own), color, marker in zip(
        table.groupby("law", sort=False), _COLORS, "osD^", strict=False
    ):
        own = own.sort_values("x")
        upper.plot(own["x"], own["closed_form"], color=color, linewidth=1.2)
        gap = (own["simulated"] - own["low"], own["high"] - own["simulated"])
        upper.errorbar(
            own["x"],
            own["simulated"],
            gap,
            fmt=marker,
            color=color,
            label=str(name),
            elinewidth=1.0,
        )
        relative = [100 * side / own["closed_form"] for side in gap]
        look = {"fmt": marker, "color": color, "elinewidth": 1.0, "markersize": 4}
        lower.errorbar(own["x"], 100 * own["error"], relative, **look)
    upper.plot([], [], color=INK, linewidth=1.2, label="closed form")
    upper.set_ylabel(ylabel)
    lower.axhline(0, color=INK, linewidth=1.0)
    lower.set(xlabel=xlabel, ylabel="error (%)")
    if doubling:
        upper.set_xscale("log")
        ticks = sorted(set(table["x"]))
        lower.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        lower.minorticks_off()
    upper.legend(loc="upper left")
    return figure
