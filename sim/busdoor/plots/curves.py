"""Curves over many runs: latency against load, gain against the spread of lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from busdoor.plots.style import INK, axes_or_new, identity, label_durations, styled, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _need(points: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in points]
    if missing:
        raise ValueError(
            f"points lack the column {missing[0]!r}; they have "
            f"{', '.join(map(str, points.columns))}"
        )


@styled
def plot_latency_throughput(
    points: pd.DataFrame,
    ax: Axes | None = None,
    *,
    value: str = "p50",
    x: Literal["request_rate", "throughput"] = "request_rate",
    ylabel: str | None = None,
) -> Axes:
    """Draw latency against load, one line per policy: flat up to the knee, then steep.

    Parameters
    ----------
    points : DataFrame
        One row per policy and rate: `policy`, `request_rate` (requests/s), `throughput` (output
        tokens/s), the latency in seconds (the column that `value` names), and optionally `ci_low`
        and `ci_high` of it, in seconds.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.
    value : str
        Which column is drawn, such as mean, p50 or p99.
    x : {"request_rate", "throughput"}
        Against the offered load, or against the throughput.
    ylabel : str, optional
        What the latency is; the column's name by default.

    Returns
    -------
    matplotlib.axes.Axes
        One line per policy; intervals are shaded.

    Raises
    ------
    ValueError
        If a column is missing.

    Examples
    --------
    >>> rates = [1.0, 2.0, 4.0]
    >>> points = pd.DataFrame(dict(policy="vllm", request_rate=rates, p50=[0.02, 0.03, 0.30]))
    >>> ax = plot_latency_throughput(points)
    >>> ax.get_yscale(), ax.get_lines()[0].get_xdata().tolist()
    ('log', [1.0, 2.0, 4.0])
    """
    _need(points, "policy", x, value)
    ax = axes_or_new(ax)
    for name, own in points.groupby("policy", sort=False):
        own = own.sort_values("request_rate" if "request_rate" in own else x)
        look = identity(str(name))
        if {"ci_low", "ci_high"} <= set(own):
            pale = tint(look["color"], 0.25)
            ax.fill_between(
                own[x], own["ci_low"], own["ci_high"], color=pale, linewidth=0, zorder=1
            )
        ax.plot(own[x], own[value], **look)
    label = (
        "requests offered per second" if x == "request_rate" else "output tokens served per second"
    )
    ax.set(xlabel=label, ylabel=ylabel or f"latency, {value}")
    ax.set_xlim(left=0)
    drawn = points[[column for column in (value, "ci_low", "ci_high") if column in points]]
    label_durations(ax, "y", float(drawn.min().min()), float(drawn.max().max()))
    ax.legend(loc="best")
    return ax


@styled
def plot_gain(points: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw each policy's gain over static batching against the spread of lengths.

    Parameters
    ----------
    points : DataFrame
        `policy`, `gain` (a ratio; 1 is static batching) and either `cv` (standard deviation over
        mean of the output lengths) or `name` (of a workload); optionally `ci_low`, `ci_high`, and
        `theory`, the closed form.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes
        Lines over `cv`, or marks at the names; intervals as bars, theory as a thin line or a cross.

    Raises
    ------
    ValueError
        If a column is missing.

    Examples
    --------
    >>> ax = plot_gain(pd.DataFrame(dict(policy="vllm", cv=[0.0, 1.0], gain=[1.0, 2.7])))
    >>> ax.get_lines()[0].get_ydata().tolist()
    [1.0, 2.7]
    """
    x = "cv" if "cv" in points else "name"
    _need(points, "policy", x, "gain")
    ax = axes_or_new(ax)
    names = list(dict.fromkeys(points[x])) if x == "name" else []
    policies = list(dict.fromkeys(points["policy"]))
    for place, policy in enumerate(policies):
        own = points[points["policy"] == policy]
        own = own.sort_values("cv") if x == "cv" else own
        beside = 0.14 * (place - (len(policies) - 1) / 2) if names else 0.0
        across = own["name"].map(names.index) + beside if names else own["cv"]
        _gain_line(ax, str(policy), across.to_numpy(float), own, joined=not names)
    _gain_frame(ax, names, points)
    return ax


def _gain_line(ax: Axes, policy: str, x: np.ndarray, own: pd.DataFrame, *, joined: bool) -> None:
    look = identity(policy)
    if not joined:
        look["linestyle"] = "none"
    ax.plot(x, own["gain"], zorder=3, **look)
    if {"ci_low", "ci_high"} <= set(own):
        ax.vlines(x, own["ci_low"], own["ci_high"], color=look["color"], linewidth=1.4)
    if "theory" in own:
        style = {"linewidth": 1.0} if joined else {"linestyle": "none", "marker": "x"}
        ax.plot(
            x,
            own["theory"],
            color=tint(look["color"], 0.55),
            label=f"{policy}: closed form",
            **style,
        )


def _gain_frame(ax: Axes, names: list[str], points: pd.DataFrame) -> None:
    ax.axhline(1.0, color=INK, linewidth=1.0, zorder=2)
    ax.annotate("static batching", (1, 1.0), xycoords=("axes fraction", "data"), xytext=(-2, -4),
                textcoords="offset points", ha="right", va="top", fontsize=8, color=INK)  # fmt: skip
    ax.set_ylabel("gain (× static throughput)")
    ax.set_ylim(
        0,
        1.12 * float(points[[c for c in ("gain", "ci_high", "theory") if c in points]].max().max()),
    )
    if names:
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.grid(False, axis="x")
    else:
        ax.set_xlabel("spread of output lengths (standard deviation / mean)")
    ax.legend(loc="upper left")
