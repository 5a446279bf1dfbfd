"""Figures of a capacity study: each target against the rate, its limit, and the brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.capacity.data import Drawable
from busdoor.core.format import duration_text
from busdoor.metrics.slo_target import Target
from busdoor.plots.style import (
    INK,
    Identity,
    axes_or_new,
    label_durations,
    new_figure,
    styled,
    tint,
)
from busdoor.plots.variants import identities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# times a limit: the axis reaches at least so far, so that the line stays off the frame
_MARGIN = 1.2
_ABOVE_ALL = 104  # per cent: for the same reason
_LIMIT: dict[str, Any] = {"color": INK, "linewidth": 1.8, "linestyle": (0, (6, 2)), "zorder": 1.5}
# Which multiples of a power of ten are labelled, by the ratio that the axis spans: about ten
# labels.
_TICKS = ((30, (1, 2, 3, 5)), (300, (1, 2, 5)), (float("inf"), (1,)))
_BESIDE = 0.02  # of a rate: nearer points are not distinct in the figure


@styled
def plot_target(study: Drawable, key: str, *, ax: Axes | None = None) -> Axes:
    """Draw one target against the rate, one line per row, with the limit and the brackets.

    Parameters
    ----------
    study : Capacity
        Of one or more policies, or what `busdoor.capacity.folder.load` returns.
    key : str
        Of a target.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Raises
    ------
    ValueError
        If the SLO has no such target, or no run measured it.
    """
    target, points = _target(study, key), longest(study.points, key)
    if not len(points):
        raise ValueError(
            f"no policy was run at any rate, so that there is nothing to draw of {target.name}"
        )
    ax = axes_or_new(ax, 8.5, 3.6)
    percent = 100 if target.is_goodput else 1
    styles = looks(list(study.table.index), points)
    for name, look in styles.items():
        own = points[points["policy"] == name].sort_values("request_rate")
        rate = float(study.table["request_rate"][name])
        look["label"] += f": {rate:.3g} requests/s" if rate > 0 else ": at no rate"
        ax.plot(own["request_rate"], percent * own["value"], **look)
        ends = study.table.reindex(columns=["low", "high", "least_misses", "least"]).loc[[name]]
        low, high, misses, least = ends.to_numpy(dtype=float)[0].tolist()
        _draw_bracket(ax, low, high, look["color"])
        _draw_bracket(ax, misses, least, look["color"])
    _draw_limit(ax, target, points, styles)
    _scale_rates(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@styled
def plot_targets(study: Drawable, fig: Figure | None = None) -> Figure:
    """Draw every target, one above the other."""
    keys = [target.key for target in study.slo.targets if len(longest(study.points, target.key))]
    figure = fig or new_figure(8.5, 3.6 * max(1, len(keys)))
    for number, key in enumerate(keys, start=1):
        plot_target(study, key, ax=figure.add_subplot(len(keys), 1, number))
    return figure


@styled
def plot_day(day: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the servers that each row needs by hour, and the rate that they follow.

    Parameters
    ----------
    day : DataFrame
        As `plan_day` gives it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.
    """
    ax = axes_or_new(ax, 8.5, 3.6)
    hours = [*day.index, len(day)]
    for name, look in identities(str(name) for name in day if name != "request_rate").items():
        if day[name].notna().any():
            values = [*day[name], day[name].iloc[-1]]
            ax.step(hours, values, where="post", color=look["color"], label=look["label"])
    ax.set(xlabel="hour", ylabel="servers", xlim=(0, len(day)))
    ax.set_ylim(bottom=0)
    rates = ax.twinx()
    rates.step(
        hours,
        [*day["request_rate"], day["request_rate"].iloc[-1]],
        where="post",
        color=INK,
        linestyle=":",
        label="requests/s",
    )
    rates.set_ylabel("requests/s (dotted)")
    rates.set_ylim(bottom=0)
    ax.legend(loc="center left", bbox_to_anchor=(1.12, 0.5))
    return ax


def longest(points: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return a target's values by policy and rate, each from the longest steady run.

    A rate is left out if a longer run beside it corrects it: short runs near saturation scatter
    widely.
    """
    points = points[
        (points["target"] == key) & (points["value"] < float("inf")) & (points["value"] > 0)
    ]
    # a run that is mostly warm-up and drain is left out
    if "steady" in points and points["steady"].any():
        points = points[points["steady"].astype(bool)]
    points = (
        points.sort_values("num_requests", kind="stable")
        .groupby(["policy", "request_rate"], sort=False)
        .tail(1)
    )
    return points[[not _corrected(point, points) for _, point in points.iterrows()]]


def _corrected(point: pd.Series[Any], points: pd.DataFrame) -> bool:
    others = points[
        (points["policy"] == point["policy"]) & (points["num_requests"] > point["num_requests"])
    ]
    return bool(((others["request_rate"] / point["request_rate"] - 1).abs() < _BESIDE).any())


def looks(names: list[str], points: pd.DataFrame) -> dict[str, Identity]:
    """Return the look of each row that has runs; rows with the same runs share a line.

    Examples
    --------
    >>> names = ["static", "static (streamed)"]
    >>> points = pd.DataFrame({"policy": names, "request_rate": 1.0, "value": [2.0, 1.0]})
    >>> [(own["marker"], own["linestyle"]) for own in looks(names, points).values()]
    [('s', '-'), ('^', '--')]
    """
    shared: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name in names:
        own = points.loc[points["policy"] == name, ["request_rate", "value"]]
        if len(own):
            shared.setdefault(tuple(sorted(own.itertuples(index=False, name=None))), []).append(
                name
            )
    styles = identities(group[0] for group in shared.values())
    for first, *twins in shared.values():
        styles[first]["label"] = "\nand ".join((first, *twins))
    return styles


def _target(study: Drawable, key: str) -> Target:
    targets = {target.key: target for target in study.slo.targets}
    if key not in targets:
        raise ValueError(f"{key!r} is no target of the SLO; draw one of {', '.join(targets)}")
    return targets[key]


def _scale_rates(ax: Axes) -> None:
    """Set a logarithmic axis: rates of the policies may differ by a factor of 100."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set(xlabel="requests offered per second (logarithmic)", xscale="log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(
        LogLocator(subs=next(subs for ratio, subs in _TICKS if high / low <= ratio))
    )
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_limit(
    ax: Axes, target: Target, points: pd.DataFrame, styles: dict[str, Identity]
) -> None:
    """Draw the limit, scale the axis to show it, and explain the shading in the legend."""
    if target.is_goodput:
        share = 100 * (target.share or 0.0)
        ax.axhline(share, **_LIMIT, label=f"at least {share:g} %")
        ax.set_ylim(top=_ABOVE_ALL)
        ax.set_ylabel("requests within the limits (%)")
    else:
        ax.axhline(target.limit_s, **_LIMIT, label=f"limit: {duration_text(target.limit_s)}")
        ax.set_ylabel(target.name)
        ends = (*points["value"], target.limit_s / _MARGIN, target.limit_s * _MARGIN)
        label_durations(ax, "y", min(ends), max(ends))
    if styles:
        ax.fill_between([], [], color=tint(INK, 0.25), label="between meets and misses")


def _draw_bracket(ax: Axes, low: float, high: float, color: str) -> None:
    if 0 < low <= high < float("inf"):
        ax.axvspan(low, high, color=tint(color, 0.25), zorder=0)
