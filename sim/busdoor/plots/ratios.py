"""Ratios as labelled horizontal bars: gains, and the ladder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from busdoor.plots.style import INK, PALE, axes_or_new, identity, styled, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR_IN = 0.42  # height of a row
LABEL_LETTERS = 24  # from here on a name is written in two lines
LETTER_IN = 0.068  # width of a letter at the size of labels
LEAST_ROOM, MOST_ROOM = 1.4, 3.0  # of the longest bar: with space for the words beside it


@styled
def plot_gain_bars(gain: pd.DataFrame, static: str, ax: Axes | None = None) -> Axes:
    """Draw the gain of each policy over static batching, with its interval.

    Parameters
    ----------
    gain : DataFrame
        As `Comparison.gain` has it: a row per policy, `over_static`, `over_static_low` and
        `over_static_high`.
    static : str
        The policy that gains are measured against.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Examples
    --------
    >>> ends = {"over_static_low": [1, 4.6], "over_static_high": [1, 5.0]}
    >>> gain = pd.DataFrame({"over_static": [1.0, 4.8], **ends}, index=["static", "vllm"])
    >>> ax = plot_gain_bars(gain, "static")
    >>> [float(bar.get_width()) for bar in ax.patches], ax.texts[1].get_text()
    ([1.0, 4.8], '4.80× (4.60 to 5.00)')
    """
    rows = gain[["over_static", "over_static_low", "over_static_high"]]
    words = [_interval(*row) for row in rows.to_numpy(float)]
    ax = _bars(rows, words, ax)
    ax.set_xlabel(f"gain over {static} (95 % interval)")
    return ax


@styled
def plot_ladder(ladder: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the ladder from static batching to vllm, each bar with the factor of its step.

    Parameters
    ----------
    ladder : DataFrame
        As `Comparison.ladder` has it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Examples
    --------
    >>> from busdoor.comparison.ladder import ladder_table
    >>> tokens_per_s = pd.Series({("static", 0): 100.0, ("vllm", 0): 480.0})
    >>> [text.get_text() for text in plot_ladder(ladder_table(tokens_per_s)).texts]
    ['1.00×', '4.80×   step: 4.80×']
    """
    rows = ladder[["over_static", "over_static_low", "over_static_high"]]
    steps = ladder[["factor", "factor_low", "factor_high"]].to_numpy(float)
    totals = [f"{value:.2f}×" for value in ladder["over_static"]]
    words = [
        f"{total}   step: {_interval(*step)}" for total, step in zip(totals, steps, strict=True)
    ]
    ax = _bars(rows, [*totals[:1], *words[1:]], ax)
    ax.set_xlabel(f"saturated tokens/s over {ladder.index[0]} (95 % interval)")
    return ax


def _interval(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.2f}×" if not low < high else f"{value:.2f}× ({low:.2f} to {high:.2f})"


def _bars(rows: pd.DataFrame, words: list[str], ax: Axes | None) -> Axes:
    """Draw a labelled bar per row, the first on top, with the interval of its length."""
    ax = axes_or_new(ax, 7.5, 0.9 + BAR_IN * len(rows))
    places = np.arange(len(rows))
    values, low, high = rows.to_numpy(float).T
    colors = [_color(str(name), str(rows.index[0])) for name in rows.index]
    ax.barh(places, values, 0.66, color=[tint(color, 0.8) for color in colors])
    ax.hlines(places, low, high, color=INK, linewidth=1.2)
    for place, text, end in zip(places, words, np.fmax(values, high), strict=True):
        ax.annotate(
            text,
            (end if end > 0 else 0.0, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    ax.axvline(1.0, color=PALE, linewidth=1.0, zorder=0)
    ax.set_yticks(places, [_label(str(name)) for name in rows.index])
    ax.set_xticks(
        [tick for tick in ax.get_xticks() if 0 <= tick <= float(np.nanmax([1.0, *values, *high]))]
    )
    ax.set(
        xlim=(0, _room(rows, words, ax) * float(np.nanmax([1.0, *values, *high]))),
        ylim=(len(rows) - 0.4, -0.6),
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    return ax


def _room(rows: pd.DataFrame, words: list[str], ax: Axes) -> float:
    """Return how much longer than the longest bar the axis is, for the words beside it."""
    names = [line for name in rows.index for line in _label(str(name)).split("\n")]
    width_in = ax.get_figure(root=True).get_figwidth() - LETTER_IN * max(map(len, names))  # type: ignore[union-attr]
    words_in = LETTER_IN * max(map(len, words))
    return min(MOST_ROOM, max(LEAST_ROOM, width_in / max(width_in - words_in, 0.1)))


def _label(name: str) -> str:
    """Return a row's name, in two lines where it is long and ends in parentheses."""
    return name.replace(" (", "\n(") if len(name) >= LABEL_LETTERS and name.endswith(")") else name


def _color(name: str, first: str) -> str:
    """Return a row's colour: its policy's, or for a step of the ladder the first row's."""
    return identity(first if name.startswith("+") else name.replace(",", " "))["color"]
