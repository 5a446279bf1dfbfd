"""Waterfalls of waste: from all that a server had down to what was useful."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from busdoor.plots.breakdown import KV_PARTS, SLOT_PARTS, kv_account, slot_account
from busdoor.plots.hatches import KV_LABELS, look
from busdoor.plots.runs import Runs, named
from busdoor.plots.style import PALE, axes_or_new, identity, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {**KV_LABELS, "stalled": "left out of the iteration", "finished": "finished, still held"}
NEGLIGIBLE = 5e-4  # would be written as 0.0 %
ROOM = 33  # per cent of the width that a label needs in the narrowest panel
LETTER_IN = 0.075  # width of a letter of the labels, of the panel before names take their part
_FIRST = ("useful", "used")  # always drawn, even at zero


def shares(results: Runs, what: Literal["slots", "kv"] = "slots") -> dict[str, dict[str, float]]:
    """Return the share of every part by policy; the shares of a policy add up to 1.

    Parts, as in `busdoor.plots.breakdown`, of the held slot-iterations or of the KV cache averaged
    over time. Raises ValueError if `what` is neither "slots" nor "kv".
    """
    if what not in ("slots", "kv"):
        raise ValueError(f"what is {what!r}, which is neither 'slots' nor 'kv'")
    accounts = {
        name: (slot_account if what == "slots" else kv_account)(run)
        for name, run in named(results).items()
    }
    return {
        name: {part: x / sum(parts.values()) for part, x in parts.items()}
        for name, parts in accounts.items()
    }


@styled
def plot_waste(
    results: Runs, what: Literal["slots", "kv"] = "slots", ax: Axes | None = None
) -> Axes:
    """Draw one waterfall per policy: from all that the server had, down to what was useful.

    Parameters
    ----------
    results : Run, sequence of Run, or mapping of str to Run
        Runs to compare; a mapping's keys are the names shown.
    what : {"slots", "kv"}
        "slots": the slot-iterations that requests held. "kv": the KV cache, averaged over time.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's by default.

    Returns
    -------
    matplotlib.axes.Axes
        One bar per part, as wide as its share in per cent, from where the part before it ends.

    Raises
    ------
    ValueError
        If `what` is neither.
    """
    table = shares(results, what)
    parts = SLOT_PARTS if what == "slots" else KV_PARTS
    drawn = {
        name: [p for p in parts if row[p] >= NEGLIGIBLE or p in _FIRST]
        for name, row in table.items()
    }
    rows = sum(len(own) + 1 for own in drawn.values())
    ax = axes_or_new(ax, 7.5, 0.7 + 0.26 * rows)
    top, labels = 0.0, {}
    for name, own in drawn.items():
        _waterfall(ax, name, {part: 100 * table[name][part] for part in own}, top)
        labels[top + (len(own) - 1) / 2] = name
        top += len(own) + 0.9
    _frame(ax, labels, top, what)
    return ax


def _waterfall(ax: Axes, name: str, percent: dict[str, float], top: float) -> None:
    """Draw the parts from the last (waste) in the top row to the useful one in the bottom row."""
    color = identity(name)["color"]
    ends = dict(zip(percent, accumulate(percent.values()), strict=True))
    for row, part in enumerate(reversed(percent)):
        left, y = ends[part] - percent[part], top + row
        ax.barh(
            y, percent[part], left=left, height=0.78, label=f"{name}: {part}", **look(part, color)
        )
        _label(
            ax,
            y,
            left,
            ends[part],
            f"{percent[part]:.1f}% {LABELS.get(part, part)}",
            part in _FIRST,
        )
        if part not in _FIRST:  # lead the eye to where the next part ends
            ax.plot([left, left], [y - 0.39, y + 1.39], color=PALE, linewidth=0.8)


def _label(ax: Axes, y: float, left: float, right: float, text: str, bold: bool) -> None:
    """Write beside the bar, where there is more room, or on it where neither side has enough."""
    weight, room = "bold" if bold else "normal", max(left, 100 - right)
    x, offset, side = (left, -5, "right") if left > 100 - right else (right, 5, "left")
    box = None
    width_in = ax.get_window_extent().width / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    needed = max(ROOM, 100 * LETTER_IN * len(text) / width_in)
    if room < needed:
        x = min(max((left + right) / 2, needed / 2), 100 - needed / 2)
        offset = 0
        side = "center"
        box = {"facecolor": "white", "pad": 1.5, "linewidth": 0}
    ax.annotate(
        text,
        (x, y),
        xytext=(offset, 0),
        textcoords="offset points",
        ha=side,
        va="center",
        bbox=box,
        fontweight=weight,
        fontsize=8.5,
    )


def _frame(ax: Axes, labels: dict[float, str], bottom: float, what: str) -> None:
    ax.set_yticks(list(labels), [name.replace(" (", "\n(") for name in labels.values()])
    for tick, name in zip(ax.get_yticklabels(), labels.values(), strict=True):
        tick.set(color=identity(name)["color"], fontweight="bold", fontsize=10)
    whole = (
        "the slot-iterations that requests held"
        if what == "slots"
        else "the KV cache, averaged over time"
    )
    ax.set(xlim=(0, 100), ylim=(bottom - 0.4, -0.6), xlabel=f"% of {whole}")
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
