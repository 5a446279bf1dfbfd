"""The size of the batch and of the queue over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.plots.hatches import BATCH_LABELS, look
from busdoor.plots.runs import Run, count_slots, of_replica, time_label
from busdoor.plots.style import INK, PALE, axes_or_new, identity, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPACE_ABOVE = 1.28  # times the slots: room for the legend
MAX_STEPS = 1200  # two vertices a step: well under what a page can show

_ROUNDING = 1e-12  # of the clock: narrower steps are sums that were rounded (DESIGN, section 3)


def steps(iterations: pd.DataFrame, values: Floats) -> tuple[Floats, Floats]:
    """Return a quantity of each stretch of one server, zero in between, as a step function of time.

    `edges_s` (k + 1) is where the steps are, `heights` (k) the value between them. Where there
    would be more than 1,200 steps, the mean over as many equal spans, so that the area under the
    curve stays what it was.
    """
    start_s = iterations["start_s"].to_numpy(float)
    end_s = start_s + iterations["duration_s"].to_numpy(float)
    edges_s = np.maximum.accumulate(np.column_stack([start_s, end_s]).ravel())
    heights = np.column_stack([values, np.zeros(len(values))]).ravel()[:-1]
    wide = np.diff(edges_s) > _ROUNDING * max(1.0, float(edges_s[-1]))
    wide |= not wide.any()
    edges_s, heights = np.r_[edges_s[0], edges_s[1:][wide]], heights[wide]
    return (edges_s, heights) if len(heights) <= MAX_STEPS else _averaged(edges_s, heights)


def _averaged(edges_s: Floats, heights: Floats) -> tuple[Floats, Floats]:
    area = np.r_[0.0, np.cumsum(heights * np.diff(edges_s))]
    coarse_s = np.linspace(edges_s[0], edges_s[-1], MAX_STEPS + 1)
    return coarse_s, np.diff(np.interp(coarse_s, edges_s, area)) / np.diff(coarse_s)


@styled
def plot_occupancy(result: Run, ax: Axes | None = None, *, replica: int = 0) -> Axes:
    """Draw the requests in the batch over time, and below it those that wait.

    Parameters
    ----------
    result : Run
        A result with its `iterations`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; its lower part becomes an axes of its own for the queue. A new figure's by
        default.
    replica : int
        Which server.

    Returns
    -------
    matplotlib.axes.Axes
        The batch: working requests filled, finished ones that still hold a row hatched, the slots
        as a line. The queue's axes share the figure and are labelled queue.
    """
    ax = axes_or_new(ax, 7.0, 4.2)
    iterations, _ = of_replica(result, replica)
    color = identity(str(result.meta["policy"]))["color"]
    idle = iterations["num_idle_rows"].to_numpy(float)
    working = iterations["num_requests"].to_numpy(float) - idle
    edges_s, low = steps(iterations, working)
    _area(ax, "working", color, edges_s, low)
    if idle.any():
        high = low + steps(iterations, idle)[1]
        _area(ax, "finished", color, edges_s, high, low)
    _limits(ax, edges_s, count_slots(result))
    _queue(
        ax,
        time_label(result, replica),
        *steps(iterations, iterations["num_waiting"].to_numpy(float)),
    )
    return ax


def _area(
    ax: Axes, part: str, color: str, edges_s: Floats, high: Floats, low: Floats | float = 0
) -> None:
    ax.stairs(high, edges_s, baseline=low, fill=True, label=BATCH_LABELS[part], **look(part, color))


def _limits(ax: Axes, edges_s: Floats, slots: int) -> None:
    ax.axhline(slots, color=INK, linewidth=1.0, label=f"{slots} slots held at most")
    ax.set(xlim=(edges_s[0], edges_s[-1]), ylim=(0, SPACE_ABOVE * slots), ylabel="in the batch")
    ax.locator_params(axis="y", integer=True, nbins=5)
    ax.tick_params(axis="x", labelbottom=False)
    ax.legend(loc="upper right", ncols=3, borderaxespad=0.1, handlelength=1.6)


def _queue(ax: Axes, xlabel: str, edges_s: Floats, waiting: Floats) -> None:
    below = _axes_below(ax)
    below.stairs(waiting, edges_s, fill=True, color=PALE, label="waiting")
    below.set(
        ylim=(0, max(1.0, 1.1 * float(waiting.max()))),
        xlabel=xlabel,
        ylabel="waiting",
        label="queue",
    )
    below.locator_params(axis="y", integer=True, nbins=4)


def _axes_below(ax: Axes) -> Axes:
    """Split off the lower part of the axes for a second one with the same time axis."""
    place = ax.get_subplotspec()
    if place is None:  # placed by hand, outside a layout
        return ax.inset_axes((0, -0.55, 1, 0.45), sharex=ax)
    grid = place.subgridspec(2, 1, height_ratios=(5, 2), hspace=0)
    ax.set_subplotspec(grid[0])
    return ax.figure.add_subplot(grid[1], sharex=ax)
