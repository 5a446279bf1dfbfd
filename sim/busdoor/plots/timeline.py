"""Timelines of slots: which request held which slot when; the bus above, the door below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.core.format import number
from busdoor.metrics.saturation import is_whole_batch
from busdoor.plots.breakdown import bubble_share
from busdoor.plots.hatches import SLOT_LABELS, legend_below
from busdoor.plots.phases import stay_phases
from busdoor.plots.runs import Run, count_slots, time_label
from busdoor.plots.slot_bars import Window, draw_empty, draw_entries, draw_letters, draw_stays
from busdoor.plots.style import INK, axes_or_new, identity, new_figure, styled
from busdoor.policies.base import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# more bars than this are thinner than a pixel: the figure stops there, and its label states it
MAX_STAYS = 2000
LEGIBLE_STAYS = 400  # bars that are still seen one by one, where timelines are compared
MAX_SLOTS = 64  # rows that still are a millimetre high on a page


@styled
def plot_timeline(
    run: Run, ax: Axes | None = None, *, window_s: Window | None = None, replica: int = 0
) -> Axes:
    """Draw slots against time: a bar per stay, prefill dark, decode light, idle time hatched.

    Parameters
    ----------
    run : Run
        A result with its `requests`, `iterations` and `stays`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.
    window_s : tuple of float, optional
        Seconds from and to; by default the whole run, or its first 2,000 stays.
    replica : int
        Which server.

    Returns
    -------
    matplotlib.axes.Axes
        Its patches are labelled prefill, decode, finished and empty; each is a path of rectangles,
        slot by seconds. A triangle above the slots marks each moment at which a request entered.
    """
    stays = stay_phases(run)
    stays = stays[(stays["replica"] == replica) & (stays["slot"] < MAX_SLOTS)]
    begin_s, end_s = window_s or _default_window_s(stays)
    shown = stays[(stays["leave_s"] > begin_s) & (stays["enter_s"] < end_s)]
    slots = min(count_slots(run), MAX_SLOTS)
    alone, ax = ax is None, axes_or_new(ax, 9.0, _height_in(slots) + 0.4)
    color = identity(str(run.meta["policy"]))["color"]
    draw_empty(ax, run, replica, shown, slots, (begin_s, end_s))
    draw_stays(ax, shown, color)
    draw_entries(ax, np.unique(shown["enter_s"][shown["enter_s"] >= begin_s]), color)
    draw_letters(ax, shown, (begin_s, end_s), len(run.requests))
    _frame(ax, slots, (begin_s, end_s), time_label(run, replica))
    _label_omissions(ax, run, stays)
    if alone:
        _title(ax, run, str(run.meta["policy"]))
        _legend(ax.figure, [ax])
    return ax


def _frame(ax: Axes, slots: int, window_s: Window, xlabel: str) -> None:
    ax.set(xlim=window_s, ylim=(slots - 0.5, -0.5), ylabel="slot", xlabel=xlabel)
    step = -(-slots // 8)  # at most eight numbers
    ax.set_yticks(
        range(step - 1, slots, step), [str(slot + 1) for slot in range(step - 1, slots, step)]
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    ax.spines["left"].set_visible(False)


def _label_omissions(ax: Axes, run: Run, stays: pd.DataFrame) -> None:
    last_s = float(stays["leave_s"].max())
    if last_s > ax.get_xlim()[1]:
        ax.set_xlabel(f"{ax.get_xlabel()}, up to {number(ax.get_xlim()[1])} of {number(last_s)}")
    if count_slots(run) > MAX_SLOTS:
        ax.set_ylabel(f"slot (first {MAX_SLOTS} of {count_slots(run)})")


def _default_window_s(stays: pd.DataFrame) -> Window:
    begin_s = float(stays["enter_s"].min())
    if len(stays) <= MAX_STAYS:
        return begin_s, float(stays["leave_s"].max())
    return begin_s, float(np.partition(stays["enter_s"].to_numpy(float), MAX_STAYS)[MAX_STAYS])


def first_seconds(runs: Sequence[Run]) -> Window:
    """Return the window from the first admission in which every run's bars are visible.

    If every run is short enough, it ends with the longest.
    """
    begin_s = min(float(run.stays["enter_s"].min()) for run in runs)
    end_s = max(float(run.stays["leave_s"].max()) for run in runs)
    return begin_s, min(
        [end_s, *(legible for run in runs if (legible := _legible_s(run)) is not None)]
    )


def _legible_s(run: Run) -> float | None:
    """Return when `LEGIBLE_STAYS` stays have begun; None if there are fewer."""
    entered_s = np.sort(run.stays.loc[run.stays["slot"] < MAX_SLOTS, "enter_s"].to_numpy(float))
    return float(entered_s[LEGIBLE_STAYS]) if len(entered_s) > LEGIBLE_STAYS else None


def _height_in(slots: int) -> float:
    """Return a figure height: a letter fits into a slot, and many slots fit on a page."""
    return 0.9 + min(4.6, max(0.9, 0.27 * slots))


@styled
def plot_bus_and_door(static: Run, continuous: Run, fig: Figure | None = None) -> Figure:
    """Draw the same requests served by static (the bus) and by continuous batching (the door).

    Parameters
    ----------
    static, continuous : Run
        Two results on the same requests, best with the same number of slots.
    fig : matplotlib.figure.Figure, optional
        Where to draw; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        Two timelines over one time axis. The titles have the useful share of the held
        slot-iterations.
    """
    heights = [_height_in(min(count_slots(run), MAX_SLOTS)) for run in (static, continuous)]
    fig = fig or new_figure(10.0, min(10.0, sum(heights) + 0.5))
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=heights)
    window_s = first_seconds([static, continuous])
    for run, ax in ((static, upper), (continuous, lower)):
        plot_timeline(run, ax, window_s=window_s)
    for run, ax in ((static, upper), (continuous, lower)):
        whole_batch = is_whole_batch(run.meta)
        _title(
            ax,
            run,
            f"The {'bus' if whole_batch else 'door'}: "
            f"{spoken(str(run.meta['policy']), whole_batch)}",
        )
    bus_s, door_s = (float(run.stays["leave_s"].max()) for run in (static, continuous))
    if window_s[1] >= max(bus_s, door_s):  # else the axes' labels have the length of the runs
        upper.set_xlabel("")
        _finish_line(lower, bus_s, door_s)
    _legend(fig, [upper, lower])
    return fig


def _title(ax: Axes, run: Run, text: str) -> None:
    bubbles = bubble_share(run)
    ax.set_title(text, color=identity(str(run.meta["policy"]))["color"], fontsize=12, pad=16)
    shares = f"useful share {1 - bubbles:.0%}   ·   idle slot time {bubbles:.0%}"
    ax.set_title(shares, loc="right", fontsize=10.5, fontweight="normal", pad=16)


def _finish_line(ax: Axes, bus_s: float, door_s: float) -> None:
    """Write how much sooner the last answer was complete, beside the faster run."""
    if bus_s - door_s < 0.15 * bus_s:  # no room for the words
        return
    middle = (ax.get_ylim()[0] + ax.get_ylim()[1]) / 2
    ax.annotate(
        "",
        (bus_s, middle),
        (door_s, middle),
        arrowprops={"arrowstyle": "<->", "color": INK, "lw": 1.0},
    )
    words = f"last answer\n{bus_s - door_s:.1f} s sooner"
    ax.text(
        (bus_s + door_s) / 2,
        middle,
        words,
        ha="center",
        va="center",
        color=INK,
        backgroundcolor="white",
    )


def _legend(fig: Figure | SubFigure, panels: list[Axes]) -> None:
    """Draw one legend for all panels: each swatch has every panel's colour."""
    from matplotlib.lines import Line2D

    colors = [
        str(line.get_color())
        for ax in panels
        for line in ax.get_lines()
        if line.get_label() == "door"
    ]
    doors = tuple(Line2D([], [], marker="v", linestyle="", color=color) for color in colors)
    end = Line2D([], [], marker="|", linestyle="", color=INK, markersize=9, markeredgewidth=1.1)
    legend_below(
        fig, SLOT_LABELS, {"the door opens": doors, "last token of an answer": end}, colors
    )
