"""The map of the gain as a figure: a panel per load, with the measured pairs on it."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from busdoor.comparison.gain_map import GainMap
from busdoor.core.format import NOTHING
from busdoor.plots.style import INK, PALE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = "YlGnBu"  # even in lightness, also for the colour-blind and in greyscale
_DARK = 0.55  # of the scale: beyond it numbers are white
_LEAST, _MOST = 1.0, 60.0  # ends of the colour scale, logarithmic
OVERLOADED = "hatched: static batching cannot carry that load"


def title(load: float) -> str:
    """Return what a panel shows."""
    if not isfinite(load):
        return "saturated: gain (ratio of output tokens/s)"
    return f"load {load:g}: E2E ratio"


def cell_text(row: pd.Series[Any]) -> str:
    """Write a gain with its interval; a dash where static batching cannot keep up."""
    if not isfinite(row["gain"]):
        return NOTHING
    span = f" ({row['low']:.2f} to {row['high']:.2f})" if isfinite(row["low"]) else ""
    return f"{row['gain']:.2f}×{span}"


@styled
def plot_map(found: GainMap) -> Figure:
    """Draw a panel per load: spread across, batch size up, the gain as colour and number."""
    fig = new_figure(9.6, 6.6)
    for place, load in enumerate(found.loads, start=1):
        ax = fig.add_subplot(2, 2, place)
        draw_panel(ax, found, load)
        ax.set_title(title(load), fontsize=9)
    points = (
        "; circles: measured on other servers (their own prediction)" if len(found.measured) else ""
    )
    across = "spread of output lengths (standard deviation / mean)"
    fig.supxlabel(f"{across}; {OVERLOADED}{points}", fontsize=8)
    return fig


def draw_panel(ax: Axes, found: GainMap, load: float) -> None:
    """Draw one load, with the measured pairs that are nearest to it."""
    from matplotlib.colors import LogNorm

    gains = found.panel(load)
    across, up = gains.columns.to_numpy(float), np.arange(len(gains))
    step = float(across[1] - across[0]) if len(across) > 1 else 1.0
    norm = LogNorm(_LEAST, _MOST)
    ax.set_facecolor("white")
    ax.pcolormesh(across, up, gains, cmap=_COLORS, norm=norm, shading="nearest")
    for row, size in enumerate(gains.index):
        for spread in across:
            value = float(gains.loc[size, spread])
            if isfinite(value):
                color = "white" if norm(value) > _DARK else INK
                ax.text(
                    spread,
                    row,
                    f"{value:.2g}" if value < 100 else f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=color,
                )
            else:
                ax.add_patch(_hatched((spread - step / 2, row - 0.5), step, 1.0))
    _draw_measured(ax, found, load)
    ax.set_xticks(across, [f"{spread:g}" for spread in across])
    ax.set_yticks(up, [f"{size:g}" for size in gains.index])
    ax.set_ylabel("static batch size")
    ax.grid(visible=False)


def _draw_measured(ax: Axes, found: GainMap, load: float) -> None:
    """Draw the measured pairs of a panel: a circle, and what was measured and predicted."""
    rows: list[float] = []  # of the points so far: labels of a row stand above and below in turn
    for x, y, point in _places(found, load):
        above = rows.count(y) % 2 == 0
        rows.append(y)
        ax.plot(
            x,
            y,
            "o",
            markersize=8,
            markerfacecolor="white",
            markeredgecolor=INK,
            markeredgewidth=1.2,
            zorder=4,
        )
        words = f"{point['measured']:.3g} ({point['predicted']:.3g})"
        ax.annotate(
            words,
            (x, y),
            xytext=(0, 7 if above else -14),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )


def _hatched(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        corner, width, height, facecolor="white", edgecolor=PALE, hatch="////", linewidth=0
    )


def _places(found: GainMap, load: float) -> Iterator[tuple[float, float, pd.Series[Any]]]:
    """Yield the measured pairs of a panel with their places on its axes, inside the frame."""
    sizes = np.log2(found.panel(load).index.to_numpy(float))
    for _, point in found.measured_at(load).iterrows():
        place = np.interp(np.log2(point["batch_size"]), sizes, np.arange(len(sizes)))
        yield float(point["spread"]), float(place), point


def values(found: GainMap, load: float) -> Iterator[tuple[float, float, str]]:
    """Yield the places of a panel with the text that shows where the pointer rests."""
    cells = found.cells.xs(load, level="load")
    sizes = list(found.panel(load).index)
    for (size, spread), row in cells.iterrows():  # type: ignore[misc]
        text = cell_text(row) if isfinite(row["gain"]) else "static cannot keep up"
        yield spread, sizes.index(size), f"batch size {size}, spread {spread:g}: {text}"
    for x, y, point in _places(found, load):
        at = f"load {point['load']:.2f}" if isfinite(point["load"]) else "burst"
        what = "gain" if point["is_gain"] else "E2E ratio"
        yield (
            x,
            y,
            f"{point['machine']}, {at}, batch size {point['batch_size']:.0f}: {what} measured "
            f"{point['measured']:.2f}×, predicted {point['predicted']:.2f}×",
        )
