"""Values that a figure on a page shows under the pointer: unseen circles with a title."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 12  # of a line: as many as fingers tell apart on a phone
RADIUS = 6  # pixels: a fingertip's precision at the size of a phone


def hover_circles(fig: Figure) -> str:
    """Return a circle for each point of a line and each bar's end, in the SVG's pixels.

    The figure must have been drawn, so that its layout is final.
    """
    return "".join(value_circles(ax, (*_line_points(ax), *_bar_ends(ax))) for ax in fig.axes)


def value_circles(ax: Axes, values: Iterable[tuple[float, float, str]]) -> str:
    """Return a circle with its text for each of these points of a drawn panel."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    height, circles = fig.get_figheight() * 72, []
    for x, y, words in values:
        left, up = ax.transData.transform((x, y)) * 72 / fig.dpi
        if np.isfinite(left + up):
            circles.append(
                f'<circle cx="{left:.1f}" cy="{height - up:.1f}" r="{RADIUS}" fill="transparent">'
                f"<title>{escape(words)}</title></circle>"
            )
    return "".join(circles)


def _line_points(ax: Axes) -> Iterator[tuple[float, float, str]]:
    for line in ax.get_lines():
        label = str(line.get_label())
        if label.startswith("_") or line.get_transform() != ax.transData:
            continue  # an axis' line, or one across the whole panel
        points = np.asarray(line.get_xydata(), dtype=float)
        points = points[np.isfinite(points).all(axis=1)]
        every = np.unique(np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int))
        for x, y in points[every] if len(points) else ():
            yield x, y, f"{label}: {_shown(ax.xaxis, x)}; {_shown(ax.yaxis, y)}"


def _bar_ends(ax: Axes) -> Iterator[tuple[float, float, str]]:
    names = [text.get_text() for text in ax.get_yticklabels()]
    for bars in ax.containers:
        patches = [bar for bar in getattr(bars, "patches", ()) if bar.get_width()]
        for number, bar in enumerate(patches):
            end, middle = bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height() / 2
            name = names[number] if len(names) == len(patches) else str(bars.get_label())
            yield end, middle, f"{name}: {_shown(ax.xaxis, bar.get_width())}"


def _shown(axis: Any, value: float) -> str:
    """Return a value in the words of its axis: with its label, and its ticks' format."""
    from matplotlib.ticker import FuncFormatter

    formatter = axis.get_major_formatter()
    text = formatter(value) if isinstance(formatter, FuncFormatter) else f"{value:.4g}"
    return " ".join(
        filter(None, (text, axis.get_label_text().replace("(logarithmic)", "").strip()))
    )
