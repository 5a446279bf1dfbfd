"""Figures of a validation: measured beside simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from busdoor.calibration.figures import plot_drift, predicted_vs_measured
from busdoor.core.arrays import Floats
from busdoor.core.format import as_percent
from busdoor.plots.style import INK, PALE, label_durations, new_figure, styled
from busdoor.plots.timeline import plot_timeline
from busdoor.results.result import Result
from busdoor.validation.data import ValidationData
from busdoor.validation.errors import latency_values
from busdoor.validation.knee import mean_e2e
from busdoor.validation.run import RunValidation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


MEASURED = {"color": INK, "linestyle": "-", "label": "measured"}
SIMULATED = {"color": "#c4501b", "linestyle": "--", "label": "simulated"}
LATENCY_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
_WINDOW = 120  # iterations in the timelines, so that one can be seen


@styled
def plot_validation(run: RunValidation, fig: Figure | None = None) -> Figure:
    """Draw a measured run beside its simulation: latencies, step time, errors, slots."""
    figure = fig or new_figure(13.0, 13.0)
    load = "all at once" if np.isnan(run.load) else f"ρ = {run.load:.2f}"
    figure.suptitle(
        f"{run.name}: measured and simulated ({load})", x=0.01, ha="left", fontweight="bold"
    )
    strips = figure.subfigures(3, 1, squeeze=False, height_ratios=(3.0, 3.2, 5.5))
    for strip, draw in zip(strips[:, 0], (_latencies, _steps, _timelines), strict=True):
        draw(strip, run)
    return figure


def _latencies(strip: SubFigure, run: RunValidation) -> None:
    for ax, (name, title) in zip(
        strip.subplots(1, 4, sharey=True), LATENCY_TITLES.items(), strict=True
    ):
        plot_latency(ax, run, name)
        ax.set_title(f"{title}, mean {as_percent(run.table['error'].get((name, 'mean'), np.nan))}")
    ax = strip.axes[0]
    ax.set_ylabel("share (%)")
    ax.legend(loc="lower right")


def plot_latency(ax: Axes, run: RunValidation, name: str) -> None:
    """Draw the distribution of a latency (ttft, tpot, itl, e2e), measured and simulated."""
    sides = [(latency_values(run.measured), MEASURED), (latency_values(run.simulated), SIMULATED)]
    ends = np.concatenate([_cdf(ax, *values[name], look) for values, look in sides])
    ax.set_ylim(0, 103)
    ends = ends[ends > 0]
    if len(ends):
        label_durations(ax, "x", ends.min(), ends.max())


def _cdf(ax: Axes, values: Floats, weights: np.ndarray, look: dict[str, str]) -> Floats:
    order = np.argsort(values)
    if not len(order) or not weights.sum():
        return np.array([])
    share = 100 * np.cumsum(weights[order]) / weights.sum()
    keep = np.unique(np.searchsorted(share, np.linspace(0, 100, 1000)).clip(max=len(share) - 1))
    ax.plot(values[order][keep], share[keep], drawstyle="steps-post", **look)  # type: ignore[arg-type]
    return values[order][[0, -1]]


def _steps(strip: SubFigure, run: RunValidation) -> None:
    left, middle, right = strip.subplots(1, 3)
    if len(run.measured.iterations):
        predicted_vs_measured(left, run.measured, run.predicted_s)
        left.set_title(
            f"step time: ±{100 * run.steps.mean_absolute:.1f} % each, "
            f"{as_percent(run.steps.total)} in all"
        )
        plot_drift(middle, run.measured, run.predicted_s)
    plot_budget(right, run)


def plot_budget(ax: Axes, run: RunValidation) -> None:
    """Draw what each part adds to the error of the mean E2E latency."""
    parts = run.budget[::-1]
    names = [f"{str(name).replace('_', ' ')}  {as_percent(value)}" for name, value in parts.items()]
    ax.barh(
        names,
        100 * parts.fillna(0.0),
        color=[INK if name == "total" else "#3f92c4" for name in parts.index],
    )
    ax.axvline(0, color=PALE, linewidth=1.0)
    ax.set(title="error of the mean E2E, by part", xlabel="%")


@styled
def plot_ratios(ratios: pd.DataFrame, label: str, ax: Axes | None = None) -> Figure:
    """Draw each pair's measured gain, or E2E ratio (the `label`), above the simulated one."""
    if ax is None:
        ax = new_figure(7.0, 1.4 + 0.9 * len(ratios)).subplots()
    places = np.arange(len(ratios))
    for look, offset in ((MEASURED, -0.19), (SIMULATED, 0.19)):
        bars = ax.barh(
            places + offset, ratios[look["label"]], 0.36, color=look["color"], label=look["label"]
        )
        ax.bar_label(bars, fmt="%.2f×", padding=3)
    ax.axvline(1.0, color=PALE, linewidth=1.0)
    rows = ratios[["continuous", "static"]].itertuples(index=False, name=None)
    ax.set_yticks(places, [f"{continuous}\nand {static}" for continuous, static in rows])
    most = ratios[["measured", "simulated"]].to_numpy(dtype=float).max(initial=1.0)
    ax.set(xlabel=label, xlim=(0, 1.2 * most))
    ax.invert_yaxis()
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    figure = ax.figure
    assert figure is not None
    return figure.figure


def plot_knee(validation: ValidationData, ax: Axes) -> None:
    """Draw mean E2E latency over rate, measured and simulated, and where each has doubled."""
    rates, e2e = mean_e2e(validation.runs)
    for look in (MEASURED, SIMULATED):
        ax.plot(rates, e2e[look["label"]], marker="o", **look)  # type: ignore[arg-type]
        ax.axvline(
            validation.knee[look["label"]],
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=0.8,
        )
    label_durations(ax, "y", e2e.to_numpy().min(), e2e.to_numpy().max())
    ax.set(xlabel="requests/s", xlim=(0, None), title="")
    ax.legend(loc="upper left")


def _timelines(strip: SubFigure, run: RunValidation) -> None:
    upper, lower = strip.subplots(2, 1, sharex=True)
    window_s = _window_s(run.simulated)
    for ax, result, name in (
        (upper, run.measured, "measured"),
        (lower, run.simulated, "simulated"),
    ):
        if len(result.stays) and len(result.iterations):
            plot_timeline(result, ax, window_s=window_s)
        ax.set_title(name, pad=12)
    upper.set_xlabel("")
    lower.set_xlabel("time (s)")


def _window_s(result: Result) -> tuple[float, float]:
    """Seconds around the busiest part, so short that single stays can be seen."""
    table = result.iterations
    most = int(
        np.convolve(table["num_requests"], np.ones(min(_WINDOW, len(table))), "valid").argmax()
    )
    last = table.iloc[min(most + _WINDOW, len(table) - 1)]
    return float(table["start_s"].iloc[most]), float(last["start_s"] + last["duration_s"])


def plot_gain(validation: ValidationData) -> Figure:
    """Draw the measured gain of each pair beside the simulated one."""
    return plot_ratios(validation.gain, "gain: saturated output tokens/s, continuous over static")


def plot_e2e_ratio(validation: ValidationData) -> Figure:
    """Draw the measured E2E ratio of each pair beside the simulated one."""
    return plot_ratios(validation.e2e_ratio, "E2E ratio: mean latency, static over continuous")
