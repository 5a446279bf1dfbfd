"""The page that `busdoor compare` saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from busdoor.plots.hatches import (
    BATCH_LABELS,
    KV_LABELS,
    NEUTRAL,
    SLOT_LABELS,
    drop_legend,
    legend_below,
)
from busdoor.plots.kv import plot_kv
from busdoor.plots.latency import Metric, latency_s, plot_latency_cdf
from busdoor.plots.occupancy import plot_occupancy
from busdoor.plots.runs import Run
from busdoor.plots.style import INK, PALE, identity, new_figure, styled
from busdoor.plots.timeline import first_seconds, plot_timeline
from busdoor.plots.waste import plot_waste

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


_METRICS: tuple[Metric, ...] = ("ttft", "tpot", "e2e")


@styled
def plot_compare(
    results: Mapping[str, Run], fig: Figure | None = None, headline: str = ""
) -> Figure:
    """Draw policies side by side: latency, slots, batch and queue, KV cache, and their use.

    Parameters
    ----------
    results : mapping of str to Run
        Results on the same requests, by the names shown.
    fig : matplotlib.figure.Figure, optional
        Where to draw; a new one by default.
    headline : str
        What came of it, in a sentence above all.

    Returns
    -------
    matplotlib.figure.Figure
        One page; save it with `save_figure`.
    """
    fig = fig or new_figure(max(10.0, 3.3 * len(results)), 18.0)
    about = next(iter(results.values())).meta
    where = f"{about['trace']} on {about.get('gpu', 'a GPU')} with {about.get('model', 'a model')}"
    title = f"{headline}\n{where}, seed {about.get('seed', 0)}".lstrip()
    fig.suptitle(title, x=0.01, ha="left", fontweight="bold")
    draws = {_latencies: 3.2, _timelines: 3.4, _batches: 3.4, _caches: 3.0, _wastes: 4.0}
    strips = fig.subfigures(len(draws), 1, squeeze=False, height_ratios=list(draws.values()))
    for draw, strip in zip(draws, strips[:, 0], strict=True):
        draw(strip, results)
    return fig


def _latencies(fig: SubFigure, results: Mapping[str, Run]) -> None:
    _heading(fig, "Latency (further left is sooner)")
    metrics = [
        metric
        for metric in _METRICS
        if any(len(latency_s(run, metric)) for run in results.values())
    ]
    panels = list(fig.subplots(1, max(1, len(metrics)), sharey=True, squeeze=False)[0])
    for ax, metric in zip(panels, metrics or _METRICS[:1], strict=True):
        plot_latency_cdf(results, metric, ax)
        ax.label_outer(remove_inner_ticks=True)
        drop_legend(ax)
        absent = [str(line.get_label()) for line in ax.get_lines() if not len(line.get_xdata())]
        ax.set_title("\n".join(absent), fontsize=8.5, fontweight="normal", pad=3)
    legend_below(fig, {}, dict(zip(results, panels[-1].get_lines(), strict=False)))


def _timelines(fig: SubFigure, results: Mapping[str, Run]) -> None:
    from matplotlib.lines import Line2D

    _heading(fig, "Requests in their slots")
    window_s = first_seconds(list(results.values()))
    panels = _panels(fig, results, lambda run, ax: plot_timeline(run, ax, window_s=window_s))
    slots = max(ax.get_ylim()[0] for ax in panels)
    every = -(-int(slots + 0.5) // 8)  # at most eight numbers on the height that all share
    for ax in panels:
        ticks = range(every - 1, int(ax.get_ylim()[0] + 0.5), every)
        ax.set_yticks(ticks, [str(slot + 1) for slot in ticks])
        ax.set_ylim(slots, -0.5)
    door = Line2D([], [], marker="v", linestyle="", color=NEUTRAL)
    legend_below(fig, SLOT_LABELS, {"a request enters": door})


def _batches(fig: SubFigure, results: Mapping[str, Run]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    _heading(fig, "Batch and queue")
    panels = _panels(fig, results, plot_occupancy)
    _share_time(panels)
    _share_height(panels)
    _share_height([ax for ax in fig.axes if ax.get_label() == "queue"])
    legend_below(
        fig, BATCH_LABELS, {"slots": Line2D([], [], color=INK), "waiting": Patch(color=PALE)}
    )


def _caches(fig: SubFigure, results: Mapping[str, Run]) -> None:
    from matplotlib.lines import Line2D

    _heading(fig, "KV cache")
    panels = _panels(fig, results, plot_kv)
    _share_time(panels)
    _share_height(panels)
    drawn = {label for ax in panels for label in ax.get_legend_handles_labels()[1]}
    parts = {part: label for part, label in KV_LABELS.items() if label in drawn}
    legend_below(fig, parts, {"capacity": Line2D([], [], color=INK)})


def _wastes(fig: SubFigure, results: Mapping[str, Run]) -> None:
    _heading(fig, "Use of slots and memory")
    left, right = fig.subplots(1, 2)
    plot_waste(results, "slots", left)
    plot_waste(results, "kv", right)


def _heading(fig: SubFigure, text: str) -> None:
    fig.suptitle(text, x=0.008, ha="left")


def _panels(
    fig: SubFigure, results: Mapping[str, Run], draw: Callable[[Run, Axes], Axes]
) -> list[Axes]:
    """Draw one panel per policy, under its name and without a legend of its own."""
    row = list(fig.subplots(1, len(results), squeeze=False)[0])
    for ax, (name, run) in zip(row, results.items(), strict=True):
        draw(run, ax)
        ax.set_title(name, color=identity(name)["color"], pad=12)
        drop_legend(ax)
    return row


def _share_height(panels: list[Axes]) -> None:
    """Set every panel's axis to the tallest one's, from 0."""
    most = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(0, most)


def _share_time(panels: list[Axes]) -> None:
    """Set every time axis to the slowest policy's, so that faster ones visibly end sooner."""
    ends_s = [ax.get_xlim() for ax in panels]
    for ax in panels:
        ax.set_xlim(min(low for low, _ in ends_s), max(high for _, high in ends_s))
