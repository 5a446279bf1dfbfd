"""A long run by the hour: rate, queue, SLO and TTFT below one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from busdoor.plots.style import INK, PALE, identity, label_durations, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DAY_HOURS = 24
_DAYS_FROM = 48  # hours from which on the axis counts days
_ABOVE = 1.25  # times the highest value: room for the legend

_Panel = Callable[["Axes", np.ndarray, "pd.DataFrame", str], None]


@styled
def plot_hours(hours: pd.DataFrame, meta: Mapping[str, Any]) -> Figure:
    """Draw a run's hours.

    Parameters
    ----------
    hours : DataFrame
        As `HourlyResult.hours`.
    meta : mapping
        As `HourlyResult.meta`: the policy, and `capacity_rps` where it is known.

    Returns
    -------
    matplotlib.figure.Figure
        Requests per second with the capacity; waiting requests, mean and most at one server; the
        share that met the SLO, where there is one; TTFT p50 and p99.
    """
    panels = hour_panels(hours, meta)
    figure = new_figure(7.0, 0.6 + 1.45 * len(panels))
    axes = figure.subplots(len(panels), sharex=True)
    for ax, draw in zip(axes, panels.values(), strict=True):
        draw(ax)
        ax.label_outer()
    return figure


def hour_panels(hours: pd.DataFrame, meta: Mapping[str, Any]) -> dict[str, Callable[[Axes], None]]:
    """Return what draws each panel, by its caption; see `plot_hours`."""
    hours = hours[: 1 + int(np.flatnonzero(hours["arrivals"]).max(initial=0))]
    in_days = len(hours) >= _DAYS_FROM
    edges = np.arange(len(hours) + 1) / (DAY_HOURS if in_days else 1)
    color = identity(str(meta["policy"]))["color"]
    panels: dict[str, _Panel] = {
        "Requests that arrive": partial(_rate, capacity_rps=meta.get("capacity_rps")),
        "Requests that wait": _queue,
    }
    if hours["slo_share"].notna().any():
        panels["Share that met the SLO"] = _slo
    panels["Time to the first token"] = _ttft

    def drawn(draw: _Panel, ax: Axes) -> None:
        draw(ax, edges, hours, color)
        ax.set(xlabel="day" if in_days else "hour", xlim=(0, edges[-1]))
        ax.locator_params(axis="x", integer=True, steps=[1, 2, 3, 6, 10])

    return {caption: partial(drawn, draw) for caption, draw in panels.items()}


def _rate(
    ax: Axes, edges: np.ndarray, hours: pd.DataFrame, color: str, capacity_rps: float | None
) -> None:
    rate = hours["request_rate"]
    ax.stairs(rate, edges, fill=True, color=color, label="arrivals")
    if capacity_rps:
        ax.axhline(capacity_rps, color=INK, linewidth=1.0, label="capacity")
    ax.set(ylabel="requests/s", ylim=(0, _ABOVE * max(rate.max(), capacity_rps or 0.0)))
    ax.legend(loc="upper right", ncols=2)


def _queue(ax: Axes, edges: np.ndarray, hours: pd.DataFrame, color: str) -> None:
    most, mean = hours["max_waiting"], hours["mean_waiting"]
    ax.stairs(most, edges, fill=True, color=PALE, label="most at one server")
    _line(ax, edges, mean, color, "mean, all servers")
    top = max(most.max(), mean.max(), 1.0)
    ax.set(ylabel="waiting", yscale="symlog", ylim=(0, top ** (1.2 * _ABOVE)))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.legend(loc="upper right", ncols=2)


def _slo(ax: Axes, edges: np.ndarray, hours: pd.DataFrame, color: str) -> None:
    share = 100 * hours["slo_share"]
    _line(ax, edges, share, color, "SLO")
    ax.set(ylabel="SLO met, %", ylim=(min(95.0, share.min()) - 1, 101))


def _ttft(ax: Axes, edges: np.ndarray, hours: pd.DataFrame, color: str) -> None:
    p50, p99 = hours["ttft_p50_s"], hours["ttft_p99_s"]
    _line(ax, edges, p99, color, "p99")
    _line(ax, edges, p50, INK, "p50")
    if p50.gt(0).any():
        label_durations(ax, "y", p50[p50 > 0].min(), _ABOVE * p99.max())
    ax.set(ylabel="TTFT")
    ax.legend(loc="upper right", ncols=2)


def _line(ax: Axes, edges: np.ndarray, values: pd.Series[Any], color: str, label: str) -> None:
    ax.stairs(values, edges, baseline=None, color=color, linewidth=1.2, label=label)
