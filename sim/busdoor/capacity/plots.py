"""Pictures of a capacity study: each target against the rate, its limit, and the bracket of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from busdoor.capacity.slo import Target
from busdoor.plots.curves import plot_latency_throughput
from busdoor.plots.style import INK, axes_or_new, identity, new_figure, styled, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from busdoor.capacity.capacity import Capacity


@styled
def plot_target(capacity: Capacity, key: str, *, ax: Axes | None = None) -> Axes:
    """Draw one target against the rate, one line a policy, with the limit and the brackets of the answers.

    Parameters
    ----------
    capacity : Capacity
        Of one or more policies.
    key : str
        Of a target.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Raises
    ------
    ValueError
        If nothing of that name was promised, or no run measured it.
    """
    target = _target(capacity, key)
    points = _points(capacity, key)
    if not len(points):
        raise ValueError(f"no policy was run at any rate, so that there is nothing to draw of {target.name}")
    ax = axes_or_new(ax)
    if key == "goodput":
        _draw_shares(points, target, ax)
    else:
        plot_latency_throughput(points, ax, value="value", ylabel=target.name)
        ax.axhline(target.limit_s, color=INK, linewidth=1.0, label=f"limit, {target}")
    _draw_brackets(capacity, ax)
    ax.legend(loc="best")
    return ax


def plot_targets(capacity: Capacity) -> Figure:
    """Draw every target, one above the other."""
    keys = [target.key for target in capacity.promise.targets if len(_points(capacity, target.key))]
    figure = new_figure(7.0, 3.4 * max(1, len(keys)))
    for number, key in enumerate(keys, start=1):
        plot_target(capacity, key, ax=figure.add_subplot(len(keys), 1, number))
    return figure


def _target(capacity: Capacity, key: str) -> Target:
    targets = {target.key: target for target in capacity.promise.targets}
    if key not in targets:
        raise ValueError(f"{key!r} was not promised; draw one of {', '.join(targets)}")
    return targets[key]


def _points(capacity: Capacity, key: str) -> pd.DataFrame:
    """Return a target's values by policy and rate, each from the longest run."""
    points = capacity.points
    points = points[(points["target"] == key) & (points["value"] < float("inf")) & (points["value"] > 0)]
    return points.sort_values("num_requests").groupby(["policy", "request_rate"], sort=False).tail(1)


def _draw_shares(points: pd.DataFrame, target: Target, ax: Axes) -> None:
    for name, own in points.groupby("policy", sort=False):
        own = own.sort_values("request_rate")
        ax.plot(own["request_rate"], 100 * own["value"], **identity(str(name)))
    ax.axhline(100 * (target.share or 0.0), color=INK, linewidth=1.0, label=f"promised, {target}")
    ax.set(xlabel="requests offered per second", ylabel="requests within the limits (%)")
    ax.set_xlim(left=0)


def _draw_brackets(capacity: Capacity, ax: Axes) -> None:
    for answer in capacity.answers:
        if answer.low > 0 and answer.high < float("inf"):
            ax.axvspan(answer.low, answer.high, color=tint(identity(answer.policy)["color"], 0.25), zorder=0)
