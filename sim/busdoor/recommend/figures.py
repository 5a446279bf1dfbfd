"""The front of cost against latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from busdoor.plots.style import INK, axes_or_new, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = {"meets": ("o", "meets the SLO"), "misses": ("x", "misses it"), "open": ("s", "undecided")}


@styled
def plot_front(table: pd.DataFrame, latency: str, *, ax: Axes | None = None) -> Axes:
    """Draw every number of servers that was raced by its cost and latency, and the front.

    Parameters
    ----------
    table : DataFrame
        As `Recommendation.table`.
    latency : str
        What `latency_s` is called.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.
    """
    ax = axes_or_new(ax, 6.0, 3.6)
    for outcome, (marker, label) in _MARKS.items():
        own = table[table["outcome"] == outcome]
        if len(own):
            color = "tab:green" if outcome == "meets" else "0.6"
            ax.scatter(
                own["cost_per_hour"], own["latency_s"], marker=marker, color=color, label=label
            )
    front = table[table["on_front"].astype(bool)].sort_values("cost_per_hour")
    ax.step(front["cost_per_hour"], front["latency_s"], where="post", color=INK, label="the front")
    for _, row in front.iterrows():
        place = (row["cost_per_hour"], row["latency_s"])
        ax.annotate(row["servers"], place, (3, 5), textcoords="offset points", fontsize="small")
    ax.set(xlabel="cost per hour", ylabel=f"{latency} (s)", yscale="log")
    for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis("{x:.2g}")  # seconds as people write them, not powers of ten
    ax.margins(x=0.12)
    ax.legend()
    return ax
