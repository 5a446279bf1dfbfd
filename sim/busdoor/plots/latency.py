"""The distribution of each latency metric, by policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from busdoor.core.arrays import Floats
from busdoor.metrics.metrics import latencies
from busdoor.plots.runs import Run, Runs, named
from busdoor.plots.style import PALE, Identity, axes_or_new, label_durations, styled
from busdoor.plots.variants import identities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Metric = Literal["ttft", "tpot", "e2e", "normalized"]
METRIC_LABELS: dict[Metric, str] = {
    "ttft": "time to first token (TTFT)",
    "tpot": "time per output token after the first (TPOT)",
    "e2e": "end-to-end latency (E2E)",
    "normalized": "normalised latency (E2E / output tokens)",
}


def latency_s(run: Run, metric: Metric) -> Floats:
    """Return one latency of every finished request that has it, in seconds, sorted.

    A metric is "ttft", "tpot", "e2e" or "normalized", as `busdoor.metrics.metrics.latencies`
    defines them (else ValueError). A static batch released whole has no TPOT.
    """
    if metric not in METRIC_LABELS:
        raise ValueError(f"metric is {metric!r}, which is none of {', '.join(METRIC_LABELS)}")
    table = latencies(run.requests, bool(run.meta.get("streams", True)))
    return np.sort(table[metric].dropna().to_numpy(float))


@styled
def plot_latency_cdf(results: Runs, metric: Metric = "ttft", ax: Axes | None = None) -> Axes:
    """Draw the share of requests answered within a latency, one line per policy.

    Parameters
    ----------
    results : Run, sequence of Run, or mapping of str to Run
        What to compare; a mapping's keys are the names shown.
    metric : {"ttft", "tpot", "e2e", "normalized"}
        See `latency_s`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes
        One line per policy; the legend names a policy without this metric. A dotted line marks the
        median.

    Raises
    ------
    ValueError
        If the metric is unknown.
    """
    ax = axes_or_new(ax)
    values_s = {name: latency_s(run, metric) for name, run in named(results).items()}
    for look, own_s in zip(identities(values_s).values(), values_s.values(), strict=True):
        _cdf(ax, look, own_s, metric)
    ax.axhline(50, color=PALE, linewidth=0.9, linestyle=":", label="_median", zorder=1)
    ax.set(ylim=(0, 103), xlabel=METRIC_LABELS[metric], ylabel="requests (%)")
    drawn_s = np.concatenate(list(values_s.values()))
    if len(drawn_s):
        label_durations(ax, "x", drawn_s.min(), drawn_s.max())
    ax.legend(loc="best")
    return ax


def _cdf(ax: Axes, look: Identity, values_s: Floats, metric: Metric) -> None:
    if not len(values_s):
        why = "no TPOT (answers come whole)" if metric == "tpot" else "no finished request"
        ax.plot([], [], **{**look, "label": f"{look['label']}: {why}"})  # type: ignore[arg-type]
        return
    share = 100 * np.arange(1, len(values_s) + 1) / len(values_s)
    curve = _thinned(np.column_stack([np.r_[values_s[0], values_s], np.r_[0.0, share]]))
    ax.plot(curve[:, 0], curve[:, 1], drawstyle="steps-post", markevery=0.12, **look)


def _thinned(points: Floats, at_most: int = 2000) -> Floats:
    """Return at most so many of a sorted curve's points, with both ends."""
    keep = np.unique(np.linspace(0, len(points) - 1, min(len(points), at_most)).round().astype(int))
    kept: Floats = points[keep]
    return kept
