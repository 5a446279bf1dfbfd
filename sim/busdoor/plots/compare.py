"""The page that `busdoor compare` saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from busdoor.plots.kv import plot_kv
from busdoor.plots.latency import METRIC_LABELS, Metric, plot_latency_cdf
from busdoor.plots.occupancy import plot_occupancy
from busdoor.plots.runs import Run
from busdoor.plots.style import identity, new_figure, styled
from busdoor.plots.timeline import plot_timeline
from busdoor.plots.waste import plot_waste

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@styled
def plot_compare(results: Mapping[str, Run]) -> Figure:
    """Draw policies side by side: latencies, slots, batch and queue, KV cache, and where it all went.

    Parameters
    ----------
    results : mapping of str to Run
        Results on the same requests; the keys are the names shown.

    Returns
    -------
    matplotlib.figure.Figure
        One page; save it with `save_figure`.
    """
    columns = len(results)
    fig = new_figure(max(9.5, 3.6 * columns), 16.5)
    latency, slots, batch, cache, waste = fig.subfigures(5, 1, height_ratios=[3.2, 3.2, 3.4, 2.9, 3.8])
    _latencies(latency, results)
    _column_each(slots, results, "Who held which slot", plot_timeline)
    _column_each(batch, results, "Batch and queue", plot_occupancy)
    _column_each(cache, results, "KV cache", plot_kv)
    _wastes(waste, results)
    return fig


def _latencies(fig: SubFigure, results: Mapping[str, Run]) -> None:
    fig.suptitle("How long requests waited", x=0.01, ha="left")
    metrics: tuple[Metric, ...] = ("ttft", "tpot", "e2e")
    for ax, metric in zip(fig.subplots(1, len(metrics), sharey=True), metrics, strict=True):
        plot_latency_cdf(results, metric, ax)
        ax.set_xlabel(METRIC_LABELS[metric])


def _column_each(fig: SubFigure, results: Mapping[str, Run], title: str, draw: Callable[[Run, Axes], Axes]) -> None:
    fig.suptitle(title, x=0.01, ha="left")
    row = fig.subplots(1, len(results), squeeze=False)[0]
    for ax, (name, run) in zip(row, results.items(), strict=True):
        draw(run, ax)
        ax.set_title(name, color=identity(name)["color"], pad=12)


def _wastes(fig: SubFigure, results: Mapping[str, Run]) -> None:
    fig.suptitle("Where slots and memory went", x=0.01, ha="left")
    left, right = fig.subplots(1, 2)
    plot_waste(results, "slots", left)
    plot_waste(results, "kv", right)
