"""Pictures of measured machines: answers measured and predicted, where step times err."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busdoor.plots.style import INK, PALE, label_durations, new_figure, styled, tint
from busdoor.results.result import Result
from busdoor.validation.figures import MEASURED, SIMULATED
from busdoor.validation.run import RunValidation
from busdoor.validation.thresholds import THRESHOLDS
from busdoor.validation.validation import Validation
from lessons.followed import followed, launches
from lessons.profile_plots import plot_profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_answers", "plot_lateness", "plot_loads", "plot_profile"]

_COLORS = (SIMULATED["color"], "#3f92c4")
_MARKERS = ("D", "^")
_LAUNCHES = 20  # fewer have no quartiles to speak of
_BAR = 100 * THRESHOLDS["e2e_mean"]


def _by_load(validation: Validation) -> list[RunValidation]:
    return sorted(validation.runs, key=lambda run: (np.nan_to_num(run.load, nan=np.inf), run.name))


def _mean_e2e(runs: Sequence[RunValidation]) -> pd.DataFrame:
    """Mean E2E latency (s) by run name, measured and simulated, and the relative error."""
    columns = ("measured", "simulated", "error")
    values = {
        column: [float(run.table[column]["e2e", "mean"]) for run in runs] for column in columns
    }
    return pd.DataFrame(values, index=[run.name for run in runs])


@styled
def plot_answers(sides: Mapping[str, Validation], starred: Collection[str] = ()) -> Figure:
    """Draw each run's mean E2E latency, measured and predicted, and the error in per cent.

    Parameters
    ----------
    sides : mapping of str to Validation
        One or two, of the same runs, by what to call them. The first one's loads are written.
    starred : collection of str
        Names of runs that get an asterisk.
    """
    runs = _by_load(next(iter(sides.values())))
    names = [run.name for run in runs]
    tables = {label: _mean_e2e(validation.runs).loc[names] for label, validation in sides.items()}
    figure = new_figure(10.0, 1.5 + 0.3 * len(runs))
    left, right = figure.subplots(1, 2, sharey=True)
    _latencies(left, tables)
    _errors(right, tables)
    _rows(left, [_title(run, run.name in starred) for run in runs])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _latencies(ax: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    measured = next(iter(tables.values()))["measured"]
    ax.plot(measured, range(len(measured)), "o", color=INK, markersize=7, label="measured")
    for (label, table), color, marker in zip(tables.items(), _COLORS, _MARKERS, strict=False):
        hollow: dict[str, Any] = {
            "color": color,
            "markerfacecolor": "none",
            "markeredgewidth": 1.5,
            "markersize": 9,
        }
        ax.plot(table["simulated"], range(len(table)), marker, label=label, **hollow)
    seconds = pd.concat(tables)[["measured", "simulated"]].to_numpy()
    label_durations(ax, "x", seconds.min(), seconds.max())
    ax.set_title("mean E2E latency")


def _errors(ax: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    for table, color, marker in zip(tables.values(), _COLORS, _MARKERS, strict=False):
        ax.plot(100 * table["error"], range(len(table)), marker, color=color)
    ax.axvspan(-_BAR, _BAR, color=tint(INK, 0.08), zorder=0)
    ax.axvline(0, color=PALE, linewidth=1.0, zorder=0)
    ax.set(title="its error", xlabel="% of what was measured")


def _rows(ax: Axes, labels: Sequence[str]) -> None:
    """Write a label at each row, the first one above."""
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()


def _title(run: RunValidation, starred: bool) -> str:
    load = "all at once" if np.isnan(run.load) else f"ρ {run.load:.2f}"
    return f"{run.name}{'*' * starred}  ({load})"


@styled
def plot_lateness(validation: Validation, profile: Result, starred: Collection[str] = ()) -> Figure:
    """Draw how long the host took to launch a prefill, by run, and the step-time error there.

    Parameters
    ----------
    validation : Validation
        Its runs with enough prefills that were launched while decodes ran are shown.
    profile : Result
        What the step time was fitted to.
    starred : collection of str
        Names of runs that get an asterisk.
    """
    runs = [run for run in _by_load(validation) if len(launches(run.measured)) >= _LAUNCHES]
    figure = new_figure(10.0, 1.6 + 0.27 * (len(runs) + 1))
    left, right = figure.subplots(1, 2)
    _launches(
        left,
        {"the profile": profile} | {_title(run, run.name in starred): run.measured for run in runs},
    )
    _misses(right, pd.DataFrame({run.name: followed(run)["error_%"] for run in runs}).fillna(0.0))
    return figure


def _launches(ax: Axes, results: Mapping[str, Result]) -> None:
    """Draw median and quartiles of each result, the first one, a profile, apart."""
    for place, result in enumerate(results.values()):
        low, middle, high = np.percentile(launches(result), (25, 50, 75))
        color = INK if place else SIMULATED["color"]
        ax.plot(
            [low, high], [place, place], color=color, linewidth=3, alpha=0.4, solid_capstyle="butt"
        )
        ax.plot(middle, place, "o", color=color)
    _rows(ax, list(results))
    ax.set(title="host: to launch a prefill", xlabel="ms (median and quartiles)", xlim=(0, None))


def _misses(ax: Axes, errors: pd.DataFrame) -> None:
    """Draw a row for each kind of iteration, a point for each run, and their sum below."""
    table = pd.concat([errors, errors.sum().to_frame("all iterations").T])
    for place, row in enumerate(table.to_numpy()):
        ax.plot(row, [place] * len(row), "o", color=SIMULATED["color"], alpha=0.6)
    ax.axvline(0, color=PALE, linewidth=1.0, zorder=0)
    _rows(ax, list(table.index))
    ax.set(title="predicted less measured, each run", xlabel="% of the run's iteration time")


@styled
def plot_loads(runs: Sequence[RunValidation]) -> Figure:
    """Draw like runs' mean E2E latency over load, and the step-time and latency errors."""
    runs = sorted(runs, key=lambda run: run.load)
    left, right = (figure := new_figure(10.0, 3.6)).subplots(1, 2)
    e2e = _mean_e2e(runs)
    for look in (MEASURED, SIMULATED):
        left.plot([run.load for run in runs], e2e[look["label"]], marker="o", **look)
    label_durations(left, "y", e2e["measured"].min(), e2e["measured"].max())
    left.set(title="mean E2E latency", xlabel="load ρ")
    errors = {
        "step time, in all": [run.steps.total for run in runs],
        "mean E2E": e2e["error"].tolist(),
    }
    _error_bars(right, errors)
    right.set_xticks(range(len(runs)), [f"{run.load:.2f}" for run in runs])
    for ax in (left, right):
        ax.legend()
    return figure


def _error_bars(ax: Axes, errors: Mapping[str, Sequence[float]]) -> None:
    for (label, own), color, offset in zip(
        errors.items(), (tint(INK, 0.45), _COLORS[0]), (-0.2, 0.2), strict=True
    ):
        bars = ax.bar(
            np.arange(len(own)) + offset,
            [100 * error for error in own],
            0.38,
            color=color,
            label=label,
        )
        ax.bar_label(bars, fmt="%+.1f", padding=2)
    ax.axhline(0, color=PALE, linewidth=1.0)
    ax.margins(y=0.15)
    ax.set(title="error (%)", xlabel="load ρ")
