"""What a timeline draws in its slots: stays, empty time, letters and entries."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busdoor.core.arrays import Floats
from busdoor.plots.hatches import look
from busdoor.plots.phases import PIECES
from busdoor.plots.runs import IterationClock, Run, of_replica
from busdoor.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TRIANGLES = 80  # more of them would merge into a bar
BAR_HEIGHT = 0.78  # of a row; the rest separates the slots

Window = tuple[float, float]  # seconds from and to


def draw_stays(ax: Axes, stays: pd.DataFrame, color: str) -> None:
    """Draw each stay: dark in prefill, light in decode, hatched when its request has finished."""
    for kind, start, end in PIECES:
        _bars(ax, stays["slot"], stays[start], stays[end], kind, color)
    ends = stays[stays["ends_request"]]
    low, high = ends["slot"] - BAR_HEIGHT / 2, ends["slot"] + BAR_HEIGHT / 2
    ax.vlines(ends["done_s"], low, high, colors=INK, linewidth=1.1, label="last token")


def draw_empty(
    ax: Axes, run: Run, replica: int, stays: pd.DataFrame, slots: int, window_s: Window
) -> None:
    """Draw the time in which iterations ran and no request held the slot."""
    iterations, _ = of_replica(run, replica)
    busy_s = np.clip(IterationClock(iterations).busy_spans_s(), *window_s)
    busy_s = busy_s[busy_s[:, 1] > busy_s[:, 0]]
    spans = [
        (slot, *gap)
        for slot in range(slots)
        for gap in _gaps_s(stays[stays["slot"] == slot], busy_s)
    ]
    slot, start_s, end_s = np.array(spans).reshape(-1, 3).T
    _bars(ax, slot, start_s, end_s, "empty", INK)


def _bars(
    ax: Axes, slot: ArrayLike, start_s: ArrayLike, end_s: ArrayLike, kind: str, color: str
) -> None:
    """Add rectangles, one row per slot, as one path, so that the hatch is drawn once."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    left, right = np.asarray(start_s, float), np.asarray(end_s, float)
    low, high = np.asarray(slot, float) - BAR_HEIGHT / 2, np.asarray(slot, float) + BAR_HEIGHT / 2
    corners = np.stack([left, low, right, low, right, high, left, high, left, low], axis=-1)[
        right > left
    ]
    codes = np.tile([Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY], len(corners))
    ax.add_patch(PathPatch(Path(corners.reshape(-1, 2), codes), label=kind, **look(kind, color)))


def draw_entries(ax: Axes, entered_s: Floats, color: str) -> None:
    """Mark above the slots each moment at which a request enters."""
    from matplotlib.transforms import offset_copy

    above = offset_copy(ax.get_xaxis_transform(), ax.get_figure(root=True), y=4.5, units="points")
    marker = "v" if len(entered_s) <= MAX_TRIANGLES else "|"
    height = np.ones(len(entered_s))
    (line,) = ax.plot(entered_s, height, marker, color=color, markersize=5, label="door")
    line.set(clip_on=False, transform=above)
    # an empty one lies in a corner of the figure, and room would be made for it
    line.set_in_layout(len(entered_s) > 0)


def draw_letters(ax: Axes, stays: pd.DataFrame, window_s: Window, num_requests: int) -> None:
    """Write A, B, C in bars that have room, where the alphabet lasts."""
    if num_requests > len(ascii_uppercase):
        return
    for stay in stays[["request_id", "slot", "prefill_end_s", "done_s"]].to_dict("records"):
        left, right = max(stay["prefill_end_s"], window_s[0]), min(stay["done_s"], window_s[1])
        # a letter is about a hundredth of the width
        if right - left > 0.015 * (window_s[1] - window_s[0]):
            letter = ascii_uppercase[int(stay["request_id"])]
            place = ((left + right) / 2, stay["slot"])
            ax.annotate(letter, place, ha="center", va="center_baseline", fontweight="bold")


def _gaps_s(stays: pd.DataFrame, busy_s: Floats) -> list[tuple[float, float]]:
    """Return the parts of the busy spans that no stay covers; the stays are in order of time."""
    starts = np.r_[-np.inf, stays["leave_s"].to_numpy(float)]
    ends = np.r_[stays["enter_s"].to_numpy(float), np.inf]
    gaps = []
    for begin_s, end_s in busy_s:
        first, last = np.searchsorted(ends, begin_s, side="right"), np.searchsorted(starts, end_s)
        left, right = np.maximum(starts[first:last], begin_s), np.minimum(ends[first:last], end_s)
        wide = right - left > 1e-9 * max(1.0, end_s)
        gaps += list(zip(left[wide].tolist(), right[wide].tolist(), strict=True))
    return gaps
