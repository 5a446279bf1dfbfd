"""Figures of a calibration: measured iterations beside predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from busdoor.calibration.log import columns_of
from busdoor.calibration.teacher_forcing import predicted_s
from busdoor.core.arrays import Floats
from busdoor.plots.style import INK, PALE, label_durations, new_figure, styled
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 20_000  # iterations drawn; more are the same cloud


@styled
def plot_residuals(results: Sequence[Result], names: Sequence[str], step_time: StepTime) -> Figure:
    """Draw residuals, a row per run: predicted against measured; ratio by size, context, time."""
    figure = new_figure(14.0, 3.2 * len(results))
    rows = figure.subplots(len(results), 4, squeeze=False)
    for axes, result, name in zip(rows, results, names, strict=True):
        seconds = predicted_s(result, step_time)
        predicted_vs_measured(axes[0], result, seconds)
        axes[0].set_title(name)
        columns = columns_of(result.iterations)
        ratio = result.iterations["duration_s"].to_numpy(dtype=float) / seconds
        _ratio(axes[1], columns["positions"], ratio, "positions")
        _ratio(axes[2], columns["per_context_s"], ratio, "keys read by decodes")
        plot_drift(axes[3], result, seconds)
    return figure


def _ratio(ax: Axes, x: Floats, ratio: Floats, label: str) -> None:
    """Draw measured over predicted as points, and the median of each twentieth of them."""
    rows = _thin(len(x))
    ax.plot(x[rows], ratio[rows], ".", color="#3f92c4", markersize=3, alpha=0.3)
    pieces = [piece for piece in np.array_split(np.argsort(x), 20) if len(piece)]
    ax.plot(
        [np.median(x[piece]) for piece in pieces],
        [np.median(ratio[piece]) for piece in pieces],
        color=INK,
    )
    ax.axhline(1.0, color=PALE, linewidth=1.0)
    ax.set(xlabel=label, ylim=(0, 2.5), title="measured / predicted")


def predicted_vs_measured(
    ax: Axes, result: Result, predicted_s: Floats, most: int = _SHOWN
) -> None:
    """Draw a point per iteration (up to a limit), the line of equality; prefill apart."""
    repeat = result.iterations["repeat"].to_numpy(dtype=float)
    measured_s = result.iterations["duration_s"].to_numpy(dtype=float) / repeat
    predicted_s = predicted_s / repeat
    rows = _thin(len(measured_s), most)
    prefill = result.iterations["num_prefill_tokens"].to_numpy()[rows] > 0
    for kind, color, label in (
        (~prefill, "#3f92c4", "decode only"),
        (prefill, "#c4501b", "with prefill"),
    ):
        ax.plot(
            measured_s[rows][kind],
            predicted_s[rows][kind],
            ".",
            color=color,
            markersize=3,
            alpha=0.4,
            label=label,
        )
    both = np.concatenate([measured_s, predicted_s])
    low, high = both[both > 0].min(), both.max()
    label_durations(ax, "x", low, high)
    label_durations(ax, "y", low, high)
    ax.plot(ax.get_xlim(), ax.get_xlim(), color=INK, linewidth=0.8)
    ax.set(xlabel="measured", ylabel="predicted")
    ax.legend(loc="upper left", markerscale=3)


def _thin(count: int, most: int = _SHOWN) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def plot_drift(ax: Axes, result: Result, predicted_s: Floats) -> None:
    """Draw measured over predicted by fiftieths of the run: a drifting machine is not flat."""
    start_s = result.iterations["start_s"].to_numpy(dtype=float)
    measured_s = result.iterations["duration_s"].to_numpy(dtype=float)
    pieces = np.array_split(np.arange(len(start_s)), min(50, len(start_s)))
    ratio = [measured_s[rows].sum() / predicted_s[rows].sum() for rows in pieces]
    ax.axhline(1.0, color=PALE, linewidth=1.0)
    ax.plot([start_s[rows].mean() for rows in pieces], ratio, color=INK, drawstyle="steps-mid")
    ax.set(title="drift: measured / predicted", xlabel="time (s)")
