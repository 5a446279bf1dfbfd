"""Pictures of the machines that were measured: profiles, answers measured and predicted, where a step time errs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busdoor.plots.style import INK, PALE, identity, label_durations, new_figure, styled, tint
from busdoor.results.result import Result
from busdoor.validation.figures import MEASURED, SIMULATED
from busdoor.validation.run import RunValidation
from busdoor.validation.thresholds import THRESHOLDS
from busdoor.validation.validation import Validation
from lessons.twins import followed, launches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (SIMULATED["color"], "#3f92c4")
_MARKERS = ("D", "^")
_PROMPTS = (1, 4, 16, 64)  # of an iteration; more lines would hide each other
_LAUNCHES = 20  # fewer have no quartiles to speak of
_BAR = 100 * THRESHOLDS["e2e_mean"]


@styled
def plot_profile(table: pd.DataFrame) -> Figure:
    """Draw the shapes of a profile: decodes, prompts, both together, and the host; points measured, lines fitted.

    Parameters
    ----------
    table : DataFrame
        As `lessons.twins.shapes` returns it.
    """
    figure = new_figure(10.0, 7.6)
    table = table.assign(
        each=table["context"] / table["decodes"].clip(lower=1), requests=table["decodes"] + table["chunks"]
    )
    for ax, draw in zip(figure.subplots(2, 2).ravel(), (_decodes, _prompts, _mixed, _host), strict=True):
        draw(ax, table)
    return figure


def _decodes(ax: Axes, table: pd.DataFrame) -> None:
    _lines(ax, table[table["chunks"] == 0], "each", "decodes")
    ax.set(title="device: decodes", xlabel="requests in the batch")
    _logarithmic(ax, "x")
    ax.set_ylim(0, None)
    ax.legend(title="context of each, tokens", alignment="left")


def _prompts(ax: Axes, table: pd.DataFrame) -> None:
    whole = table[(table["decodes"] == 0) & (table["prior_tokens"] == 0) & table["chunks"].isin(_PROMPTS)]
    _lines(ax, whole, "chunks", "prefill_tokens")
    ax.set(title="device: whole prompts", xlabel="tokens of all prompts")
    _logarithmic(ax, "x", subs=(1,))
    _logarithmic(ax, "y")
    ax.legend(title="prompts", alignment="left")


def _mixed(ax: Axes, table: pd.DataFrame) -> None:
    mixed = table[(table["chunks"] > 0) & (table["decodes"] > 0) & (table["prior_tokens"] == 0)]
    each = mixed["each"].mode().iloc[-1]  # a context that all numbers of decodes had
    _lines(ax, mixed[mixed["each"] == each], "prefill_tokens", "decodes")
    ax.set(title=f"device: decodes ({each:,.0f} tokens of context) beside a prompt", xlabel="decodes in the batch")
    _logarithmic(ax)
    ax.legend(title="tokens of the prompt", loc="center left", alignment="left")


def _host(ax: Axes, table: pd.DataFrame) -> None:
    kinds = {"a CUDA graph": table["chunks"] == 0, "kernel by kernel, one prompt": table["chunks"] == 1}
    for (label, rows), color in zip(kinds.items(), _COLORS[::-1], strict=True):
        _line(ax, table[rows], "requests", "host", label, color)
    ax.set(title="host: to launch an iteration", xlabel="requests in the batch", ylabel="ms")
    _logarithmic(ax)
    ax.legend()


def _logarithmic(ax: Axes, which: str = "xy", subs: Sequence[int] = (1, 2, 5)) -> None:
    """Make axes logarithmic, with numbers that are read at a glance."""
    from matplotlib.ticker import LogLocator

    for letter in which:
        ax.set(**{f"{letter}scale": "log"})
        axis = ax.xaxis if letter == "x" else ax.yaxis
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")


def _lines(ax: Axes, table: pd.DataFrame, by: str, x: str) -> None:
    """Draw a line for each value that three shapes or more have in common, the darker the larger it is."""
    groups = [(value, own) for value, own in table.groupby(by) if own[x].nunique() > 2]
    for (value, own), strength in zip(groups, np.linspace(0.3, 1.0, len(groups)), strict=True):
        _line(ax, own, x, "device", f"{value:,.0f}", tint(identity("vllm")["color"], float(strength)))
    ax.set_ylabel("ms")


def _line(ax: Axes, own: pd.DataFrame, x: str, of: str, label: str, color: str) -> None:
    """Draw medians as points, hollow where the device waited for the host, and the fit as a line."""
    fit = own.groupby(x)[f"{of}_fit_ms"].mean()
    ax.plot(fit.index, fit, color=color, label=label)
    faces = np.where(own["starved"] & (of == "device"), "white", color)
    ax.scatter(own[x], own[f"{of}_ms"], s=24, c=faces, edgecolors=color, linewidths=1.2, zorder=3)


def _by_load(validation: Validation) -> list[RunValidation]:
    return sorted(validation.runs, key=lambda run: (np.nan_to_num(run.load, nan=np.inf), run.name))


def _mean_e2e(runs: Sequence[RunValidation]) -> pd.DataFrame:
    """Mean E2E latency of each run in seconds, measured and simulated, and the relative error; by name."""
    columns = ("measured", "simulated", "error")
    values = {column: [float(run.table[column]["e2e", "mean"]) for run in runs] for column in columns}
    return pd.DataFrame(values, index=[run.name for run in runs])


@styled
def plot_answers(sides: Mapping[str, Validation], starred: Collection[str] = ()) -> Figure:
    """Draw the mean E2E latency of each run, measured and predicted, and beside it the error in per cent.

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
        hollow: dict[str, Any] = {"color": color, "markerfacecolor": "none", "markeredgewidth": 1.5, "markersize": 9}
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
    """Draw how long the host took to launch a prefill, by run, and what the step time misses around it.

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
    _launches(left, {"the profile": profile} | {_title(run, run.name in starred): run.measured for run in runs})
    _misses(right, pd.DataFrame({run.name: followed(run)["error"] for run in runs}).fillna(0.0))
    return figure


def _launches(ax: Axes, results: Mapping[str, Result]) -> None:
    """Draw median and quartiles of each result, the first one, a profile, apart."""
    for place, result in enumerate(results.values()):
        low, middle, high = np.percentile(launches(result), (25, 50, 75))
        color = INK if place else SIMULATED["color"]
        ax.plot([low, high], [place, place], color=color, linewidth=3, alpha=0.4, solid_capstyle="butt")
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
    """Draw the mean E2E latency of like runs over their load, and beside it what step time and latency err by."""
    runs = sorted(runs, key=lambda run: run.load)
    left, right = (figure := new_figure(10.0, 3.6)).subplots(1, 2)
    e2e = _mean_e2e(runs)
    for look in (MEASURED, SIMULATED):
        left.plot([run.load for run in runs], e2e[look["label"]], marker="o", **look)
    label_durations(left, "y", e2e["measured"].min(), e2e["measured"].max())
    left.set(title="mean E2E latency", xlabel="load ρ")
    errors = {"step time, in all": [run.steps.total for run in runs], "mean E2E": e2e["error"].tolist()}
    _error_bars(right, errors)
    right.set_xticks(range(len(runs)), [f"{run.load:.2f}" for run in runs])
    for ax in (left, right):
        ax.legend()
    return figure


def _error_bars(ax: Axes, errors: Mapping[str, Sequence[float]]) -> None:
    for (label, own), color, offset in zip(errors.items(), (tint(INK, 0.45), _COLORS[0]), (-0.2, 0.2), strict=True):
        bars = ax.bar(np.arange(len(own)) + offset, [100 * error for error in own], 0.38, color=color, label=label)
        ax.bar_label(bars, fmt="%+.1f", padding=2)
    ax.axhline(0, color=PALE, linewidth=1.0)
    ax.margins(y=0.15)
    ax.set(title="error (%)", xlabel="load ρ")
