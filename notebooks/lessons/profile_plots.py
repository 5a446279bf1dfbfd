"""The picture of a profile: each designed shape measured, and the fit as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.plots.style import identity, new_figure, styled, tint
from busdoor.validation.figures import SIMULATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (SIMULATED["color"], "#3f92c4")
_PROMPTS = (1, 4, 16, 64)  # of an iteration; more lines would hide each other


@styled
def plot_profile(table: pd.DataFrame) -> Figure:
    """Draw a profile: decodes, prompts, both, the host; points measured, lines fitted.

    Parameters
    ----------
    table : DataFrame
        As `lessons.twins.shapes` returns it.
    """
    figure = new_figure(10.0, 7.6)
    table = table.assign(
        each=table["context"] / table["decodes"].clip(lower=1),
        requests=table["decodes"] + table["chunks"],
    )
    for ax, draw in zip(
        figure.subplots(2, 2).ravel(), (_decodes, _prompts, _mixed, _host), strict=True
    ):
        draw(ax, table)
    return figure


def _decodes(ax: Axes, table: pd.DataFrame) -> None:
    _lines(ax, table[table["chunks"] == 0], "each", "decodes")
    ax.set(title="device: decodes", xlabel="requests in the batch")
    _logarithmic(ax, "x")
    ax.set_ylim(0, None)
    ax.legend(title="context of each, tokens", alignment="left")


def _prompts(ax: Axes, table: pd.DataFrame) -> None:
    whole = table[
        (table["decodes"] == 0) & (table["prior_tokens"] == 0) & table["chunks"].isin(_PROMPTS)
    ]
    _lines(ax, whole, "chunks", "prefill_tokens")
    ax.set(title="device: whole prompts", xlabel="tokens of all prompts")
    _logarithmic(ax, "x", subs=(1,))
    _logarithmic(ax, "y")
    ax.legend(title="prompts", alignment="left")


def _mixed(ax: Axes, table: pd.DataFrame) -> None:
    mixed = table[(table["chunks"] > 0) & (table["decodes"] > 0) & (table["prior_tokens"] == 0)]
    each = mixed["each"].mode().iloc[-1]  # a context that all numbers of decodes had
    _lines(ax, mixed[mixed["each"] == each], "prefill_tokens", "decodes")
    ax.set(
        title=f"device: decodes ({each:,.0f} tokens of context) beside a prompt",
        xlabel="decodes in the batch",
    )
    _logarithmic(ax)
    ax.legend(title="tokens of the prompt", loc="center left", alignment="left")


def _host(ax: Axes, table: pd.DataFrame) -> None:
    kinds = {
        "a CUDA graph": table["chunks"] == 0,
        "kernel by kernel, one prompt": table["chunks"] == 1,
    }
    for (label, rows), color in zip(kinds.items(), _COLORS[::-1], strict=True):
        _line(ax, table[rows], "requests", "host", label, color)
    ax.set(title="host: to launch an iteration", xlabel="requests in the batch", ylabel="ms")
    _logarithmic(ax)
    ax.legend()


def _logarithmic(ax: Axes, which: str = "xy", subs: Sequence[int] = (1, 2, 5)) -> None:
    """Set axes to logarithmic, with numbers that are read at a glance."""
    from matplotlib.ticker import LogLocator

    for letter in which:
        ax.set(**{f"{letter}scale": "log"})
        axis = ax.xaxis if letter == "x" else ax.yaxis
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")


def _lines(ax: Axes, table: pd.DataFrame, by: str, x: str) -> None:
    """Draw a line for each value that three or more shapes share, darker if larger."""
    groups = [(value, own) for value, own in table.groupby(by) if own[x].nunique() > 2]
    for (value, own), strength in zip(groups, np.linspace(0.3, 1.0, len(groups)), strict=True):
        _line(
            ax, own, x, "device", f"{value:,.0f}", tint(identity("vllm")["color"], float(strength))
        )
    ax.set_ylabel("ms")


def _line(ax: Axes, own: pd.DataFrame, x: str, of: str, label: str, color: str) -> None:
    """Draw medians as points, hollow where the device waited for the host; fit as a line."""
    fit = own.groupby(x)[f"{of}_fit_ms"].mean()
    ax.plot(fit.index, fit, color=color, label=label)
    faces = np.where(own["starved"] & (of == "device"), "white", color)
    ax.scatter(own[x], own[f"{of}_ms"], s=24, c=faces, edgecolors=color, linewidths=1.2, zorder=3)
